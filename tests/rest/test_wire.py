"""What the document's examples do not show: rare frames, broken ones, every error, bodies of the requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_provider import errors
from kimi_provider.errors import KimiError
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
from kimi_provider.protocols import Turn
from kimi_provider.protocols.rest.answer import failure_of
from kimi_provider.protocols.rest.sse import MAX_STRAY_BYTES, EventStream
from kimi_provider.protocols.rest.wire import (
    AnswerDecoder,
    agent_of,
    completion_body,
    continue_body,
    create_body,
    needed_agent,
)
from kimi_provider.upstream import Upstream
from tests.costs import linear

from .frames import END, REQ, RESP, UPSTREAM, Outcome, answer, decode, error, found, frame, text

HI: list[Event] = [TextDelta("Hi")]
DONE = {"event": "done"}
LENGTH = {"event": "length"}


def ok(*events: Event) -> Outcome:
    return [*events, Finished()], None


def small(**rest: Any) -> Upstream:
    return UPSTREAM.model_copy(update={"rest": UPSTREAM.rest.model_copy(update=rest)})


# --- lines ---


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\ndata: a\n\n", [b"\na"]),
        (b"event: cmpl\nid: 7\nretry: 5\ndata: a\n\n", [b"a"]),
        (b": comment\n\n:\ndata: a\n: inside\n\n", [b"a"]),
        (b"\n\n\r\n\rdata: a\r\n\r\n\n", [b"a"]),
        (b"data: a\r\rdata: b\r\n\ndata: c\n\r", [b"a", b"b", b"c"]),
        (b"data: a", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"data: a\ndata: b", [b"a\nb"]),
        (b"Data: a\n\ndata : b\n\ndata: c\n\n", [b"c"]),
        (b"event: only\n\n", []),
        (b"", []),
    ],
)
def test_lines(stream: bytes, wanted: list[bytes]) -> None:
    for size in (1, 2, 3, len(stream) + 1):
        events = EventStream(100)
        got = [data for at in range(0, len(stream), size) for data in events.feed(stream[at : at + size])]
        assert [*events.feed(b""), *got, *events.close()] == wanted, size


@pytest.mark.parametrize(
    "endless", [b"data: aaaaaaaaaaaa", b": aaaaaaaaaaaaaaaaaaa", b"data: aaaaaa\n", b"data:\n", b"aaaaaaaaaaaaa"]
)
def test_what_has_no_end_is_refused(endless: bytes) -> None:
    events = EventStream(100)
    with pytest.raises(errors.ProtocolError, match="limit of 100 bytes"):
        assert not any(list(events.feed(endless)) for _ in range(200))


def test_a_frame_of_exactly_the_limit_passes() -> None:
    assert list(EventStream(100).feed(b"data:" + b"a" * 99 + b"\n\n")) == [b"a" * 99]
    with pytest.raises(errors.ProtocolError):
        list(EventStream(100).feed(b"data:" + b"a" * 100 + b"\n\n"))


def test_many_small_frames_in_one_large_chunk_pass() -> None:
    chunk = frame(text("a")) * 50_000
    assert decode([chunk, frame(END)], upstream=small(max_frame_bytes=200)) == ok(TextDelta("a" * 50_000))


def test_events_before_a_frame_above_the_limit_are_kept() -> None:
    upstream = small(max_frame_bytes=200)
    assert decode([frame(text("Hi")) + frame(text("x" * 300))], upstream=upstream) == (HI, errors.ProtocolError)
    assert decode([frame(text("Hi")) + b"data: " + b"x" * 300], upstream=upstream) == (HI, errors.ProtocolError)


@linear
def test_a_frame_in_single_bytes_takes_linear_time() -> None:
    stream = frame(text("x" * 1_000_000)) + frame(END)
    assert decode(stream[at : at + 1] for at in range(len(stream))) == ok(TextDelta("x" * 1_000_000))


def test_little_is_kept_of_what_is_no_stream() -> None:
    events = EventStream(10**6)
    for _ in range(100):
        assert list(events.feed(b"<p>" + b"x" * 10_000 + b"</p>\n")) == []
    assert len(events.stray) <= 2 * MAX_STRAY_BYTES
    events = EventStream(10**6)
    assert list(events.feed(b"x" * 900_000 + b"\n")) == []
    assert len(events.stray) <= 2 * MAX_STRAY_BYTES


# --- frames ---


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        # Names, heartbeats, what nobody knows, what is broken.
        (({"event": "ping"}, {"event": "loading"}, {"event": "rename", "text": "T"}, text("Hi"), END), ok(*HI)),
        (({"event": "future", "text": "?"}, {"text": "?"}, {}, {"event": 5}, text("Hi"), END), ok(*HI)),
        ((*map(frame, (b"[DONE]", b"{", b"[]", b"null", b"\xff\xfe", b'"x"')), text("Hi"), END), ok(*HI)),
        (({"event": "cmpl"}, {"event": "cmpl", "text": 5}, text(""), {"event": "k1"}, text("Hi"), END), ok(*HI)),
        # The echo, ids.
        ((REQ, RESP, RESP, text("Hi"), END), ok(ChatOpened(message_id="a1"), *HI)),
        (({"event": "req", "id": 5}, {"event": "resp", "id": 5}, {"event": "resp"}, text("Hi"), END), ok(*HI)),
        # Thinking, by name and by zone.
        (
            ({"event": "k1", "text": "a"}, {"event": "think", "text": "b"}, text("Hi"), END),
            ok(ThinkingDelta("ab"), *HI),
        ),
        (
            (
                {"event": "zone_set", "zone_type": "think"},
                text("a[^1^]"),
                {"event": "zone_set", "zone_type": "new"},
                text("Hi"),
                {"event": "zone_set", "zone_type": "k1"},
                text("b"),
                {"event": "zone_set"},
                END,
            ),
            ok(ThinkingDelta("a[^1^]"), *HI, ThinkingDelta("b")),
        ),
        (({"event": "k1", "text": "only"}, END), ok(ThinkingDelta("only"))),
        # Endings.
        ((text("Hi"), DONE), ok(*HI)),
        ((text("Hi"), DONE, END), ok(*HI)),
        ((text("Hi"), DONE, text("!"), END), ok(TextDelta("Hi!"))),
        ((text("Hi"), DONE, text("!")), ([TextDelta("Hi!")], errors.ProtocolError)),
        ((text("Hi"), END, text("late"), error("chat.forbidden")), ok(*HI)),
        ((text("Hi"), LENGTH), ([*HI, Finished(reason="length")], None)),
        ((text("Hi"), LENGTH, DONE, END), ([*HI, Finished(reason="length")], None)),
        ((text("Hi"),), (HI, errors.ProtocolError)),
        ((REQ, RESP), ([ChatOpened(message_id="a1")], errors.ProtocolError)),
        ((DONE,), ([], errors.UpstreamError)),
        ((END,), ([], errors.UpstreamError)),
        ((LENGTH, END), ([], errors.UpstreamError)),
        ((), ([], errors.ProtocolError)),
        ((b"",), ([], errors.ProtocolError)),
        # What is held back comes out at the end, whatever the end.
        ((text("see [^1"), END), ok(TextDelta("see [^1"))),
        ((text("see ["),), ([TextDelta("see [")], errors.ProtocolError)),
    ],
)
def test_frames(frames: tuple[object, ...], wanted: Outcome) -> None:
    assert answer(*frames) == wanted


ONE = Source(url="https://a.example/", title="A")
TWO = Source(url="https://b.example/", title="B", snippet="s", site_name="n", published="d")
FOUND_ONE = found(ONE.url, title="A")
FOUND_TWO = found(TWO.url, title="B", snippet="s", site_name="n", date="d")


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        # In the order of their first use, each use told; the mark split over frames; unknown ones dropped.
        (
            (FOUND_ONE, FOUND_TWO, text("x[^2"), text("^] y[^1^][^9^] z[^2^]"), END),
            ok(
                SearchResults(sources=(ONE,)),
                SearchResults(sources=(TWO,)),
                TextDelta("x[1]"),
                Citation(number=1, source=TWO),
                TextDelta(" y[2]"),
                Citation(number=2, source=ONE),
                TextDelta(" z[1]"),
                Citation(number=1, source=TWO),
            ),
        ),
        # Pages that bring their number; the same page again is no new source.
        (
            (found(ONE.url, title="A", ref_id=7), found(ONE.url, title="A"), text("x[^7^][^2^]"), END),
            ok(
                SearchResults(sources=(ONE,)),
                TextDelta("x[1]"),
                Citation(number=1, source=ONE),
                TextDelta("[1]"),
                Citation(number=1, source=ONE),
            ),
        ),
        # A page without an address keeps its place.
        (
            (found("javascript:alert(1)"), found(""), FOUND_ONE, text("x[^1^][^3^]"), END),
            ok(SearchResults(sources=(ONE,)), TextDelta("x[1]"), Citation(number=1, source=ONE)),
        ),
        # Cards without a search number themselves; behind a search they change no number.
        (
            ({"event": "ref_docs", "ref_cards": [5, {"url": ONE.url, "title": "A"}]}, text("x[^1^]"), END),
            ok(SearchResults(sources=(ONE,)), TextDelta("x[1]"), Citation(number=1, source=ONE)),
        ),
        (
            (
                FOUND_ONE,
                {"event": "ref_docs", "ref_cards": [{"ref_doc": {**FOUND_TWO["msg"]}, "ref_id": 2}]},
                text("x[^1^][^2^]"),
                END,
            ),
            ok(
                SearchResults(sources=(ONE,)),
                SearchResults(sources=(TWO,)),
                TextDelta("x[1]"),
                Citation(number=1, source=ONE),
                TextDelta("[2]"),
                Citation(number=2, source=TWO),
            ),
        ),
        # Words searched for, once each.
        (
            (
                {"event": "search_plus", "msg": {"type": "start", "queries": ["a", 5, "b"]}},
                {"event": "search_plus", "msg": {"type": "start_res", "query": "a", "keywords": ["c"]}},
                text("Hi"),
                END,
            ),
            ok(SearchResults(queries=("a", "b")), SearchResults(queries=("c",)), *HI),
        ),
        # Wrong types.
        (
            (
                {"event": "search_plus"},
                {"event": "search_plus", "msg": "start"},
                {"event": "search_plus", "msg": {"type": "get_res", "url": 5, "title": []}},
                {"event": "ref_docs", "ref_cards": {}},
                text("Hi"),
                END,
            ),
            ok(*HI),
        ),
    ],
)
def test_sources(frames: tuple[object, ...], wanted: Outcome) -> None:
    assert answer(*frames) == wanted


def test_what_counts_as_content() -> None:
    decoder = AnswerDecoder(UPSTREAM)
    for quiet in ({"event": "ping"}, {"event": "loading"}, {"event": "debug"}, {"event": "rename"}, {"event": "new"}):
        list(decoder.feed(frame(quiet) + b": keep-alive\n\n"))
    assert decoder.content_frames == 0
    for loud in (REQ, RESP, FOUND_ONE, {"event": "k1", "text": "a"}, text("b")):
        before = decoder.content_frames
        list(decoder.feed(frame(loud)))
        assert decoder.content_frames == before + 1


# --- errors ---

REASONS: list[tuple[str, type[KimiError]]] = [
    ("auth.token.invalid", errors.CredentialError),
    ("auth.account_abnormal", errors.AccountSuspended),
    ("chat.forbidden", errors.PermissionRefused),
    ("chat.user_stream_pushing", errors.TooManyStreams),
    ("openai.completion.stream", errors.Overloaded),
    ("openai.completion.token_length_too_long", errors.ContextTooLong),
    ("something.new", errors.UpstreamError),
]


@pytest.mark.parametrize(("reason", "wanted"), REASONS)
def test_errors_before_and_after_text(reason: str, wanted: type[KimiError]) -> None:
    assert answer(REQ, error(reason)) == ([], wanted)
    assert answer(text("Hi"), error(reason), END) == (HI, wanted)
    assert answer({"error_type": reason, "message": "m"}) == ([], wanted)
    assert answer({"error": {"error_type": reason}}) == ([], wanted)
    assert answer({"event": "cmpl", "text": "x", "error_type": reason}) == ([], wanted)


def test_a_withdrawn_answer_ends_as_filtered_once_it_was_seen() -> None:
    moderated = error("chat.moderated", "stopped by content filter")
    assert answer(text("Hi"), moderated, END) == ([*HI, Finished(reason="content_filter")], None)
    assert answer(REQ, moderated) == ([], errors.ContentFiltered)
    assert answer({"event": "k1", "text": "a"}, moderated) == ([ThinkingDelta("a")], errors.ContentFiltered)


@pytest.mark.parametrize("broken", [{}, {"error": {}}, {"error": "busy"}, {"error": 5}, {"error": {"error_type": 5}}])
def test_an_error_without_a_shape_is_one(broken: dict[str, Any]) -> None:
    assert answer(text("Hi"), {"event": "error", **broken}, END) == (HI, errors.UpstreamError)


def test_the_words_of_an_error_are_shown_and_its_detail_is_not() -> None:
    told = {"error": {"error_type": "openai.completion.stream", "message": "a bit tired", "detail": "secret"}}
    failure = failure_of(told, upstream=UPSTREAM, account="acct")
    assert "a bit tired" in str(failure)
    assert "secret" not in str(failure)
    assert failure.retry_after_s == UPSTREAM.retry.overloaded_s


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('{"error_type":"auth.token.invalid","message":"expired","detail":""}', errors.CredentialError),
        ('{\n  "error_type": "chat.user_stream_pushing",\n\n  "message": "m"\n}\n', errors.TooManyStreams),
        ('{"error":{"error_type":"openai.completion.stream"}}', errors.Overloaded),
        ('{"id":"x"}', errors.ProtocolError),
        ("<html>\n<body>data: no\n</body></html>", errors.ProtocolError),
        ("[1]", errors.ProtocolError),
    ],
)
def test_a_body_that_is_no_stream(body: str, wanted: type[KimiError]) -> None:
    stream = body.encode()
    for size in (1, 7, len(stream)):
        assert decode(stream[at : at + size] for at in range(0, len(stream), size)) == ([], wanted)


# --- requests ---


def turn(name: str = "kimi", **more: Any) -> Turn:
    values: dict[str, Any] = {"thinking": False, "effort": None, "search": False, "deadline": 0, **more}
    spec = UPSTREAM.resolve(name)
    if "kimiplus_id" in values:
        spec = spec.model_copy(update={"kimiplus_id": values.pop("kimiplus_id")})
    return Turn(prompt="Hé https://example.com/a\n", spec=spec, **values)


K1 = "crm40ee9e5jvhsn7ptcg"
AGENT = "0123456789abcdefghij"


@pytest.mark.parametrize(
    ("asked", "kimiplus_id", "search", "research"),
    [
        (turn(), "kimi", False, False),
        (turn(search=True), "kimi", True, False),
        (turn(thinking=True), K1, False, False),
        (turn("kimi-research", thinking=True), "kimi", False, True),
        (turn(kimiplus_id=AGENT, thinking=True), AGENT, False, False),
    ],
)
def test_bodies(asked: Turn, kimiplus_id: str, search: bool, research: bool) -> None:
    agent = needed_agent(asked, UPSTREAM)
    assert json.loads(completion_body(asked, agent)) == {
        "kimiplus_id": kimiplus_id,
        "messages": [{"role": "user", "content": "Hé https://example.com/a\n"}],
        "refs": [],
        "use_math": False,
        "use_research": research,
        "use_search": search,
        "extend": {"sidebar": True},
    }
    assert create_body(agent, UPSTREAM) == {
        "enter_method": "new_chat",
        "is_example": False,
        "kimiplus_id": kimiplus_id,
        "name": " ",
    }
    assert json.loads(continue_body("s", agent)) == {
        "segment_id": "s",
        "action": "continue",
        "messages": [{"role": "user", "content": " "}],
        "kimiplus_id": kimiplus_id,
        "extend": {"sidebar": True},
    }


def test_a_model_of_the_other_generation_is_refused_by_name() -> None:
    asked = turn("kimi-k3")
    assert agent_of(asked.spec, UPSTREAM) is None
    with pytest.raises(errors.ModelNotFound, match=r"K3 \(agent\) can't be reached .* KIMI_PROTOCOL"):
        needed_agent(asked, UPSTREAM)


def test_the_table_adds_to_the_body() -> None:
    rows = {"": UPSTREAM.rest.agents[""].model_copy(update={"body": {"model": "k2"}})}
    agent = needed_agent(turn(), small(agents=rows))
    assert json.loads(completion_body(turn(), agent))["model"] == "k2"
