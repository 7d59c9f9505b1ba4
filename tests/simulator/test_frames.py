# ruff: noqa: E501  # lines as the document has them
"""Every numbered frame of protocol C.12, typed here from the document, against what the scenarios send.

Ids and times differ from run to run: `same` maps the ids of the document to those of the answer. `eventOffset` is
checked by its own rule, because the document's excerpts begin at different places.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from .wire import Answer, Caller, body, pack

CHAT = "0198a000-0000-7000-8000-000000000001"

TURN_1 = r"""
{"heartbeat":{}}
{"op":"set","mask":"chat","eventOffset":1,"chat":{"id":"0198a000-0000-7000-8000-000000000001","name":"Untitled Chat","createTime":"2026-09-01T10:00:00Z"}}
{"op":"set","mask":"chat.lastRequest","eventOffset":2,"chat":{"id":"0198a000-0000-7000-8000-000000000001","lastRequest":{"scenario":"SCENARIO_CHAT","tools":[{"type":"TOOL_TYPE_SEARCH","search":{}}],"options":{"thinking":true,"model":"k2d6-chat"}}}}
{"op":"set","mask":"message","eventOffset":3,"message":{"id":"m-sys","role":"system","status":"MESSAGE_STATUS_UNSPECIFIED"}}
{"op":"set","mask":"message","eventOffset":4,"message":{"id":"m-user","parentId":"m-sys","role":"user","status":"MESSAGE_STATUS_COMPLETED","blocks":[{"id":"1","text":{"content":"Weather in Oslo?"}}],"scenario":"SCENARIO_CHAT"}}
{"op":"set","mask":"message","eventOffset":5,"message":{"id":"m-asst","parentId":"m-user","role":"assistant","status":"MESSAGE_STATUS_GENERATING","blocks":[],"scenario":"SCENARIO_CHAT"}}
{"op":"set","mask":"block.multiStage","eventOffset":6,"block":{"id":"1","parentId":"","multiStage":{"stages":[{"name":"STAGE_NAME_THINKING","status":"STAGE_STATUS_START","createTime":"2026-09-01T10:00:01Z"}]}}}
{"op":"set","mask":"block.stage","eventOffset":7,"block":{"id":"2","parentId":"1","stage":{"name":"STAGE_NAME_THINKING","status":"STAGE_STATUS_START"}}}
{"op":"set","mask":"block.think","eventOffset":8,"block":{"id":"3","parentId":"2","think":{"content":"I should"}}}
{"op":"append","mask":"block.think.content","eventOffset":9,"block":{"id":"3","think":{"content":" look this up."}}}
{"op":"set","eventOffset":10,"block":{"id":"4","parentId":"2","tool":{"toolCallId":"web_search_0","name":"web_search","status":"STATUS_PENDING"}}}
{"op":"append","mask":"block.tool.args","eventOffset":11,"block":{"id":"4","tool":{"args":"{\"queries\":[\"Oslo"}}}
{"op":"append","mask":"block.tool.args","eventOffset":12,"block":{"id":"4","tool":{"args":" weather\"]}"}}}
{"op":"set","mask":"block.tool.args,block.tool.status,block.tool.toolCallId","eventOffset":13,"block":{"id":"4","tool":{"toolCallId":"web_search:1","args":"{\"queries\":[\"Oslo weather\"]}","status":"STATUS_RUNNING"}}}
{"op":"set","mask":"block.tool.contents,block.tool.status","eventOffset":14,"block":{"id":"4","tool":{"contents":[{"searchResult":{"id":"r1","refIndex":"web_search:1#0","base":{"title":"Oslo forecast","url":"https://example.com/oslo","siteName":"Example","iconUrl":"https://example.com/i.png","snippet":"Rain, 9 C","publishTime":"2026-09-01"}}}],"status":"STATUS_DONE"}}}
{"op":"append","mask":"message.refs.searchChunks","eventOffset":15,"message":{"id":"m-asst","refs":{"searchChunks":[{"id":"r1","refIndex":"web_search:1#0","base":{"title":"Oslo forecast","url":"https://example.com/oslo"}}]}}}
{"op":"set","mask":"block.stage","eventOffset":16,"block":{"id":"2","parentId":"1","stage":{"name":"STAGE_NAME_THINKING","status":"STAGE_STATUS_END"}}}
{"op":"set","mask":"block.text","eventOffset":17,"block":{"id":"5","parentId":"","text":{"content":"Rain today, "}}}
{"op":"append","mask":"block.text.content","eventOffset":18,"block":{"id":"5","text":{"content":"about 9 °C.\ue3a0cite\ue3a3web_sea"}}}
{"op":"append","mask":"block.text.content","eventOffset":19,"block":{"id":"5","text":{"content":"rch:1#0\ue3a8"}}}
{"heartbeat":{}}
{"op":"set","mask":"message.refs.usedSearchChunks","eventOffset":20,"message":{"id":"m-asst","refs":{"usedSearchChunks":[{"id":"r1","refIndex":"web_search:1#0"}]}}}
{"op":"set","mask":"message.status","eventOffset":21,"message":{"id":"m-asst","status":"MESSAGE_STATUS_COMPLETED"}}
{"op":"set","mask":"chat.name","eventOffset":22,"chat":{"id":"0198a000-0000-7000-8000-000000000001","name":"Oslo weather"}}
{"eventOffset":23,"done":{}}
2 {}
"""

# Everything after the opening frames; a number in front is a flag other than 0.
EXCERPTS = {
    "native_tool": r"""
{"op":"set","eventOffset":6,"block":{"id":"4","parentId":"2","tool":{"toolCallId":"ipython_0","name":"ipython","status":"STATUS_PENDING"}}}
{"op":"append","mask":"block.tool.args","eventOffset":7,"block":{"id":"4","tool":{"args":"{\"code\":"}}}
{"op":"append","mask":"block.tool.args","eventOffset":8,"block":{"id":"4","tool":{"args":"\"6*7\"}"}}}
{"op":"set","mask":"block.tool.args,block.tool.status,block.tool.toolCallId","eventOffset":9,"block":{"id":"4","tool":{"toolCallId":"ipython:1","args":"{\"code\":\"6*7\"}","status":"STATUS_RUNNING"}}}
{"op":"set","mask":"block.tool.contents,block.tool.status","eventOffset":10,"block":{"id":"4","tool":{"contents":[{"text":"42"}],"status":"STATUS_DONE"}}}
{"op":"set","mask":"block.text","eventOffset":11,"block":{"id":"6","parentId":"","text":{"content":"6 x 7 = 42"}}}
{"eventOffset":12,"done":{}}
2 {}
""",
    "overloaded_after_text": r"""
{"op":"set","mask":"block.text","eventOffset":6,"block":{"id":"1","parentId":"","text":{"content":"Well, "}}}
{"op":"set","mask":"block.exception","eventOffset":7,"block":{"id":"2","exception":{"error":{"reason":"REASON_COMPLETION_OVERLOADED","localizedMessage":{"locale":"en-US","message":"Busy right now, try again shortly."},"severity":"SEVERITY_BLOCK_RETRACT"}}}}
{"op":"set","mask":"message.status","eventOffset":8,"message":{"id":"m-asst","status":"MESSAGE_STATUS_COMPLETED"}}
{"eventOffset":9,"done":{}}
2 {}
""",
    "overloaded_trailer": r"""
{"eventOffset":6,"done":{}}
2 {"error":{"code":"resource_exhausted","message":"overloaded","details":[{"debug":{"reason":"REASON_SERVER_OVERLOADED_FOR_FREE_USER","localizedMessage":{"locale":"en-US","message":"Many people are using this. Try later."}}}]}}
""",
    "moderated": r"""
{"op":"set","mask":"block.text","eventOffset":6,"block":{"id":"2","parentId":"","text":{"content":"The first steps are"}}}
{"op":"set","mask":"block.exception","eventOffset":7,"block":{"id":"3","exception":{"error":{"reason":"REASON_CONTENT_FILTERED","localizedMessage":{"locale":"en-US","message":"Let's talk about something else."},"severity":"SEVERITY_BLOCK_RETRACT"}}}}
{"eventOffset":8,"done":{}}
2 {}
""",
    "degraded": r"""
{"op":"set","eventOffset":6,"notification":{"type":"TYPE_MODEL_DEGRADE","message":"High demand: switched to the fast model"}}
{"op":"set","mask":"block.text","eventOffset":7,"block":{"id":"1","parentId":"","text":{"content":"Sure."}}}
{"op":"set","mask":"message.status","eventOffset":8,"message":{"id":"m-asst","status":"MESSAGE_STATUS_COMPLETED"}}
{"op":"set","mask":"chat.name","eventOffset":9,"chat":{"id":"0198a000-0000-7000-8000-000000000001","name":"Weather in Oslo?"}}
{"eventOffset":10,"done":{}}
2 {}
""",
    "oddities": r"""
{"op":"set","mask":"block.text","eventOffset":6,"block":{"id":"2","parentId":"","text":{}}}
{"op":"set","mask":"block.text.content","eventOffset":7,"block":{"id":"2","text":{"content":"He"}}}
{"op":"append","mask":"block.text.content","eventOffset":8,"block":{"id":"2","text":{"content":"llo"}}}
0
1 {"op":"append","mask":"block.text.content","eventOffset":9,"block":{"id":"2","text":{"content":"!"}}}
128 grpc-status: 0
2 {"error":{}}
""",
    "older_search": r"""
{"op":"append","mask":"block.search.keywords","eventOffset":6,"block":{"id":"0_1","search":{"keywords":["Oslo weather"]}}}
{"op":"append","mask":"block.search.webPages","eventOffset":7,"block":{"id":"0_1","search":{"webPages":[{"title":"Oslo forecast","url":"https://example.com/oslo","siteName":"Example","snippet":"Rain"}]}}}
{"op":"append","mask":"block.text.content","eventOffset":8,"block":{"id":"0_2","text":{"content":"Rain today[^1^]."}}}
{"op":"set","mask":"message.status","eventOffset":9,"message":{"id":"m-asst","status":"MESSAGE_STATUS_COMPLETED"}}
{"op":"set","mask":"chat.name","eventOffset":10,"chat":{"id":"0198a000-0000-7000-8000-000000000001","name":"Weather in Oslo?"}}
{"eventOffset":11,"done":{}}
2 {}
""",
}

TRAILERS = {
    "concurrency": '{"error":{"code":"resource_exhausted","message":"too many concurrent requests"}}',
    "quota": '{"error":{"code":"resource_exhausted","message":"quota used up","details":[{"debug":{"reason":"REASON_QUOTA_EXCEEDED"}}]}}',
    "paywall": '{"error":{"code":"resource_exhausted","message":"membership required","details":[{"debug":{"paywall":{"minMembershipLevel":"LEVEL_BASIC"}}}]}}',
    "auth_trailer": '{"error":{"code":"unauthenticated","message":"token expired"}}',
    "protocol_error": '{"error":{"code":"invalid_argument","message":"protocol error"}}',
}


def typed(lines: str) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    for line in lines.strip().splitlines():
        flag, rest = (0, line) if line.startswith("{") else (int(line.partition(" ")[0]), line.partition(" ")[2])
        found.append((flag, json.loads(rest) if rest.startswith("{") else rest.encode()))
    return found


def same(answer: Answer, lines: str) -> list[tuple[int, Any]]:
    """The document's frames with the ids and times of this answer."""
    ids = {CHAT: answer.chat_id, "m-sys": answer.faces["system"]["id"], "m-user": answer.faces["user"]["id"]}
    ids["m-asst"] = answer.answer_id
    made = next(one["chat"]["createTime"] for one in answer.events if one.get("mask") == "chat")
    stages = [one["block"]["multiStage"]["stages"][0] for one in answer.events if "multiStage" in one.get("block", {})]
    ids |= {"2026-09-01T10:00:00Z": made, "2026-09-01T10:00:01Z": stages[0]["createTime"] if stages else ""}
    for theirs, ours in ids.items():
        lines = lines.replace(f'"{theirs}"', f'"{ours}"')
    return typed(lines)


