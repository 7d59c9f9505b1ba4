"""The document's own examples, byte for byte -> the events written out here by hand."""

from __future__ import annotations

import json

import pytest

from kimi_provider.errors import (
    BadRequest,
    ContentFiltered,
    CredentialError,
    KimiError,
    MembershipRequired,
    Overloaded,
    ProtocolError,
    QuotaExhausted,
    TooManyStreams,
)
from kimi_provider.events import (
    ChatOpened,
    Citation,
    Event,
    Finished,
    NativeTool,
    Notice,
    SearchResults,
    Source,
    TextDelta,
    ThinkingDelta,
)

from .frames import GOLDEN, decode, golden, golden_http, split

CHAT = ChatOpened(chat_id="0198a000-0000-7000-8000-000000000001")
ASSISTANT = ChatOpened(message_id="m-asst")
OSLO = Source(
    url="https://example.com/oslo",
    title="Oslo forecast",
    site_name="Example",
    snippet="Rain, 9 C",
    published="2026-09-01",
)
OLD_OSLO = Source(url="https://example.com/oslo", title="Oslo forecast", site_name="Example", snippet="Rain")
PYTHON = [
    NativeTool(call_id="ipython_0", name="ipython", state="started"),
    NativeTool(call_id="ipython_0", name="ipython", state="running", arguments='{"code":"6*7"}'),
]
ASK = NativeTool(
    call_id="ask_user:1",
    name="ask_user",
    state="running",
    arguments='{"questions":[{"question":"Which city?","type":"single","options":[{"option":"Oslo","description":"",'
    '"recommended":true}]}]}',
)
ASKED = TextDelta("Which city?\n- Oslo (recommended)")
QUERIES = '{"queries":["Oslo weather"]}'

STREAMS: dict[str, tuple[list[Event], type[KimiError] | None]] = {
    "c12-01-26-search-turn": (
        [
            CHAT,
            ASSISTANT,
            ThinkingDelta("I should look this up."),
            NativeTool(call_id="web_search_0", name="web_search", state="started"),
            NativeTool(call_id="web_search_0", name="web_search", state="running", arguments=QUERIES),
            SearchResults(queries=("Oslo weather",)),
            NativeTool(call_id="web_search_0", name="web_search", state="done", arguments=QUERIES),
            SearchResults(sources=(OSLO,)),
            TextDelta("Rain today, about 9 °C.[1]"),
            Citation(number=1, source=OSLO),
            Finished(),
        ],
        None,
    ),
    "c12-27-34-native-tool": (
        [
            *PYTHON,
            NativeTool(call_id="ipython_0", name="ipython", state="done", arguments='{"code":"6*7"}', output="42"),
            TextDelta("6 x 7 = 42"),
            Finished(),
        ],
        None,
    ),
    "c12-failing-tool-whole": (
        [
            CHAT,
            ASSISTANT,
            *PYTHON,
            NativeTool(
                call_id="ipython_0", name="ipython", state="failed", arguments='{"code":"6*7"}', output="Traceback"
            ),
            Finished(),
        ],
        None,
    ),
    "c12-failing-tool": ([NativeTool(call_id="", name="", state="failed", output="Traceback")], ProtocolError),
    "c12-35-38-overloaded-exception": ([], Overloaded),
    "c12-35-38-overloaded-exception-whole": ([CHAT, ASSISTANT, TextDelta("Sure.")], Overloaded),
    "c12-39-40-overloaded-trailer": ([], Overloaded),
    "c12-39-40-overloaded-trailer-whole": ([CHAT, ASSISTANT], Overloaded),
    "c12-41-concurrency": ([], TooManyStreams),
    "c12-42-quota": ([], QuotaExhausted),
    "c12-43-paywall": ([], MembershipRequired),
    "c12-44-47-moderated": ([], ContentFiltered),
    "c12-44-47-moderated-whole": (
        [CHAT, ASSISTANT, TextDelta("The first steps are"), Finished(reason="content_filter")],
        None,
    ),
    "c12-51-52-degraded": (
        [Notice(code="model_degraded", message="High demand: switched to the fast model"), TextDelta("Sure.")],
        ProtocolError,
    ),
    "c12-51-52-degraded-whole": (
        [
            CHAT,
            ASSISTANT,
            Notice(code="model_degraded", message="High demand: switched to the fast model"),
            TextDelta("Sure."),
            Finished(),
        ],
        None,
    ),
    "c12-55-61-oddities": ([TextDelta("Hello!"), Finished()], None),
    "c12-62-64-older-search": (
        [
            SearchResults(queries=("Oslo weather",)),
            SearchResults(sources=(OLD_OSLO,)),
            TextDelta("Rain today[1]"),
            Citation(number=1, source=OLD_OSLO),
            TextDelta("."),
        ],
        ProtocolError,
    ),
    "c12-65-ask-user": ([ASK, ASKED], ProtocolError),
    "c12-65-ask-user-whole": ([CHAT, ASSISTANT, ASK, ASKED, Finished()], None),
}
# Where the document's frames are a whole turn but for its opening.
STREAMS["c12-27-34-native-tool-whole"] = ([CHAT, ASSISTANT, *STREAMS["c12-27-34-native-tool"][0]], None)
STREAMS["c12-55-61-oddities-whole"] = ([CHAT, ASSISTANT, *STREAMS["c12-55-61-oddities"][0]], None)
STREAMS["c12-62-64-older-search-whole"] = (
    [CHAT, ASSISTANT, *STREAMS["c12-62-64-older-search"][0], Finished()],
    None,
)

