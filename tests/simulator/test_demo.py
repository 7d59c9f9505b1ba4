"""The default answer: friendly, honest, and with a memory."""

from __future__ import annotations

import pytest

from kimi_provider.simulator import reply

from .wire import CHAT_V1, Answer, Caller, body, pack

SEARCH = [{"type": "TOOL_TYPE_SEARCH", "search": {}}]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hello there", "Hello! Nice to meet you."),
        ("Selamat pagi, apa kabar?", "Halo! Senang bertemu."),
        ("makasih ya", "Sama-sama!"),
        ("What is 12 * 7?", "12 * 7 = 84."),
        ("berapa 7 + 3.5", "7 + 3.5 = 10.5."),
        ("and 4/0 ?", "divide by zero"),
        ("What can you do?", "built-in simulator"),
        ("Tell me about fjords", "small sum"),
    ],
)
def test_what_it_says(caller: Caller, prompt: str, expected: str) -> None:
    text = caller.chat(prompt).text
    assert text.startswith("[simulator] ")
    assert f"“{prompt}”" in text
    assert expected in text


def test_thinking_and_search_on_request(caller: Caller) -> None:
    plain = caller.chat("Hello")
    kinds = [next(k for k in one["block"] if k not in ("id", "parentId")) for one in plain.blocks if "block" in one]
    assert set(kinds) == {"text"}
    rich = caller.chat("Hello", tools=SEARCH, options={"thinking": True, "model": "k2d6-chat"})
    kinds = [next(k for k in one["block"] if k not in ("id", "parentId")) for one in rich.blocks if "block" in one]
    assert {"multiStage", "stage", "think", "tool", "text"} == set(kinds)
    assert "\ue3a0cite\ue3a3web_search:1#0\ue3a8" in rich.text
    used = [one["message"]["refs"] for one in rich.blocks if one.get("mask") == "message.refs.usedSearchChunks"]
    assert used == [{"usedSearchChunks": [{"id": "r1", "refIndex": "web_search:1#0"}]}]


@pytest.mark.parametrize(
    ("options", "thinks"),
    [
        ({"thinking": False}, False),
        ({"reasoning_effort": "REASONING_EFFORT_LOW"}, True),
        ({"reasoning_effort": "REASONING_EFFORT_NONE"}, False),
        ({"thinking": True, "reasoning_effort": "REASONING_EFFORT_LOW"}, True),
        ({}, False),
    ],
)
def test_when_it_thinks(caller: Caller, options: dict[str, object], thinks: bool) -> None:
    answer = caller.chat("Hello", options=options)
    assert any("think" in one.get("block", {}) for one in answer.blocks) is thinks


def test_memory_of_a_chat(caller: Caller) -> None:
    first = caller.chat("My favourite fruit is durian")
    second = caller.go_on(first, "Now something else")
    assert "turn 2" in second.text
    third = caller.go_on(second, "Do you remember what I said?")
    assert third.chat_id == first.chat_id
    assert "durian" in third.text
    assert "something else" in third.text
    assert "durian" not in caller.chat("Do you remember what I said?").text


def test_memory_follows_the_parent(caller: Caller) -> None:
    first = caller.chat("Alpha")
    caller.go_on(first, "Beta")
    branch = caller.go_on(first, "Do you remember?")
    assert "Alpha" in branch.text
    assert "Beta" not in branch.text


def test_a_chat_goes_on_at_its_newest_message_without_a_parent(caller: Caller) -> None:
    first = caller.chat("Alpha")
    caller.go_on(first, "Beta")
    message = {**body("Do you remember?")["message"], "parentId": ""}
    answer = Answer(caller.post(pack(body(chatId=first.chat_id, message=message)), path=CHAT_V1))
    assert "Beta" in answer.text


def test_editing_an_earlier_message(caller: Caller) -> None:
    first = caller.chat("Alpha")
    message = {**body("Gamma")["message"], "id": first.faces["user"]["id"]}
    answer = caller.chat(chat_id=first.chat_id, message=message)
    assert "“Gamma”" in answer.text
    assert answer.faces["user"]["id"] == first.faces["user"]["id"]
    assert "Alpha" not in caller.go_on(answer, "Do you remember?").text


TRANSCRIPT = "Be kind.\n\nUser: I am Ada\n\nAssistant: Hello Ada\n\nUser: Do you remember?"
BRACKETS = "[SYSTEM]\nBe kind.\n[USER]\nI am Ada\n[ASSISTANT]\nHello Ada\n[USER]\nDo you remember?"


@pytest.mark.parametrize("prompt", [TRANSCRIPT, BRACKETS])
def test_flattened_transcripts(caller: Caller, prompt: str) -> None:
    text = caller.chat(prompt).text
    assert "You wrote: “Do you remember?”." in text
    assert "“I am Ada”" in text
    assert "turn 2" in text
    assert "system prompt of 8 characters" in text


def test_system_prompt_in_the_options(caller: Caller) -> None:
    text = caller.chat("Hello", options={"system_prompt": "Speak like a pirate"}).text
    assert "system prompt of 19 characters" in text


def test_pieces_lose_nothing() -> None:
    for text in ("", " ", "a", "  two  words \n", "[simulator] You wrote: “a b”. \n\nnew line  "):
        assert "".join(reply.pieces(text)) == text or not text.strip()
    assert len(reply.pieces("one two three")) == 3


def test_at_natural_speed_each_piece_is_followed_by_a_pause(caller: Caller) -> None:
    caller.server.change(pace=100_000)
    caller.in_steps("demo", b'"block.text', (1, 2, 3))


def test_files_of_a_message(caller: Caller) -> None:
    file_id = caller.upload("a.txt", b"words", "text/plain").json()["file"]["id"]
    blocks = [{"text": {"content": "Read this"}}, {"file": {"id": file_id, "status": "PROCESS_STATUS_SUCCESS"}}]
    answer = caller.chat(message={**body()["message"], "blocks": blocks})
    added = [one for one in answer.events if one.get("mask") == "chat.files"]
    assert [(one["op"], one["chat"]["files"]) for one in added] == [("append", [{"id": file_id}])]
    assert answer.faces["user"]["blocks"][1] == {"id": "2", "file": {"id": file_id}}