def test_turn_1(caller: Caller) -> None:
    answer = caller.chat(
        play="search_turn",
        tools=[{"type": "TOOL_TYPE_SEARCH", "search": {}}],
        options={"thinking": True, "model": "k2d6-chat"},
    )
    assert answer.frames == same(answer, TURN_1)


def test_turn_1_to_the_byte(caller: Caller) -> None:
    """Compact JSON, keys in the order of the captures, UTF-8 unescaped."""
    answer = caller.chat(play="search_turn")
    wanted = same(answer, TURN_1)
    for flag, value in wanted:
        if value.get("mask") != "chat.lastRequest":
            payload = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
            assert pack(payload, flag) in answer.response.content


@pytest.mark.parametrize("name", EXCERPTS)
def test_excerpts(caller: Caller, name: str) -> None:
    answer = caller.chat(play=name)
    opening = [one.get("mask") for one in answer.events[:6]]
    assert opening == [None, "chat", "chat.lastRequest", "message", "message", "message"]
    assert answer.frames[6:] == same(answer, EXCERPTS[name])


@pytest.mark.parametrize("name", TRAILERS)
def test_lone_trailers(caller: Caller, name: str) -> None:
    answer = caller.chat(play=name)
    assert answer.status == 200
    assert answer.frames == [(2, json.loads(TRAILERS[name]))]


