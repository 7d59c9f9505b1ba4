"""The document's examples, byte for byte -> the events written out here by hand."""

from __future__ import annotations

import json

import pytest

from kimi_provider.errors import (
    ContextTooLong,
    KimiError,
    Overloaded,
    PermissionRefused,
    ProtocolError,
    TooManyStreams,
    UpstreamError,
)
from kimi_provider.events import (
    ChatOpened,
    Citation,
    Event,
    Finished,
    SearchResults,
    Source,
    TextDelta,
    ThinkingDelta,
)
from kimi_provider.protocols.rest.answer import Answer
from kimi_provider.protocols.rest.wire import AnswerDecoder

from .frames import GOLDEN, UPSTREAM, decode, golden, golden_http

ASSISTANT = ChatOpened(message_id="cxq1asst0000000000a0")
CONTINUED = ChatOpened(message_id="cxq1asst0000000000a1")
PAGE = Source(url="https://example.com/a", title="Example")
QUOTED = Source(url="https://example.com/a", title="Example", snippet="An example")
SECOND = Source(url="https://example.com/b", title="Second")

STREAMS: dict[str, tuple[list[Event], type[KimiError] | None]] = {
    "b5-full-turn": (
        [
            ASSISTANT,
            SearchResults(sources=(PAGE,)),
            ThinkingDelta("The user greets me."),
            TextDelta("Hello[1]"),
            Citation(number=1, source=PAGE),
            Finished(),
        ],
        None,
    ),
    "b5-every-kind": (
        [
            ASSISTANT,
            SearchResults(sources=(QUOTED,)),
            ThinkingDelta("Rain, I think."),
            TextDelta("9 °C[1]"),
            Citation(number=1, source=QUOTED),
            TextDelta(", 東京 🌧"),
            SearchResults(sources=(SECOND,)),
            Finished(),
        ],
        None,
    ),
    "b5-error": ([], TooManyStreams),
    "b5-error-in-turn": ([ASSISTANT], TooManyStreams),
    "b5-overloaded-after-text": ([ASSISTANT, TextDelta("Hel")], Overloaded),
    "b5-too-long": ([], ContextTooLong),
    "b5-forbidden": ([], PermissionRefused),
    "b5-cut-short": ([ASSISTANT, TextDelta("Hel")], ProtocolError),
    "b5-no-text": ([ASSISTANT], UpstreamError),
    # As the last call that is allowed: its answer stays cut.
    "b5-length": ([ASSISTANT, TextDelta("Hel"), Finished(reason="length")], None),
    "b5-continue": ([CONTINUED, TextDelta("lo."), Finished()], None),
}
#: HTTP answers: status and the keys of the body.
HTTP: dict[str, tuple[int, set[str]]] = {
    "b5-auth-401-http": (401, {"error_type", "message", "detail"}),
    "b5-auth-200-http": (200, {"error_type", "message", "detail"}),
    "b5-refresh-401-http": (401, {"error_type", "message"}),
    "b5-refresh-http": (200, {"access_token", "refresh_token"}),
    "b5-create-http": (200, {"id", "name"}),
    "b5-user-http": (200, {"id", "name", "avatar"}),
    "b5-delete-http": (200, set()),
    "b5-research-usage-http": (200, {"remain", "total", "used"}),
    "b5-research-usage-wrapped-http": (200, {"research_usage", "membership"}),
}


def test_no_example_is_missing_and_none_is_untested() -> None:
    assert {path.stem for path in GOLDEN.glob("b5-*.bin")} == STREAMS.keys() | HTTP.keys()


@pytest.mark.parametrize("name", HTTP)
def test_http_answers_are_what_their_names_say(name: str) -> None:
    status, body = golden_http(name)
    assert (status, set(json.loads(body or "{}"))) == HTTP[name]


@pytest.mark.parametrize("name", STREAMS)
def test_frames_are_json_with_an_event(name: str) -> None:
    lines = [line for line in golden(name).split(b"\n") if line.startswith(b"data: ")]
    assert all(json.loads(line.removeprefix(b"data: "))["event"] for line in lines)


@pytest.mark.parametrize("name", STREAMS)
def test_events(name: str) -> None:
    assert decode([golden(name)]) == STREAMS[name]


@pytest.mark.parametrize("name", STREAMS)
def test_every_single_cut(name: str) -> None:
    stream = golden(name)
    for at in range(len(stream) + 1):
        assert decode([stream[:at], stream[at:]]) == STREAMS[name], at


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_pieces_of_one_size(name: str, size: int) -> None:
    stream = golden(name)
    assert decode(stream[at : at + size] for at in range(0, len(stream), size)) == STREAMS[name]


@pytest.mark.parametrize("ending", [b"\r\n", b"\r"])
@pytest.mark.parametrize("name", STREAMS)
def test_other_line_ends(name: str, ending: bytes) -> None:
    stream = golden(name).replace(b"\n", ending)
    assert decode([stream]) == STREAMS[name]
    for at in range(len(stream) + 1):
        assert decode([stream[:at], stream[at:]]) == STREAMS[name], at


@pytest.mark.parametrize("name", ["b5-full-turn", "b5-every-kind", "b5-continue", "b5-length"])
def test_a_truncated_stream_is_never_a_success_it_was_not(name: str) -> None:
    """Cut off at any byte: a beginning of the same text, then an error, unless the logical end was seen."""
    stream, (whole, _) = golden(name), STREAMS[name]
    spoken = "".join(e.text for e in whole if isinstance(e, TextDelta))
    # The closing brace of the first frame that ends an answer: what follows is only line breaks.
    ends = min(at + len(mark) for mark in (b'"all_done"}', b'"done"}', b'"length"}') if (at := stream.find(mark)) >= 0)
    for at in range(len(stream)):
        events, error = decode([stream[:at]])
        assert spoken.startswith("".join(e.text for e in events if isinstance(e, TextDelta)))
        assert (error is None) == (at >= ends), at


def test_a_cut_answer_and_its_rest_are_one() -> None:
    answer = Answer(UPSTREAM)
    events: list[Event] = []
    first = AnswerDecoder(UPSTREAM, answer=answer, may_continue=True)
    events += [*first.feed(golden("b5-length")), *first.close()]
    assert first.cut
    assert answer.segment_id == "cxq1user0000000000a0"
    last = AnswerDecoder(UPSTREAM, answer=answer, may_continue=True)
    events += [*last.feed(golden("b5-continue")), *last.close()]
    assert not last.cut
    assert events == [ASSISTANT, TextDelta("Hel"), CONTINUED, TextDelta("lo."), Finished()]
