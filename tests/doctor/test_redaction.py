"""What stays of the service's words, and that nothing else does."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_provider.doctor.redaction import Redactor, is_word
from kimi_provider.upstream import Upstream
from tests.security.needles import Needles, composed_token

UPSTREAM = Upstream.load()


def redacted(*frames: Any) -> list[Any]:
    return Redactor(UPSTREAM).values(frames)


def text(content: str, block_id: str = "5") -> dict[str, Any]:
    return {"op": "append", "mask": "block.text.content", "block": {"id": block_id, "text": {"content": content}}}


def said(frames: list[Any]) -> str:
    return "".join(frame["block"]["text"]["content"] for frame in frames if "text" in frame.get("block", {}))


def found(ref: str) -> dict[str, Any]:
    return {"message": {"id": "m", "refs": {"searchChunks": [{"id": "r1", "refIndex": ref}]}}}


@pytest.mark.parametrize(
    "kept",
    [
        {"op": "set", "mask": "block.tool.args,block.tool.status,block.tool.toolCallId", "eventOffset": 12345},
        {"message": {"role": "assistant", "status": "MESSAGE_STATUS_GENERATING", "scenario": "SCENARIO_K2D5"}},
        {"block": {"id": "0_1", "parentId": "2", "tool": {"name": "web_search", "toolCallId": "web_search:1"}}},
        {"block": {"id": "2", "stage": {"name": "STAGE_NAME_THINKING", "status": "STAGE_STATUS_END"}}},
        {"error": {"code": "resource_exhausted", "details": [{"debug": {"reason": "REASON_QUOTA_EXCEEDED"}}]}},
        {"error": {"error_type": "chat.user_stream_pushing"}},
        {"options": {"thinking": True, "model": "k28-agent-preview", "reasoning_effort": "REASONING_EFFORT_LOW"}},
        {"availableModels": [{"id": "k2d6-chat", "key": "k2d6", "agentMode": "TYPE_NORMAL"}]},
        {"done": {}, "heartbeat": {}, "cut": None, "count": 3},
    ],
)
def test_the_protocols_words_stay(kept: Any) -> None:
    assert redacted(kept) == [kept]


@pytest.mark.parametrize(
    ("said_by_service", "shown"),
    [
        ({"user": {"nickname": "Ada", "phone": {"number": "+47 912 34 567"}}},
         {"user": {"nickname": "xxx", "phone": {"number": "+00 000 00 000"}}}),
        ({"name": "My divorce", "title": "天气"}, {"name": "xx xxxxxxx", "title": "字字"}),
        ({"url": "https://store.example/a?sig=abc"}, {"url": "https://example.com/1"}),
        ({"createTime": "2026-09-01T10:00:01Z", "publishTime": "2026-09-01"},
         {"createTime": "2026-01-01T00:00:00Z", "publishTime": "2026-01-01"}),
        ({"accessToken": "abc", "session_cookie": "abc"},
         {"accessToken": "[redacted]", "session_cookie": "[redacted]"}),
        ({"balance": 123456, "ratio": 0.1234}, {"balance": 10_000, "ratio": 0.5}),
        ({"content": "ⓔⓨ \U000e0065\U000e0079 \U0001d41e 🙂 9 °C"}, {"content": "xx 字字 字 🙂 0 °x"}),
        ({"content": "MY_SECRET_WORD"}, {"content": "xx_xxxxxx_xxxx"}),
        ({"reason": "4zq8Vb2Lw9Xc7Rt5Mk1N"}, {"reason": "0xx0xx0xx0xx0xx0xx0x"}),
        ({"tool": {"name": "Adas.Tool.4zq8Vb2Lw9"}}, {"tool": {"name": "xxxx.xxxx.0xx0xx0xx0"}}),
        ({"chat": {"name": "web_search"}}, {"chat": {"name": "xxx_xxxxxx"}}),
        ({"4zq8Vb2Lw9Xc7Rt5Mk1N!": 1}, {"id-1": 1}),
    ],
)  # fmt: skip
def test_all_else_goes(said_by_service: Any, shown: Any) -> None:
    assert redacted(said_by_service) == [shown]


def test_the_same_id_gets_the_same_placeholder_in_its_own_shape() -> None:
    uuid, xid, digits = "0198a000-0000-7000-8000-00000000abcd", "cxq1user0000000000a0", "7512345678901234567"
    redactor = Redactor(UPSTREAM)
    first = redactor.value({"chat": {"id": uuid}, "user": {"id": xid, "deviceId": digits}, "otherId": "m-asst"})
    assert first == {
        "chat": {"id": "00000000-0000-4000-8000-000000000001"},
        "user": {"id": "id000000000000000002", "deviceId": "9000000000000000003"},
        "otherId": "id-4",
    }
    again = redactor.value({"chat_id": uuid, "childrenMessageIds": [xid, "new"]})
    assert again == {"chat_id": first["chat"]["id"], "childrenMessageIds": [first["user"]["id"], "id-5"]}
    assert redactor.path(f"/api/chat/{xid}/completion/stream") == "/api/chat/id000000000000000002/completion/stream"
    assert redactor.path("/apiv2/kimi.gateway.chat.v1.ChatService/Chat").endswith("v1.ChatService/Chat")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("too many concurrent requests by ada", "too many concurrent xxxxxxxx xx xxx"),
        ("the conversation exceeds the context length", "xxx xxxxxxxxxxxx xxxxxxx xxx context length"),
        ("overloaded, 17 waiting", "overloaded, 00 xxxxxxx"),
        ("Ada's quotation", "xxx'x xxxxxxxxx"),
    ],
)
def test_error_messages_keep_the_words_that_errors_are_told_by(message: str, shown: str) -> None:
    assert redacted({"error": {"message": message}}) == [{"error": {"message": shown}}]


def test_marks_stay_where_they_name_a_source_of_the_answer_wherever_it_was_cut() -> None:
    whole = "Rain\ue3a0cite\ue3a3web_search:1#0\ue3a8 and [^2^], not \ue3a0cite\ue3a3web_search:7#7\ue3a8 or [^9^]."
    expected = "xxxx\ue3a0xxxx\ue3a3web_search:1#0\ue3a8 xxx [^2^], xxx \ue3a0xxxx\ue3a3xxx_xxxxxx:0#0\ue3a8 xx [^0^]."
    sources = [found("web_search:1#0"), found("2")]
    for size in (1, 3, 7, len(whole)):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        out = redacted(*sources, *map(text, pieces))
        assert said(out) == expected
        assert [len(frame["block"]["text"]["content"]) for frame in out[2:]] == [len(piece) for piece in pieces]


def test_new_signs_stay_too() -> None:
    assert said(redacted(found("web_search:1#0"), text("Regn【web_search:1#0】ja"))) == "xxxx【web_search:1#0】xx"


def test_arguments_of_tools_stay_json_with_their_fields() -> None:
    args = json.dumps({"queries": ['Ada\n"Lovelace"', "Oslo é"], "n": [1]})
    for cut in range(1, len(args)):
        pieces = [{"block": {"id": "4", "tool": {"args": part}}} for part in (args[:cut], args[cut:])]
        joined = "".join(frame["block"]["tool"]["args"] for frame in redacted(*pieces))
        assert json.loads(joined) == {"queries": ['xxx\n"xxxxxxxx"', "xxxx x"], "n": [0]}


@given(st.data())
def test_no_credential_survives_wherever_it_stands_and_however_it_is_cut(data: st.DataObject) -> None:
    needles, token = Needles(), composed_token()
    needles.add("token", token)
    place = data.draw(
        st.sampled_from(["content", "title", "message", "reason", "id", "name", "status", "mask", "args"])
    )
    if data.draw(st.booleans()):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(token)), max_size=6)))
        pieces = [token[a:b] for a, b in zip([0, *cuts], [*cuts, len(token)], strict=True)]
        frames = [{"block": {"id": "1", "text": {place: piece}}} for piece in pieces]
        out = "".join(frame["block"]["text"].get(place, "") for frame in redacted(*frames))
    else:
        out = json.dumps(redacted({"error": {place: token}, token: 1, "list": [token]}))
    assert needles.found_in(out) == []


@given(
    st.text(string.ascii_letters, min_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("23456789")), min_size=4),
)
def test_runs_with_digits_all_over_are_no_words(letters: str, digits: list[tuple[int, str]]) -> None:
    for at, digit in digits:
        letters = letters[:at] + digit + letters[at:]
    assert not is_word(letters)
