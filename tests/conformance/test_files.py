"""Files in each API's own parts reach the account whole and once, and stay with the conversation."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from .surfaces import File, Question, Surface, Turn, ask, asking
from .world import World


def picture() -> File:
    """Other bytes each time: the account keeps what earlier tests brought."""
    return File(name="cat.png", media_type="image/png", content=b"\x89PNG\r\n\x1a\n" + uuid.uuid4().bytes * 100)


def document() -> File:
    return File(name="notes.pdf", media_type="application/pdf", content=b"%PDF-1.7\n" + uuid.uuid4().bytes * 100)


def uploaded(world: World, file: File) -> list[dict]:
    """The account's copies of a file."""
    wanted = hashlib.sha256(file.content).hexdigest()
    return [one for one in world.state["files"] if one["sha256"] == wanted]


@pytest.mark.parametrize("make", [picture, document])
async def test_a_file_of_the_first_turn_is_seen_in_the_third_and_sent_once(
    world: World, surface: Surface, stream: bool, make
) -> None:
    file = make()
    turns = [Turn(role="user", text="What is this?", files=(file,))]
    for said in ("How old is it?", "And what colour?"):
        answer = await ask(surface, Question(turns=tuple(turns)), stream=stream)
        assert "I see" in answer.text
        turns += [Turn(role="assistant", text=answer.text), Turn(role="user", text=said)]
    answer = await ask(surface, Question(turns=tuple(turns)), stream=stream)
    (copy,) = uploaded(world, file)
    assert copy["content_type"] == file.media_type
    assert [asked.file_ids for asked in world.asked[-3:]] == [(copy["id"],)] * 3
    assert f"I see {copy['name']} (" in answer.text


async def test_several_files_of_one_turn_keep_their_order(world: World, surface: Surface, stream: bool) -> None:
    files = (picture(), document(), picture())
    await ask(surface, asking("Compare these.", *files), stream=stream)
    ids = tuple(copy["id"] for file in files for copy in uploaded(world, file))
    assert len(ids) == 3
    assert world.asked[-1].file_ids == ids


async def test_a_file_without_words_is_answered(world: World, surface: Surface, stream: bool) -> None:
    file = picture()
    answer = await ask(surface, asking("", file), stream=stream)
    assert uploaded(world, file)
    assert "I see" in answer.text
