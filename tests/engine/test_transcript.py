from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_provider.engine.transcript import ASSISTANT, TOOL, USER, Prompt, TranscriptGuard, flatten
from kimi_provider.errors import BadRequest
from kimi_provider.request import FilePart, Message, Role, TextPart, ToolCall, ToolSpec
from kimi_provider.tools import Toolbox
from kimi_provider.upstream import Upstream
from tests.costs import linear

TOOLS = Upstream.load().tools
BOX = Toolbox((), TOOLS)


def said(role: Role, *texts: str, calls: tuple[ToolCall, ...] = ()) -> Message:
    return Message(role=role, parts=tuple(TextPart(text=text) for text in texts), tool_calls=calls)


def result(text: str, *, failed: bool = False) -> Message:
    return Message(role="tool", parts=(TextPart(text=text),), tool_call_id="c1", is_error=failed)


def body_of(*messages: Message) -> str:
    """The transcript without its introduction, which is prose."""
    prompt = flatten(messages, BOX)
    assert prompt.guarded
    paragraphs = prompt.text.split("\n\n")
    introduction = next(at for at, text in enumerate(paragraphs) if text.startswith("The conversation so far"))
    return "\n\n".join([*paragraphs[:introduction], "...", *paragraphs[introduction + 1 :]])


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ((said("user", "Hi"),), "Hi"),
        ((said("user", "  Hi\n"),), "  Hi\n"),
        ((said("user", "one", "two"),), "one\ntwo"),
        ((said("system", "Be brief."), said("user", "Hi")), "Be brief.\n\nHi"),
        ((said("user", "Hi"), said("system", "Late rule.")), "Late rule.\n\nHi"),
        ((said("system", "A"), said("system", "  "), said("system", "B"), said("user", "Hi")), "A\n\nB\n\nHi"),
        ((said("assistant", " "), said("user", "Hi")), "Hi"),
    ],
)
def test_a_lone_question_goes_as_it_is_behind_the_system_text(messages: tuple[Message, ...], text: str) -> None:
    prompt = flatten(messages, BOX)
    assert (prompt.text, prompt.guarded) == (text, False)


CALL = ToolCall(id="c1", name="add", arguments='{"a":1}')


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (
            (said("user", "Hi"), said("assistant", "Hello"), said("user", "Bye")),
            "...\n\n[USER]\nHi\n\n[ASSISTANT]\nHello\n\n[USER]\nBye\n\n[ASSISTANT]",
        ),
        (
            (said("user", "Hi"), said("system", "Rules"), said("user", "Again")),
            "Rules\n\n...\n\n[USER]\nHi\n\n[USER]\nAgain\n\n[ASSISTANT]",
        ),
        ((said("assistant", "Welcome"),), "...\n\n[ASSISTANT]\nWelcome\n\n[ASSISTANT]"),
        (
            (said("user", "Add"), said("assistant", calls=(CALL,)), result("2")),
            f"...\n\n[USER]\nAdd\n\n[ASSISTANT]\n{BOX.calls_text([CALL])}\n\n[TOOL RESULT for c1]\n2\n\n[ASSISTANT]",
        ),
        (
            (said("user", "Add"), said("assistant", "So:", calls=(CALL, CALL)), result("2"), result("no", failed=True)),
            f"...\n\n[USER]\nAdd\n\n[ASSISTANT]\nSo:\n\n{BOX.calls_text([CALL, CALL])}"
            "\n\n[TOOL RESULT for c1]\n2\n\n[TOOL RESULT for c1: failed]\nno\n\n[ASSISTANT]",
        ),
        # A tool that printed nothing has answered all the same.
        (
            (said("user", "Add"), said("assistant", calls=(CALL,)), result("")),
            f"...\n\n[USER]\nAdd\n\n[ASSISTANT]\n{BOX.calls_text([CALL])}\n\n[TOOL RESULT for c1]\n\n[ASSISTANT]",
        ),
    ],
)
def test_a_history_becomes_a_transcript_with_an_open_turn(messages: tuple[Message, ...], text: str) -> None:
    assert body_of(*messages) == text


