"""Files of a request reach the account once, over both generations."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from kimi_provider.engine import KimiEngine
from kimi_provider.errors import BadRequest, KimiError, RateLimited
from kimi_provider.events import Event
from kimi_provider.request import FilePart, Message, TextPart

from .conftest import World, collect, text_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
PDF = b"%PDF-1.7\n" + b"words " * 400

BOTH = pytest.mark.parametrize("protocol", ["connect", "rest"])


def data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture(content: bytes = PNG, name: str | None = "cat.png") -> FilePart:
    return FilePart(kind="image", source=data_url(content, "image/png"), filename=name)


def document(content: bytes = PDF, name: str | None = "notes.pdf") -> FilePart:
    return FilePart(kind="file", source=data_url(content, "application/pdf"), filename=name)


def user(*parts: FilePart | str) -> Message:
    return Message(role="user", parts=tuple(TextPart(text=one) if isinstance(one, str) else one for one in parts))


def assistant(text: str) -> Message:
    return Message(role="assistant", parts=(TextPart(text=text),))


async def ask(engine: KimiEngine, *messages: Message) -> list[Event]:
    return await collect(engine, messages=messages)


def references(world: World) -> list[list[str]]:
    """Ids of the files that each answered question named."""
    named = []
    for one in world.state["requests"]:
        body: Any = one["body"]
        if one["path"].endswith("/Chat"):
            named.append([block["file"]["id"] for block in body["message"]["blocks"] if "file" in block])
        elif one["path"].endswith("/completion/stream"):
            assert [row["id"] for row in body.get("refs_file", [])] == body["refs"]
            named.append(body["refs"])
    return named


@BOTH
async def test_an_image_and_a_document_arrive_whole(world: World, protocol: str) -> None:
    engine = world.engine(kimi_protocol=protocol)
    await ask(engine, user("What are these?", picture(), document()))
    image, pdf = world.state["files"]
    assert (image["sha256"], image["type"]) == (hashlib.sha256(PNG).hexdigest(), "image")
    assert (pdf["sha256"], pdf["name"], pdf["content_type"]) == (
        hashlib.sha256(PDF).hexdigest(),
        "notes.pdf",
        "application/pdf",
    )
    assert references(world) == [[image["id"], pdf["id"]]]


@BOTH
async def test_a_file_of_the_first_turn_is_seen_in_the_third_and_sent_once(world: World, protocol: str) -> None:
    engine = world.engine(kimi_protocol=protocol)
    turns = [user("Look", picture())]
    for said, asked in (("A cat.", "How old?"), ("Two.", "What colour?")):
        await ask(engine, *turns)
        turns += [assistant(said), user(asked)]
    await ask(engine, *turns)
    (file,) = world.state["files"]
    assert references(world) == [[file["id"]]] * 3


@BOTH
async def test_the_same_bytes_under_two_names_are_one_file(world: World, protocol: str) -> None:
    await ask(world.engine(kimi_protocol=protocol), user("Same?", picture(), picture(name="again.png")))
    assert len(world.state["files"]) == 1


@BOTH
async def test_answers_at_the_same_time_share_an_upload(world: World, protocol: str) -> None:
    world.server.change(max_streams=4)
    engine = world.engine("ada", kimi_protocol=protocol, kimi_max_streams=4)
    await asyncio.gather(*(ask(engine, user(f"Question {n}", picture())) for n in range(4)))
    assert len(world.state["files"]) == 1


async def test_an_upload_that_failed_is_left_to_the_next_who_needs_it(world: World) -> None:
    world.server.change(upload_refusal="unavailable")
    engine = world.engine("ada", kimi_max_streams=4, overlay="retry: {backoff_s: []}")
    asked = [asyncio.create_task(ask(engine, user(f"Question {n}", picture()))) for n in range(3)]
    for task in asked:
        with pytest.raises(KimiError):
            await task
    assert world.state["files"] == []
    world.server.change(upload_refusal="")
    await ask(engine, user("Now?", picture()))
    assert len(world.state["files"]) == 1


@BOTH
async def test_every_account_has_its_own(world: World, protocol: str) -> None:
    engine = world.engine("ada", "bea", kimi_protocol=protocol)
    for _ in range(4):
        await ask(engine, user("Look", picture()))
    assert len({file["user"] for file in world.state["files"]}) == len(world.state["files"]) == 2


@BOTH
async def test_what_the_service_can_not_read_is_told_by_its_place(world: World, protocol: str) -> None:
    world.server.change(parse_result="fail")
    with pytest.raises(BadRequest) as caught:
        await ask(world.engine(kimi_protocol=protocol), user("Hi"), assistant("Hello"), user("Read", document()))
    assert "Message 3, part 2: Kimi can't read 'notes.pdf'" in str(caught.value)
    assert len(world.state["files"]) == 1
    assert world.state["chats"] == []


@BOTH
async def test_a_broken_part_sends_nothing(world: World, protocol: str) -> None:
    broken = FilePart(kind="image", source="data:image/png;base64,!!!")
    with pytest.raises(BadRequest, match="Message 1, part 2"):
        await ask(world.engine(kimi_protocol=protocol), user("Look", broken))
    assert world.state["bytes_received"] == 0


@BOTH
async def test_an_account_that_may_not_upload_makes_room_for_another(world: World, protocol: str) -> None:
    world.server.change(upload_refusal="rate_limited")
    with pytest.raises(RateLimited):
        await ask(world.engine("ada", "bea", kimi_protocol=protocol), user("Look", picture()))
    assert len({one["headers"]["authorization"] for one in world.state["requests"]}) == 2


async def test_files_the_account_lost_are_sent_again(world: World) -> None:
    engine = world.engine()
    await ask(engine, user("Look", picture()))
    world.server.state.files.clear()
    assert text_of(await ask(engine, user("Look again", picture())))
    assert len(world.state["files"]) == 1


async def test_a_large_file_goes_from_disk(world: World) -> None:
    content = b"%PDF-1.7\n" + bytes(3_000_000)
    for protocol in ("connect", "rest"):
        await ask(world.engine(kimi_protocol=protocol), user("Read", document(content)))
    assert [file["sha256"] for file in world.state["files"]] == [hashlib.sha256(content).hexdigest()] * 2


@BOTH
async def test_a_name_of_any_letters(world: World, protocol: str) -> None:
    await ask(world.engine(kimi_protocol=protocol), user("Read", document(name='Ünï "x"\r\n 文.pdf')))
    (file,) = world.state["files"]
    assert file["name"].endswith(".pdf")
    assert "文" in file["name"]


async def test_parsing_that_never_ends_is_a_timeout(world: World) -> None:
    world.server.change(parse_result="never")
    engine = world.engine(overlay="files: {parse_timeout_s: 0.3, parse_poll_s: [0.05]}")
    with pytest.raises(KimiError) as caught:
        await ask(engine, user("Read", document()))
    assert caught.value.code == "timeout"