def test_ask_user(caller: Caller) -> None:
    wanted = json.loads(
        r'{"op":"set","mask":"block.tool.args,block.tool.status,block.tool.toolCallId","eventOffset":9,"block":{"id":"4",'
        r'"tool":{"toolCallId":"ask_user:1","args":"{\"questions\":[{\"question\":\"Which city?\",\"type\":\"single\",'
        r"\"options\":[{\"option\":\"Oslo\",\"description\":\"\",\"recommended\":true}]}]}"
        r'","status":"STATUS_RUNNING"}}}'
    )
    answer = caller.chat(play="ask_user")
    assert wanted in answer.events
    chat = caller.unary("GetChat", {"chat_id": answer.chat_id}).json()["chat"]
    assert chat["status"] == "STATUS_ASK_USER_QUESTION"


def test_failing_tool(caller: Caller) -> None:
    wanted = json.loads(
        '{"op":"set","mask":"block.tool.contents,block.tool.status","eventOffset":10,"block":{"id":"4","tool":'
        '{"contents":[{"text":"Traceback"}],"status":"STATUS_DONE","isError":true}}}'
    )
    assert wanted in caller.chat(play="failing_tool").events


def test_auth_http(caller: Caller) -> None:
    response = caller.post(pack(body()), **{"x-sim-scenario": "auth_http"})
    assert (response.status_code, response.headers["content-type"]) == (401, "application/json")
    assert response.json() == {"code": "unauthenticated", "message": "invalid token"}