def test_the_introduction_names_the_headers_it_uses() -> None:
    text = flatten((said("user", "Hi"), said("assistant", "Hello"), said("user", "Bye")), BOX).text
    assert USER in text.split("\n\n")[0]
    assert ASSISTANT in text.split("\n\n")[0]
    assert text.endswith(f"\n\n{ASSISTANT}")


@pytest.mark.parametrize(
    "messages",
    [(), (said("user", ""),), (said("user", " \n"),), (said("system", "Only rules"),), (said("tool", ""),)],
)
def test_nothing_to_answer_is_the_callers_fault(messages: tuple[Message, ...]) -> None:
    with pytest.raises(BadRequest, match="no text") as caught:
        flatten(messages, BOX)
    assert caught.value.cure()


def test_tools_are_described_behind_the_system_text() -> None:
    box = Toolbox((ToolSpec(name="add", description="Adds."),), TOOLS)
    prompt = flatten((said("system", "Be brief."), said("user", "Hi")), box, instructions="As JSON.")
    assert prompt.text == f"Be brief.\n\n{box.instructions}\n\nAs JSON.\n\nHi"
    assert prompt.guarded


def test_a_dialects_example_stands_before_the_history() -> None:
    box = Toolbox((ToolSpec(name="add"),), TOOLS, dialect="action")
    text = flatten((said("user", "Hi"),), box).text
    assert [turn.text in text for turn in box.example] == [True] * len(box.example)
    assert text.endswith(f"{USER}\nHi\n\n{ASSISTANT}")


PICTURE = FilePart(kind="image", source="https://example.com/a.png")
LABELS = {PICTURE: "image 1: a.png"}


def test_a_file_beside_a_lone_message_leaves_its_text_as_it_is() -> None:
    lone = Message(role="user", parts=(TextPart(text="What is this?"), PICTURE))
    assert flatten((lone,), BOX, LABELS) == Prompt(text="What is this?", guarded=False)


def test_files_between_texts_of_a_lone_message_keep_their_order() -> None:
    other = FilePart(kind="image", source="https://example.com/b.png")
    lone = Message(role="user", parts=(TextPart(text="This"), PICTURE, TextPart(text="or this"), other))
    prompt = flatten((lone,), BOX, {**LABELS, other: "image 2: b.png"})
    assert prompt.text == "This\n[image 1: a.png]\nor this\n[image 2: b.png]"


def test_a_message_of_a_file_alone_can_be_answered() -> None:
    lone = Message(role="user", parts=(PICTURE,))
    assert flatten((lone,), BOX, LABELS) == Prompt(text="[image 1: a.png]", guarded=False)


def test_a_transcript_says_where_each_file_stood() -> None:
    shown = Message(role="user", parts=(TextPart(text="Before"), PICTURE, TextPart(text="after")))
    prompt = flatten((shown, said("assistant", "A cat."), said("user", "Which colour?")), BOX, LABELS)
    assert f"{USER}\nBefore\n[image 1: a.png]\nafter\n\n{ASSISTANT}\nA cat." in prompt.text


# --- TranscriptGuard ---


def guarded(*chunks: str) -> tuple[str, bool]:
    guard = TranscriptGuard()
    shown = [guard.feed(chunk) for chunk in chunks]
    return "".join([*shown, guard.close()]), guard.stopped


