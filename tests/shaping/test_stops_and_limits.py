from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.errors import BadRequest
from kimi_provider.events import Event, Notice, StopReached, TextDelta, ThinkingDelta, ToolCallDelta
from kimi_provider.shaping import Shaper, estimate_tokens, stop_sequences
from kimi_provider.shaping.stops import StopFilter


def cut(text: str, points: list[int]) -> list[str]:
    edges = [0, *sorted(min(point, len(text)) for point in points), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def filtered(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, str | None]:
    stop_filter = StopFilter(stops)
    shown = "".join(stop_filter.feed(piece) for piece in pieces)
    return shown + stop_filter.close(), stop_filter.stopped


@pytest.mark.parametrize(
    ("text", "stops", "shown", "stopped"),
    [
        ("one STOP two", ("STOP",), "one ", "STOP"),
        ("one STO", ("STOP",), "one STO", None),
        ("STOP", ("STOP",), "", "STOP"),
        ("aab", ("ab",), "a", "ab"),
        ("a\n\nb", ("\n\n", "\n"), "a", "\n"),
        ("xabcd", ("abcd", "bc"), "xa", "bc"),
        ("xabc", ("bc", "abc"), "x", "abc"),
        ("no stops", (), "no stops", None),
        ("日本語", ("本",), "日", "本"),
    ],
)
def test_stop_strings(text: str, stops: tuple[str, ...], shown: str, stopped: str | None) -> None:
    assert filtered([text], stops) == (shown, stopped)
    assert filtered(list(text), stops) == (shown, stopped)


@settings(deadline=None)
@given(
    st.text("ab\n", max_size=30),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4).map(tuple),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_stop_strings_however_the_text_is_cut(text: str, stops: tuple[str, ...], points: list[int]) -> None:
    """The oracle reads character by character and stops at the first complete string, the longest of several."""
    shown, stopped = text, None
    for end in range(1, len(text) + 1):
        if done := [stop for stop in stops if text[:end].endswith(stop)]:
            stopped = max(done, key=len)
            shown = text[: end - len(stopped)]
            break
    for pieces in ([text], list(text), cut(text, points)):
        assert filtered(pieces, stops) == (shown, stopped)


def test_only_what_may_become_a_stop_string_is_held() -> None:
    stop_filter = StopFilter(("</end>",))
    assert [stop_filter.feed(piece) for piece in ("a <", "b </en", "x </end", "> never")] == ["a ", "<b ", "</enx ", ""]
    assert stop_filter.stopped == "</end>"


@pytest.mark.parametrize(
    ("value", "stops"),
    [(None, ()), ("a", ("a",)), (["a", "b", "a", ""], ("a", "b")), ("", ()), ([], ())],
)
def test_the_parameter_stop(value: Any, stops: tuple[str, ...]) -> None:
    assert stop_sequences(value) == stops


@pytest.mark.parametrize("value", [3, ["a", 3], {"a": 1}, ["x"] * 65, "x" * 1001])
def test_an_unusable_stop_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="stop"):
        stop_sequences(value)


@given(st.text(max_size=200))
def test_tokens_are_estimated_from_bytes(text: str) -> None:
    assert estimate_tokens(text) == (max(1, round(len(text.encode()) / 4)) if text else 0)


def shaped(events: list[Event], **options: Any) -> tuple[list[Event], str | None]:
    shaper = Shaper(**options)
    out = shaper.feed(events)
    return out + shaper.close(), shaper.finish


@settings(deadline=None)
@given(st.text(max_size=80), st.integers(0, 12), st.lists(st.integers(0, 80), max_size=6))
def test_max_tokens_cuts_at_the_same_character_however_the_text_is_cut(
    text: str, limit: int, points: list[int]
) -> None:
    expected = text
    while len(expected.encode()) > limit * 4:
        expected = expected[:-1]
    for pieces in ([text], list(text), cut(text, points)):
        events, finish = shaped([TextDelta(piece) for piece in pieces if piece], max_tokens=limit)
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == expected
        assert finish == ("length" if expected != text else None)


def test_thinking_and_arguments_count_too() -> None:
    events: list[Event] = [
        ThinkingDelta("1234"),
        TextDelta("5678"),
        ToolCallDelta(index=0, id="c", name="n", arguments="abcd"),
        ToolCallDelta(index=0, arguments="efgh"),
        TextDelta("never"),
    ]
    assert shaped(events, max_tokens=4) == (
        [*events[:2], events[2], ToolCallDelta(index=0, arguments="efgh")],
        "length",
    )
    assert shaped(events, max_tokens=1) == ([ThinkingDelta("1234")], "length")
    assert shaped(events) == (events, None)


def test_other_events_pass_and_a_stop_ends_everything() -> None:
    notice = Notice(code="model_degraded", message="m")
    events: list[Event] = [notice, ThinkingDelta("a STOP"), TextDelta("b ST"), TextDelta("OP c"), notice]
    assert shaped(events, stop=("STOP",)) == (
        [notice, ThinkingDelta("a STOP"), TextDelta("b "), StopReached("STOP")],
        "stop",
    )


def test_held_text_goes_out_before_a_call() -> None:
    call = ToolCallDelta(index=0, id="c", name="n")
    assert shaped([TextDelta("x ST"), call], stop=("STOP",)) == ([TextDelta("x "), TextDelta("ST"), call], None)


def test_when_both_apply_the_earlier_counts() -> None:
    assert shaped([TextDelta("12345678STOP")], stop=("STOP",), max_tokens=1) == ([TextDelta("1234")], "length")
    assert shaped([TextDelta("12STOP345678")], stop=("STOP",), max_tokens=1) == (
        [TextDelta("12"), StopReached("STOP")],
        "stop",
    )