#: HTTP answers with a stream in them.
HTTP_STREAMS: dict[str, tuple[list[Event], type[KimiError] | None]] = {
    "c12-49-auth-trailer-http": ([], CredentialError),
    "c12-53-not-enveloped-http": ([], BadRequest),
}
#: HTTP answers to unary calls: status and the keys of the body.
HTTP: dict[str, tuple[int, set[str]]] = {
    "c12-48-auth-http": (401, {"code", "message"}),
    "c12-50-refresh-http": (401, {"code", "message"}),
    "c12-54-bad-argument-http": (400, {"code", "message", "details"}),
    "c12-66-list-messages-http": (200, {"messages"}),
    "c12-67-list-messages-failed-http": (200, {"messages"}),
    "c12-68-parse-progress-http": (200, {"progresses"}),
    "c8-models-http": (200, {"availableModels", "defaultScenario"}),
    "a7-current-user-http": (200, {"user", "workspace"}),
    "c10-delete-chat-http": (200, set()),
    "c10-cancel-chat-http": (200, set()),
    "c10-get-chat-http": (200, {"chat"}),
    "c10-unimplemented-http": (501, {"code", "message"}),
}
#: Every numbered frame of C.12.
NUMBERS = range(1, 69)


def test_no_example_is_missing_and_none_is_untested() -> None:
    found = {path.stem for path in GOLDEN.glob("[!b]*.bin")}
    assert found == STREAMS.keys() | HTTP_STREAMS.keys() | HTTP.keys()
    numbers: set[int] = set()
    for name in found:
        parts = name.split("-")
        if parts[0] == "c12" and parts[1].isdigit():
            last = int(parts[2]) if parts[2].isdigit() else int(parts[1])
            numbers.update(range(int(parts[1]), last + 1))
    assert numbers == set(NUMBERS)


@pytest.mark.parametrize("name", STREAMS)
def test_events(name: str) -> None:
    assert decode([golden(name)]) == STREAMS[name]


@pytest.mark.parametrize("name", HTTP_STREAMS)
def test_events_of_http_answers(name: str) -> None:
    status, body = golden_http(name)
    assert status == 200
    assert decode([body]) == HTTP_STREAMS[name]


@pytest.mark.parametrize("name", HTTP)
def test_http_answers_are_what_their_names_say(name: str) -> None:
    status, body = golden_http(name)
    assert (status, set(json.loads(body))) == HTTP[name]


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


@pytest.mark.parametrize("name", [name for name in STREAMS if ASSISTANT in STREAMS[name][0]])
def test_a_truncated_stream_is_never_a_success_it_was_not(name: str) -> None:
    """Cut off at any byte: a beginning of the same events, then an error, unless the logical end was seen."""
    stream, (whole, _) = golden(name), STREAMS[name]
    spoken = "".join(e.text for e in whole if isinstance(e, TextDelta))
    ends = _logical_ends(stream)
    for at in range(len(stream)):
        events, error = decode([stream[:at]])
        assert spoken.startswith("".join(e.text for e in events if isinstance(e, TextDelta)))
        if not any(end <= at for end in ends):
            assert error is not None, at


def _logical_ends(stream: bytes) -> list[int]:
    """Positions behind frames after which the answer may count as complete (protocol C.4)."""
    ends, at = [], 0
    for flag, payload in split(stream):
        at += 5 + len(payload)
        if flag & 2 or b'"done"' in payload or b'"status":"MESSAGE_STATUS_COMPLETED"}}' in payload or b"exc" in payload:
            ends.append(at)
    return ends