def test_offsets_grow_by_one(caller: Caller) -> None:
    for name in ("search_turn", "think_blocks", "unknown_things", "fast frames=50 batch=7", "demo"):
        offsets = [one["eventOffset"] for one in caller.chat(play=name).events if "eventOffset" in one]
        assert offsets == list(range(1, len(offsets) + 1))


def test_continued_chats_have_no_system_root(caller: Caller) -> None:
    first = caller.chat()
    second = caller.go_on(first, "And Bergen?")
    masks = [one.get("mask") for one in second.events]
    assert masks[:5] == [None, "chat", "chat.lastRequest", "message", "message"]
    assert [one["role"] for one in second.faces.values()] == ["user", "assistant"]
    assert second.faces["user"]["parentId"] == first.answer_id
    assert "chat.name" not in masks


def test_list_messages_as_documented(caller: Caller) -> None:
    answer = caller.chat(play="search_turn")
    newest, question, root = caller.unary("ListMessages", {"chat_id": answer.chat_id}).json()["messages"]
    assert (newest["role"], newest["status"]) == ("assistant", "MESSAGE_STATUS_COMPLETED")
    assert newest["parentId"] == question["id"]
    blocks = {block["id"]: block for block in newest["blocks"]}
    assert blocks["3"]["think"] == {"content": "I should look this up."}
    assert blocks["5"]["text"]["content"].startswith("Rain today, about 9 °C.")
    assert blocks["4"]["tool"]["args"] == '{"queries":["Oslo weather"]}'
    assert question["childrenMessageIds"] == [newest["id"]]
    assert question["blocks"] == [{"id": "1", "text": {"content": "Weather in Oslo?"}}]
    assert root["role"] == "system"


def test_a_failed_turn_keeps_only_its_exception(caller: Caller) -> None:
    answer = caller.chat(play="overloaded_after_text")
    newest = caller.unary("ListMessages", {"chat_id": answer.chat_id}).json()["messages"][0]
    (block,) = newest["blocks"]
    assert block["exception"]["error"]["reason"] == "REASON_COMPLETION_OVERLOADED"