@pytest.mark.parametrize(
    ("answer", "shown", "stopped"),
    [
        ("", "", False),
        ("Plain.", "Plain.", False),
        ("Lines\n\n  and\tmore\n", "Lines\n\n  and\tmore\n", False),
        ("Hello\n[USER]\nAnd you?", "Hello", True),
        ("Hello\n\n\n[USER] And you?", "Hello", True),
        ("Hello \n[TOOL RESULT]\n2", "Hello ", True),
        ("[USER]\nHi", "", True),
        ("\n\n[USER]\nHi", "", True),
        ("[ASSISTANT]\nHello", "Hello", False),
        ("[ASSISTANT] Hello", "Hello", False),
        ("[ASSISTANT]\n\n Hello\n", "Hello\n", False),
        ("\n[ASSISTANT]\nHello", "Hello", False),
        ("[ASSISTANT]\n[ASSISTANT]\nHello", "Hello", False),
        ("[ASSISTANT]\n[USER]\nHi", "", True),
        ("[ASSISTANT]\nHello\n[USER]", "Hello", True),
        ("Hello\n[ASSISTANT]\nmore", "Hello\n[ASSISTANT]\nmore", False),
        (" Hello\n[ASSISTANT]\nmore", " Hello\n[ASSISTANT]\nmore", False),
        ("See [USER] here", "See [USER] here", False),
        ("An indented\n [USER]", "An indented\n [USER]", False),
        ("[US", "[US", False),
        ("Hello\n[USE", "Hello\n[USE", False),
        ("[1] is first\n[2] second\n[USERS]", "[1] is first\n[2] second\n[USERS]", False),
        ("Hello\n\n", "Hello\n\n", False),
        ("[", "[", False),
        ("  ", "  ", False),
    ],
)
def test_the_answer_ends_before_another_turn(answer: str, shown: str, stopped: bool) -> None:
    assert guarded(answer) == (shown, stopped)
    assert guarded(*answer) == (shown, stopped)


PIECES = st.sampled_from(
    [USER, TOOL, ASSISTANT, "[", "]", "[US", "[TOOL", "[ASS", "\n", "\n\n", " ", "word", "é😀", "\t"]
)
ANSWERS = st.lists(PIECES, max_size=14).map("".join)
CUTS = st.lists(st.integers(0, 80), max_size=12)


def cut(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(at for at in cuts if at < len(text))})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(ANSWERS, CUTS)
def test_how_the_answer_was_cut_makes_no_difference(answer: str, cuts: list[int]) -> None:
    assert guarded(*cut(answer, cuts)) == guarded(answer)


HEADERLESS = st.text(st.sampled_from("[]USERTOLANI \nabc1"), max_size=60).filter(
    lambda text: not any(marker in text for marker in (USER, TOOL, ASSISTANT))
)


@given(HEADERLESS, CUTS)
def test_text_without_headers_arrives_complete(answer: str, cuts: list[int]) -> None:
    assert guarded(*cut(answer, cuts)) == (answer, False)


@given(HEADERLESS, CUTS)
def test_only_what_may_become_a_header_is_held_back(answer: str, cuts: list[int]) -> None:
    guard = TranscriptGuard()
    fed = shown = ""
    for chunk in cut(answer, cuts):
        fed += chunk
        shown += guard.feed(chunk)
        held = fed[len(shown) :]
        assert fed.startswith(shown)
        assert any(marker.startswith(held.lstrip("\n ")) for marker in (USER, TOOL, ASSISTANT))
        assert len(held.lstrip("\n ")) < len(TOOL)


@given(st.lists(st.text(st.characters(exclude_characters="[\n "), min_size=1), max_size=8))
def test_text_that_begins_no_header_is_shown_at_once(chunks: list[str]) -> None:
    guard = TranscriptGuard()
    assert [guard.feed(chunk) for chunk in chunks] == chunks


@given(HEADERLESS, st.sampled_from([USER, TOOL]), st.text(max_size=10), CUTS)
def test_a_turn_header_ends_the_answer_wherever_it_is_cut(answer: str, marker: str, rest: str, cuts: list[int]) -> None:
    whole = f"a{answer}\n{marker}{rest}"
    assert guarded(*cut(whole, cuts)) == (f"a{answer}".rstrip("\n"), True)


def test_nothing_is_shown_after_the_end() -> None:
    guard = TranscriptGuard()
    assert guard.feed("Hi\n[USER]") == "Hi"
    assert [guard.feed("more"), guard.feed("\nand more"), guard.close()] == ["", "", ""]


@linear
def test_a_long_answer_in_one_piece_costs_its_length() -> None:
    lines = "0123456789\n" * 2_000_000
    assert guarded(lines + "end") == (lines + "end", False)
