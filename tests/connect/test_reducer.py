"""The rules of protocol C.4-C.6 that no golden turn shows."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from kimi_provider.errors import (
    ContentFiltered,
    CredentialError,
    KimiError,
    Overloaded,
    ProtocolError,
    RateLimited,
    UpstreamError,
)
from kimi_provider.events import (
    ChatOpened,
    Citation,
    Finished,
    NativeTool,
    Notice,
    SearchResults,
    Source,
    TextDelta,
    ThinkingDelta,
)
from kimi_provider.protocols.connect.blocks import GrownText
from kimi_provider.protocols.connect.wire import ChatDecoder

from .frames import (
    ASSISTANT,
    CHAT,
    COMPLETED,
    ECHO,
    END,
    OPENING,
    UPSTREAM,
    answer,
    decode,
    env,
    said,
    split,
    text,
    think,
    tool,
)

DONE = {"done": {}}


def exception(reason: str, **more: Any) -> dict[str, Any]:
    return {"block": {"id": "9", "exception": {"error": {"reason": reason, **more}}}}


def trailer(error: object) -> bytes:
    return env({"error": error}, 2)


# --- set and append ---


def test_set_replaces_append_extends_and_only_growth_is_said() -> None:
    assert said(text("He"), text("Hello", op="set"), text(" you"), text("Hello you!", op="set")) == "Hello you!"


def test_a_replacement_that_is_no_extension_is_not_said_again() -> None:
    assert said(text("Hello wrold"), text("Hello world", op="set"), text(", friend")) == "Hello wrold, friend"


def test_a_text_cut_back_grows_past_what_was_said() -> None:
    assert said(text("Hello"), text("He", op="set"), text("l"), text("lo you")) == "Hello you"
    assert said(text("Hello"), text("Hello", op="set"), text("!")) == "Hello!"
    assert said(text("Hello"), text("", op="set"), text("Hello"), text("!")) == "Hello!"


@pytest.mark.parametrize("mask", ["block.text", "block.text.content", "block"])
def test_a_set_text_without_content_is_an_empty_one(mask: str) -> None:
    emptied = {"op": "set", "mask": mask, "block": {"id": "5", "text": {}}}
    assert said(text("Hel"), emptied, text("Hel"), text("lo")) == "Hello"


@pytest.mark.parametrize("mask", [None, "block.text.flags", 5, ["block.text"]])
def test_other_masks_leave_the_text_alone(mask: object) -> None:
    untouched = {"op": "set", "mask": mask, "block": {"id": "5", "text": {}}}
    assert said(text("Hel"), untouched, text("lo")) == "Hello"


def test_masks_do_not_decide() -> None:
    odd = {"op": "append", "mask": "something.new", "block": {"id": "5", "text": {"content": "!"}}}
    none = {"op": "append", "block": {"id": "5", "text": {"content": "?"}}}
    assert said(text("Hello"), odd, none) == "Hello!?"


def test_grown_text_against_a_model() -> None:
    """The model: the whole text, and what a reader has; nothing said is ever taken back."""
    grown, whole, reader = GrownText(), "", ""
    for step, piece in [("a", "ab"), ("s", "abc"), ("s", "a"), ("a", "b"), ("a", "cd"), ("s", "abcd"), ("a", "e")]:
        whole = whole + piece if step == "a" else piece
        reader += grown.append(piece) if step == "a" else grown.replace(piece)
    assert (whole, reader, grown.straight, grown.replaced) == ("abcde", "abcde", True, 0)
    assert grown.replace("xyz") == ""
    assert (grown.append("!"), grown.replaced) == ("!", 1)
    assert grown.replace("x") == ""
    assert not grown.straight
    assert grown.append("q") == ""
    assert (grown.append("r"), grown.replaced) == ("r", 2)


def test_text_blocks_concatenate_and_thinking_blocks_are_joined_by_a_blank_line() -> None:
    events, error = answer(
        think("I see"),
        think("."),
        think("", "4"),
        text("A"),
        think("So", "4"),
        think("!", "4"),
        text("B", "6"),
        think("?"),
    )
    assert error is None
    assert events == [
        ThinkingDelta("I see."),
        TextDelta("A"),
        ThinkingDelta("\n\nSo!"),
        TextDelta("B"),
        ThinkingDelta("?"),
        Finished(),
    ]


@pytest.mark.parametrize("flags", ["thinking", "TEXT_FLAG_THINKING", ["thinking"], [1, "Thinking"]])
def test_text_flagged_as_thinking(flags: object) -> None:
    flagged = {"op": "set", "mask": "block.text", "block": {"id": "5", "text": {"content": "Hm", "flags": flags}}}
    plain = {"op": "set", "mask": "block.text.flags", "block": {"id": "5", "text": {"flags": "answer"}}}
    events, error = answer(flagged, text("m"), plain, text("Yes"))
    assert (events, error) == ([ThinkingDelta("Hmm"), TextDelta("Yes"), Finished()], None)


def test_block_ids_are_told_apart_by_kind_and_message() -> None:
    other = {"message": {"id": "m-2", "role": "assistant"}}
    events, error = answer(
        text("A", "1"),
        think("T", "1"),
        other,
        text("B", "1"),
        {**text("a", "1"), "block": {"id": "1", "messageId": "m-asst", "text": {"content": "a"}}},
        {**text("b", "1"), "block": {"id": "1", "message_id": "m-2", "text": {"content": "b"}}},
        text("b", "1"),
        text("C", "1", op="set"),
    )
    assert error is None
    assert events == [
        TextDelta("A"),
        ThinkingDelta("T"),
        ChatOpened(message_id="m-2"),
        TextDelta("Babb"),
        Finished(),
    ]


# --- whose message ---


def test_the_echo_is_neither_said_nor_searched() -> None:
    echo = {
        "message": {
            "id": "m-user",
            "role": "user",
            "status": "MESSAGE_STATUS_COMPLETED",
            "blocks": [
                {"id": "1", "text": {"content": "error overloaded"}},
                {"id": "2", "exception": {"error": {"reason": "REASON_COMPLETION_OVERLOADED"}}},
            ],
        }
    }
    own = {**text("no"), "block": {"id": "1", "messageId": "m-user", "text": {"content": "no"}}}
    assert said(echo, own, text("Yes")) == "Yes"
    assert said({"message": {"id": "m-user", "status": "MESSAGE_STATUS_COMPLETED"}}, own, text("Yes")) == "Yes"
    assert answer(echo, end=b"")[1] is ProtocolError


def test_blocks_before_the_assistant_are_left_out() -> None:
    early = env(text("early")) + env(
        {**text("x"), "block": {"id": "1", "messageId": "m-user", "text": {"content": "x"}}}
    )
    assert decode([early + OPENING + env(text("Yes")) + END])[0][2:] == [TextDelta("Yes"), Finished()]
    named = env({"block": {"id": "1", "messageId": "m-asst", "text": {"content": "Yes"}}})
    assert decode([named + OPENING + END])[0][2:] == [TextDelta("Yes"), Finished()]


def test_without_any_assistant_the_blocks_are_the_answer() -> None:
    echoed = {"block": {"id": "1", "messageId": "m-user", "text": {"content": "no"}}}
    assert decode([env(ECHO) + env(echoed) + env(text("Yes")) + END]) == ([TextDelta("Yes"), Finished()], None)


def test_blocks_of_nobody_are_bounded() -> None:
    upstream = UPSTREAM.model_copy(update={"connect": UPSTREAM.connect.model_copy(update={"max_frame_bytes": 1000})})
    assert decode([env(text("x" * 100)) * 20], upstream=upstream) == ([], ProtocolError)


def test_a_message_that_brings_its_blocks() -> None:
    whole = {"message": {"id": "m-asst", "blocks": [{"id": "5", "text": {"content": "Hello"}}, None, 1]}}
    assert said(text("He"), whole) == "Hello"
    failed = {"message": {"id": "m-asst", "blocks": [exception("REASON_COMPLETION_OVERLOADED")["block"]]}}
    assert answer(text("He"), failed) == ([TextDelta("He")], Overloaded)
    filtered = {
        "message": {
            "id": "m-asst",
            "blocks": [exception("REASON_CONTENT_FILTERED")["block"], {"id": "5", "text": {"content": "Hello"}}],
        }
    }
    assert answer(text("He"), filtered) == ([TextDelta("He"), Finished(reason="content_filter")], None)


def test_ids_are_told_once() -> None:
    nameless = {"message": {"role": "ROLE_ASSISTANT"}}
    events, _ = decode([env(CHAT) * 2 + env(ASSISTANT) * 2 + env({"chat": {"name": "x"}}) + env(text("a")) + END])
    assert events == [ChatOpened(chat_id="c1"), ChatOpened(message_id="m-asst"), TextDelta("a"), Finished()]
    events, _ = decode([env(text("no")) + env(nameless) + env(text("a")) + END])
    assert events == [TextDelta("a"), Finished()]


# --- endings ---


def test_done_is_not_the_end() -> None:
    decoder = ChatDecoder(UPSTREAM)
    list(decoder.feed(OPENING + env(text("a")) + env(DONE)))
    assert decoder.done
    assert not decoder.ended
    assert list(decoder.feed(env(text("b")))) == [TextDelta("b")]
    assert list(decoder.feed(END + env(text("c")))) == [Finished()]
    assert decoder.ended
    assert answer(text("a"), DONE, end=trailer({"code": "internal"})) == ([TextDelta("a")], UpstreamError)


@pytest.mark.parametrize("empty", [{}, [], "", 0, False])
def test_an_empty_error_is_judged_by_the_answer(empty: object) -> None:
    assert answer(text("a"), end=trailer(empty)) == ([TextDelta("a"), Finished()], None)
    assert answer(think("a"), end=trailer(empty)) == ([ThinkingDelta("a")], UpstreamError)
    assert answer(think("a"), COMPLETED, end=trailer(empty)) == ([ThinkingDelta("a"), Finished()], None)
    assert answer(text("["), end=trailer(empty)) == ([TextDelta("["), Finished()], None)


def test_a_null_error_is_none() -> None:
    assert answer(think("a"), end=trailer(None)) == ([ThinkingDelta("a"), Finished()], None)


@pytest.mark.parametrize("payload", [b"not json", b"[]", b"null", b'"x"', b"\xff"])
def test_a_trailer_that_cannot_be_read(payload: bytes) -> None:
    assert answer(text("a"), COMPLETED, end=env(payload, 2)) == ([TextDelta("a")], ProtocolError)


def test_a_trailer_of_no_bytes_says_no_more_than_a_closed_connection() -> None:
    assert answer(text("a"), end=env(b"", 2)) == ([TextDelta("a")], ProtocolError)
    assert answer(text("a"), DONE, end=env(b"", 2)) == ([TextDelta("a"), Finished()], None)


def test_closed_without_trailer() -> None:
    assert answer(text("a"), end=b"") == ([TextDelta("a")], ProtocolError)
    assert answer(text("a"), end=b"\x02\x00\x00") == ([TextDelta("a")], ProtocolError)
    assert answer(text("a"), DONE, end=b"") == ([TextDelta("a"), Finished()], None)
    assert answer(text("a"), COMPLETED, end=b"") == ([TextDelta("a"), Finished()], None)
    assert answer(text("a["), COMPLETED, end=b"") == ([TextDelta("a["), Finished()], None)
    assert answer(text("a["), end=b"") == ([TextDelta("a[")], ProtocolError)
    second = {"message": {"id": "m-2", "role": "assistant"}}
    assert answer(text("a"), COMPLETED, second, end=b"")[1] is ProtocolError
    assert decode([]) == ([], ProtocolError)
    assert decode([b""]) == ([], ProtocolError)


@pytest.mark.parametrize(
    "end", [END, env(DONE), env(DONE) + END, env(COMPLETED), trailer({}), env(COMPLETED) + trailer({})]
)
@pytest.mark.parametrize("frames", [[], [text("")], [think("")], [tool({})], [text("\ue3a0cite\ue3a3x\ue3a8")]])
def test_an_answer_that_says_nothing_is_an_error(frames: list[object], end: bytes) -> None:
    assert answer(*frames, end=end) == ([], UpstreamError)


def test_a_tool_alone_is_an_answer() -> None:
    ask = tool({"toolCallId": "ask_user:1", "status": "STATUS_RUNNING"})
    asked = NativeTool(call_id="ask_user:1", name="ask_user", state="running")
    assert answer(ask) == ([asked, Finished()], None)


# --- errors inside the stream ---


@pytest.mark.parametrize(
    "frame",
    [
        exception("REASON_COMPLETION_OVERLOADED"),
        {"block": {"id": "9", "exception": {"reason": "REASON_COMPLETION_OVERLOADED"}}},
        {"eventOffset": -1, **exception("REASON_COMPLETION_OVERLOADED")},
        {"exception": {"error": {"reason": "REASON_COMPLETION_OVERLOADED"}}},
        {"error": {"code": "unavailable", "message": "server overloaded"}},
        {"error": {"code": "resource_exhausted", "debug": {"reason": "REASON_COMPLETION_OVERLOADED"}}},
    ],
)
def test_overload_from_every_carrier(frame: dict[str, Any]) -> None:
    assert answer(text("a"), frame, text("b")) == ([TextDelta("a")], Overloaded)
    assert decode([env(frame)]) == ([], Overloaded)


@pytest.mark.parametrize("frame", [{"exception": {}}, {"exception": "x"}, {"block": {"exception": 1}}, {"error": "x"}])
def test_errors_of_an_unknown_shape(frame: dict[str, Any]) -> None:
    assert answer(text("a"), frame) == ([TextDelta("a")], UpstreamError)


@pytest.mark.parametrize("frame", [{"exception": None}, {"error": {}}, {"error": None}, {"block": {"exception": None}}])
def test_no_errors(frame: dict[str, Any]) -> None:
    assert said(frame, text("a")) == "a"


WITHDRAWN = exception("REASON_NOBODY_KNOWS", severity="SEVERITY_BLOCK_RETRACT")


@pytest.mark.parametrize("frame", [WITHDRAWN, {"notification": {"type": "TYPE_CONTENT_FILTER", "message": "no"}}])
def test_a_withdrawn_answer(frame: dict[str, Any]) -> None:
    assert answer(text("a"), frame, text("b")) == ([TextDelta("a"), Finished(reason="content_filter")], None)
    assert answer(frame) == ([], ContentFiltered)
    assert answer(think("a"), frame) == ([ThinkingDelta("a")], ContentFiltered)
    assert answer(text("["), frame) == ([], ContentFiltered)


def test_moderation_in_the_trailer() -> None:
    error = {"code": "invalid_argument", "message": "content filter"}
    assert answer(text("a"), end=trailer(error)) == ([TextDelta("a"), Finished(reason="content_filter")], None)


def test_a_grpc_web_trailer_counts_only_with_an_error() -> None:
    harmless = [b"grpc-status: 0", b"{}", b'{"error":{}}', b"[]", b""]
    assert said(*(env(payload, 0x80) for payload in harmless), text("a")) == "a"
    assert answer(text("a"), env({"error": {"code": "unauthenticated"}}, 0x80)) == ([TextDelta("a")], CredentialError)


def test_what_came_before_a_broken_frame_is_said() -> None:
    assert answer(text("a"), text("b"), b'{"code":"internal"}') == ([TextDelta("ab")], ProtocolError)
    assert answer(text("a"), env(b"x", 1)) == ([TextDelta("a")], ProtocolError)


# --- what is skipped ---


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"{}", b'{"unknown":{"a":1}}']
)
def test_unreadable_and_unknown_frames_are_skipped(payload: bytes) -> None:
    assert said(text("a"), env(payload), text("b")) == "ab"


def test_unknown_blocks_are_skipped_and_counted() -> None:
    decoder = ChatDecoder(UPSTREAM)
    kinds = {"agentMessage": {"content": "x"}, "file": {}, "new": {"a": 1}, "text": "no object", "stage": {}}
    assert list(decoder.feed(OPENING + env({"block": {"id": "7", **kinds}})))[2:] == []
    assert decoder.answer.unknown_blocks == 4
    list(decoder.feed(env(b"{")))
    assert decoder.skipped_frames == 1


def test_compressed_frames() -> None:
    assert said(env(gzip.compress(json.dumps(text("Hi")).encode()), 1), end=env(gzip.compress(b"{}"), 3)) == "Hi"


def test_heartbeats_and_the_unknown_are_no_content() -> None:
    decoder = ChatDecoder(UPSTREAM)
    for payload in ({"heartbeat": {}}, {"ping": {}}, {"eventOffset": 3}):
        list(decoder.feed(env(payload)))
    assert decoder.content_frames == 0
    list(decoder.feed(OPENING + env(text("a")) + env(text("b"))))
    assert decoder.content_frames == 5
    list(decoder.feed(env({**text("c"), "eventOffset": 4}) + env({**text("c"), "eventOffset": 5})))
    assert decoder.content_frames == 7


# --- replays ---


def numbered(offset: object, frame: dict[str, Any]) -> dict[str, Any]:
    return {**frame, "eventOffset": offset}


def test_replayed_blocks_are_left_out() -> None:
    one, two, three = (numbered(n, text(c)) for n, c in ((7, "a"), (8, "b"), (9, "c")))
    assert said(one, two, one, two, three) == "abc"
    assert said(one, two, numbered(7, text("a", op="set")), three) == "abc"
    decoder = ChatDecoder(UPSTREAM)
    list(decoder.feed(OPENING + b"".join(map(env, (one, two, one, numbered(8, ASSISTANT))))))
    assert decoder.replayed_frames == 2


@pytest.mark.parametrize("offset", [None, "7", 7.0, True, {}])
def test_frames_without_a_number_always_count(offset: object) -> None:
    assert said(numbered(7, text("a")), numbered(offset, text("b")), text("c"), numbered(8, text("d"))) == "abcd"


def test_endings_count_whatever_their_number() -> None:
    assert answer(numbered(9, text("a")), numbered(1, COMPLETED), end=b"")[1] is None
    assert answer(numbered(9, text("a")), numbered(1, DONE), end=b"")[1] is None


# --- tools, searches, notices ---


def test_a_tool_tells_each_change_once() -> None:
    events, error = answer(
        tool({"toolCallId": "x_0", "name": "shell"}),
        tool({"args": "{"}, op="append"),
        tool({"status": "STATUS_PENDING"}),
        tool({"toolCallId": "x:1", "status": "STATUS_RUNNING"}),
        tool({"status": "STATUS_RUNNING"}),
        tool({"args": "}"}, op="append"),
        tool({"status": "STATUS_MYSTERY"}),
        tool({"contents": [{"text": "one"}, 5, {"text": 5}]}),
        tool({"contents": [{"text": "two"}]}, op="append"),
    )
    assert error is None
    assert events == [
        NativeTool(call_id="x_0", name="shell", state="started"),
        NativeTool(call_id="x_0", name="shell", state="running", arguments="{"),
        NativeTool(call_id="x_0", name="shell", state="done", arguments="{}", output="one"),
        Finished(),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "STATUS_FAILED"},
        {"status": "STATUS_CANCELLED"},
        {"status": "STATUS_DONE", "isError": True},
        {"status": "STATUS_DONE", "errorCode": "E1"},
        {"contents": [{"text": "x"}], "isError": True},
    ],
)
def test_a_failing_tool(payload: dict[str, Any]) -> None:
    (event, _), error = answer(tool({"toolCallId": "shell:1", **payload}))
    assert error is None
    assert isinstance(event, NativeTool)
    assert (event.state, event.name) == ("failed", "shell")


@pytest.mark.parametrize(
    ("arguments", "queries"),
    [
        ('{"queries":["a","b","a",5]}', ("a", "b")),
        ('{"queries":"a"}', ()),
        ('{"queries":["a"', ()),
        ("[]", ()),
    ],
)
def test_words_of_a_search(arguments: str, queries: tuple[str, ...]) -> None:
    call = tool({"toolCallId": "web_search:1", "args": arguments, "status": "STATUS_RUNNING"})
    again = tool({"status": "STATUS_DONE"})
    events, _ = answer(call, again)
    assert [e for e in events if isinstance(e, SearchResults)] == ([SearchResults(queries=queries)] if queries else [])


def test_other_tools_search_nothing() -> None:
    events, _ = answer(tool({"name": "fetch_urls", "args": '{"queries":["a"]}', "status": "STATUS_RUNNING"}))
    assert not any(isinstance(e, SearchResults) for e in events)


def search(op: str = "append", **payload: object) -> dict[str, Any]:
    return {"op": op, "block": {"id": "0_1", "search": payload}}


def test_pages_of_the_older_search_are_numbered_by_place() -> None:
    a, b, c = ({"url": f"https://{name}.example/", "title": name} for name in "abc")
    events, error = answer(
        search(keywords=["q", 5, "q"]),
        search(webPages=[a, "no page"]),
        search(webPages=[b], keywords=["r"]),
        search("set", webPages=[a, {}, b, c]),
        search(keywords="no list", webPages={}),
        text("x[^4^]y[^3^]z[^2^]"),
    )
    sources = [Source(url=page["url"], title=page["title"]) for page in (a, b, c)]
    assert error is None
    assert events == [
        SearchResults(queries=("q",)),
        SearchResults(sources=(sources[0],)),
        SearchResults(queries=("r",), sources=(sources[1],)),
        SearchResults(sources=(sources[2],)),
        TextDelta("x[1]"),
        Citation(number=1, source=sources[2]),
        TextDelta("y[2]"),
        Citation(number=2, source=sources[1]),
        TextDelta("z"),
        Finished(),
    ]


def test_a_source_is_told_once_and_cited_after_a_gap_is_filled() -> None:
    chunk = {"id": "r1", "base": {"url": "https://a.example/", "title": "A"}}
    refs = [
        {"message": {"id": "m-asst", "refs": {"searchChunks": [chunk]}}},
        {"message": {"refs": {"searchChunks": [chunk], "usedSearchChunks": [{"id": "r1", "refIndex": "k:1#0"}]}}},
        {"message": {"id": "m-user", "refs": {"searchChunks": [{"url": "https://no.example/"}]}}},
        {"message": {"id": "m-asst", "refs": [], "status": 5, "blocks": {}}},
    ]
    source = Source(url="https://a.example/", title="A")
    events, error = answer(*refs, text("x\ue3a0cite\ue3a3k:1#0\ue3a8"))
    assert error is None
    assert events == [
        SearchResults(sources=(source,)),
        TextDelta("x[1]"),
        Citation(number=1, source=source),
        Finished(),
    ]


@pytest.mark.parametrize(
    ("notification", "notice"),
    [
        ({"type": "TYPE_MODEL_DEGRADE", "message": "m"}, Notice(code="model_degraded", message="m")),
        ({"type": "TYPE_NEW", "message": "a\nb\x1b"}, Notice(code="unknown", message="a b")),
        ({"needUpgrade": True, "source": "membership_quota_notice"}, Notice(code="quota_exhausted", message="")),
        ({"type": 5, "message": ["x"]}, Notice(code="unknown", message="")),
    ],
)
def test_notices(notification: dict[str, Any], notice: Notice) -> None:
    assert answer({"notification": notification}, text("a")) == ([notice, TextDelta("a"), Finished()], None)


# --- the shortcut for growing blocks ---


@pytest.mark.parametrize("channel", [text, think])
def test_the_shortcut_takes_nothing_but_plain_appends(channel: Any) -> None:
    """Each odd frame follows one that opened the shortcut, and means the same as it would without it."""
    kind = "text" if channel is text else "think"
    plain = numbered(8, channel("b"))
    odd: list[tuple[dict[str, Any], str]] = [
        ({**plain, "op": "set"}, ""),
        ({**plain, "eventOffset": 7}, ""),
        ({**plain, "eventOffset": "8"}, "b"),
        ({**plain, "extra": 1}, "b"),
        ({**plain, "block": {"id": "other", kind: {"content": "b"}}}, "b"),
        ({**plain, "block": {"id": channel("")["block"]["id"], kind: {"content": ["b"]}}}, ""),
        ({**plain, "block": {"id": channel("")["block"]["id"], kind: {"content": "b", "summary": "s"}}}, "b"),
        ({**plain, "block": {**plain["block"], "messageId": "m-asst"}}, "b"),
        ({**plain, "block": {**plain["block"], "messageId": "m-user"}}, ""),
        ({**plain, "block": {**plain["block"], "parentId": "2"}}, "b"),
        ({**plain, "block": []}, ""),
        ({**plain, "block": {"id": 5, kind: {"content": "b"}}}, "b"),
        ({**plain, "mask": ["x"]}, "b"),
        ({**plain, "mask": None}, "b"),
    ]
    for frame, more in odd:
        opening = [numbered(6, channel("")), numbered(7, channel("a"))]
        events, error = answer(*opening, frame, numbered(9, channel("c")))
        assert error is None
        spoken = "".join(e.text for e in events if isinstance(e, TextDelta | ThinkingDelta))
        replaced = frame["op"] == "set"
        assert spoken.replace("\n\n", "") == f"a{more}c", frame
        assert replaced or "b" in spoken or not more
    failing = {**plain, "error": {"code": "resource_exhausted"}}
    assert answer(*opening, failing)[1] is RateLimited
    del failing["eventOffset"]
    assert answer(*opening, failing)[1] is RateLimited


def test_an_older_message_does_not_catch_the_newer_ones_appends() -> None:
    old = {"block": {"id": "5", "messageId": "m-asst", "text": {"content": "old"}}}
    new = [{"message": {"id": "m-2", "role": "assistant"}}, old, numbered(8, text("new")), numbered(9, text("!"))]
    events, _ = answer(*new, text("oldnew", op="set"))
    assert events[1:] == [TextDelta("oldnew!"), Finished()]


def test_every_error_is_a_kimi_error_with_the_account() -> None:
    decoder = ChatDecoder(UPSTREAM, account="acct")
    with pytest.raises(KimiError) as caught:
        list(decoder.feed(trailer({"code": "unauthenticated", "message": "token expired"})))
    assert caught.value.account == "acct"
    assert "token expired" in caught.value.message


def test_the_opening_is_what_the_helpers_say() -> None:
    assert [flag for flag, _ in split(OPENING)] == [0, 0, 0]
