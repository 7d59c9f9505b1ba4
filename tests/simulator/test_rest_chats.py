"""The legacy protocol when all goes well: chats, the order of events, memory, continuing, research, mimicry."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from kimi_provider.simulator.rest.account import MIMICRY

from .sse import RestCaller, completion, parse
from .wire import Caller, body

K1 = "crm40ee9e5jvhsn7ptcg"


@pytest.mark.parametrize("value", [{"name": " "}, {}, {"kimiplus_id": K1}, {"kimiplus_id": "ok-computer", "name": "x"}])
def test_a_chat_is_made(rest: RestCaller, value: dict[str, Any]) -> None:
    made = rest.post("/api/chat", value).json()
    assert re.fullmatch("[0-9a-z]{20}", made["id"])
    assert made["name"] == value.get("name", "")


def test_events_in_the_documented_order(rest: RestCaller) -> None:
    answer = rest.ask("Hello there", use_search=True, kimiplus_id=K1)
    assert answer.response.headers["content-type"].startswith("text/event-stream")
    assert answer.kinds == ["req", "resp", "search_plus", "k1", "cmpl", "ref_docs", "rename", "all_done"]
    req, resp = answer.all("req")[0], answer.all("resp")[0]
    assert (req["content"], req["refs"], req["group_id"]) == ("Hello there", [], resp["group_id"])
    assert req["id"] != resp["id"]
    assert [one["msg"]["type"] for one in answer.all("search_plus")] == ["start", "get_res", "answer"]
    assert {"successNum", "title", "url", "snippet"} <= set(answer.all("search_plus")[1]["msg"])
    assert all((one["idx_s"], one["idx_z"], one["view"]) == (0, 0, "cmpl") for one in answer.all("cmpl"))
    assert answer.text.startswith("[simulator] ")
    assert "[^1^]" in answer.text
    assert set(answer.all("ref_docs")[0]["ref_cards"][0]) == {"url", "title"}
    assert answer.all("rename")[0]["text"] == "Hello there"


def test_a_plain_answer_neither_thinks_nor_searches(rest: RestCaller) -> None:
    assert rest.ask("Hello").kinds == ["req", "resp", "cmpl", "rename", "all_done"]


def test_memory_and_one_title_for_each_chat(rest: RestCaller) -> None:
    chat_id = rest.new_chat()
    rest.complete(chat_id, "My favourite fruit is durian")
    second = rest.complete(chat_id, "Do you remember what I said?")
    assert "durian" in second.text
    assert "rename" not in second.kinds
    assert "durian" not in rest.ask("Do you remember what I said?").text


def test_one_history_for_both_protocols(rest: RestCaller, caller: Caller) -> None:
    chat_id = rest.new_chat()
    message = body("I am Ada")["message"]
    first = caller.chat(chat_id=chat_id, message=message)  # Connect goes on in a chat that REST made
    assert first.chat_id == chat_id
    assert "Ada" in rest.complete(chat_id, "Do you remember?").text
    rest.complete(chat_id, "Beta")
    message = body("Do you remember?")["message"]
    assert "Beta" in caller.chat(chat_id=chat_id, message=message).text
    listed = caller.unary("ListMessages", {"chat_id": chat_id}).json()["messages"]
    assert [one["role"] for one in listed].count("assistant") == 4


def test_list_and_delete(rest: RestCaller, other_rest: RestCaller, caller: Caller) -> None:
    old, new = rest.new_chat(name="Old"), rest.new_chat(name="New")
    listed = rest.post("/api/chat/list", {"offset": 0, "size": 1}).json()
    assert ([one["id"] for one in listed["items"]], listed["total"]) == ([new], 2)
    assert [one["name"] for one in rest.post("/api/chat/list", {"offset": 1, "size": 50}).json()["items"]] == ["Old"]
    assert other_rest.delete(f"/api/chat/{old}").status_code == 404
    assert rest.delete(f"/api/chat/{old}").status_code == 200
    assert rest.delete(f"/api/chat/{old}").json()["error_type"] == "chat.not_found"
    uuid_chat = caller.chat().chat_id
    refused = rest.delete(f"/api/chat/{uuid_chat}")
    assert (refused.status_code, refused.json()["error_type"]) == (400, "request.invalid")
    assert rest.post("/api/chat/list", {}).json()["total"] == 2
    assert rest.server.snapshot()["deleted"] == [old]


@pytest.mark.parametrize(("play", "continues"), [("long", 2), ("long pieces=1", 0), ("long pieces=6 lines=7", 5)])
def test_a_long_answer_is_whole_after_continuing(rest: RestCaller, play: str, continues: int) -> None:
    chat_id = rest.new_chat()
    rest.server.queue("say", text="NOT THIS")  # a continue call takes nothing from the queue
    answer = rest.complete(chat_id, play=play)
    text = answer.text
    for _ in range(continues):
        assert answer.kinds[-2:] == ["length", "all_done"]
        answer = rest.go_on(chat_id, answer.segment_id)
        text += answer.text
    assert "length" not in answer.kinds
    lines = text.splitlines()
    assert lines == [f"{n}. Line {n} of {len(lines)}." for n in range(1, len(lines) + 1)]
    assert len(lines) == {2: 120, 0: 40, 5: 42}[continues]
    (chat,) = rest.server.snapshot()["chats"]
    assert chat["messages"][-1]["blocks"][0]["text"]["content"] == text
    assert rest.go_on(chat_id, answer.segment_id).error_type == "chat.segment_not_found"
    assert len(rest.server.snapshot()["queue"]) == 1


def test_other_ways_to_be_cut(rest: RestCaller) -> None:
    chat_id = rest.new_chat()
    first = rest.complete(chat_id, play="long pieces=2 ends=0 new_segment=0")
    assert first.kinds == ["req", "resp", "cmpl", "length"]
    second = rest.go_on(chat_id, first.segment_id)
    assert second.kinds == ["resp", "cmpl", "rename", "all_done"]
    assert second.answer_id == first.answer_id


def test_continue_wants_the_newest_segment(rest: RestCaller) -> None:
    chat_id = rest.new_chat()
    first = rest.complete(chat_id, play="long")
    second = rest.go_on(chat_id, first.segment_id)
    assert second.segment_id != first.segment_id
    assert rest.go_on(chat_id, first.segment_id).error_type == "chat.segment_not_found"
    assert rest.go_on(rest.new_chat(), second.segment_id).status == 400


@pytest.mark.parametrize("new_segment", [0, 1])
def test_a_segment_continues_once_and_only_while_it_is_the_last(rest: RestCaller, new_segment: int) -> None:
    chat_id, play = rest.new_chat(), f"long pieces=2 new_segment={new_segment}"
    first = rest.complete(chat_id, play=play)
    assert rest.go_on(chat_id, first.segment_id).kinds[-1] == "all_done"
    assert rest.go_on(chat_id, first.segment_id).error_type == "chat.segment_not_found"
    second = rest.complete(chat_id, play=play)
    rest.complete(chat_id, "Something else")
    assert rest.go_on(chat_id, second.segment_id).error_type == "chat.segment_not_found"


@pytest.mark.parametrize(("version", "field"), [("v3", "queries"), ("v2", "query")])
def test_rag_refs(rest: RestCaller, version: str, field: str) -> None:
    chat_id = rest.new_chat()
    answer = rest.complete(chat_id, play="caret_citations")
    query = {field: [{"chat_id": chat_id, "sid": answer.answer_id, "z_idx": 0}], "with_rag_segs": True}
    found = rest.post(f"/api/chat/segment/{version}/rag-refs", query).json()
    assert [(one["ref_id"], one["ref_doc"]["url"]) for one in found["items"][0]["refs"]] == [
        (1, "https://example.com/oslo"),
        (2, "https://example.com/bergen"),
    ]
    query[field] = [{"chat_id": chat_id, "sid": answer.segment_id}]
    assert rest.post(f"/api/chat/segment/{version}/rag-refs", query).status_code == 404


def test_research_is_counted(rest: RestCaller, other_rest: RestCaller) -> None:
    rest.server.change(research_total=2)
    usage = "/api/chat/research/usage"
    assert rest.get(usage).json() == {"remain": 2, "total": 2, "used": 0}
    assert rest.ask(use_research=True).kinds[2] == "search_plus"
    rest.ask(use_search=True)
    assert rest.get(usage).json() == {"remain": 1, "total": 2, "used": 1}
    assert other_rest.get(usage).json()["used"] == 0
    rest.ask(use_research=True)
    over = rest.ask(use_research=True)
    assert (over.status, over.error_type) == (429, "chat.research.used_up")
    rest.server.change(research_shape="nested")
    nested = rest.get(usage).json()
    assert (nested["research_usage"]["remain"], nested["membership"]) == (0, {"level": 10})


def test_who_i_am(rest: RestCaller) -> None:
    assert rest.get("/api/user").json()["id"] == rest.caller.tokens["user_id"]


def test_mimicry_is_refused_and_counted(rest: RestCaller) -> None:
    rest.ask()
    assert rest.server.snapshot()["mimicry"] == {}
    for path in MIMICRY:
        assert rest.post(path.format(chat_id="c" * 20), {}).status_code == 404
    assert rest.server.snapshot()["mimicry"] == dict.fromkeys(MIMICRY, 1)


def test_the_owners_chats(rest: RestCaller, server: Any) -> None:
    ids = rest.http.post("/_sim/chats", json={"user": "ada", "count": 3}).json()["ids"]
    mine = rest.new_chat()
    chats = {chat["id"]: chat["creator"] for chat in server.snapshot()["chats"]}
    assert chats == dict.fromkeys(ids, "owner") | {mine: "rest"}
    assert {one["account"] for one in server.snapshot()["chats"]} == {rest.caller.tokens["user_id"]}
    listed = rest.caller.unary("ListChats", {}).json()["chats"]
    assert [chat["id"] for chat in listed] == [mine, *reversed(ids)]
    assert rest.http.post("/_sim/chats", json={"user": "nobody"}).status_code == 404
    assert rest.http.post("/_sim/chats", json={"user": "ada", "count": 0}).status_code == 400
    assert len(server.make_chats("ada", 2)) == 2


def trips(rest: RestCaller) -> list[Any]:
    return [
        (one["protocol"], one["round_trips_before_first_byte"])
        for one in rest.server.snapshot()["calls"]
        if one["account"] == rest.caller.tokens["user_id"]
    ]


def test_round_trips_before_the_first_byte(rest: RestCaller, other_rest: RestCaller, caller: Caller) -> None:
    refresh = {"refresh_token": caller.tokens["refresh_token"]}
    caller.chat()  # one request
    rest.ask()  # two: the chat, the completion
    rest.server.make_chats("ada")
    other_rest.ask()
    rest.http.post("/api/account.gateway.v1.AuthService/RefreshToken", json=refresh)
    caller.upload("a.txt", b"a", "text/plain")
    caller.chat()  # three
    rest.upload("b.txt", b"b", "text/plain")
    rest.ask()  # five: presign, put, register, chat, completion
    rest.ask(play="overloaded_before_text")
    rest.complete(rest.new_chat(), play="stale_token")
    assert trips(rest) == [("connect", 1), ("rest", 2), ("connect", 3), ("rest", 5), ("rest", None), ("rest", None)]


def test_requests_with_an_expired_token_are_round_trips_too(rest: RestCaller, server: Any) -> None:
    fresh = rest.caller.token
    rest.caller.token = server.login(user="ada", expires_in=-5)["access_token"]
    assert rest.post("/api/chat", {"name": " "}).status_code == 401
    rest.caller.token = fresh
    rest.ask()
    assert trips(rest) == [("rest", 3)]


def test_one_stream_of_an_account(rest: RestCaller, other_rest: RestCaller) -> None:
    def second() -> Any:
        return rest.complete(chat_id)

    chat_id = rest.new_chat()
    path = f"/api/chat/{chat_id}/completion/stream"
    headers = rest.headers(**{"x-sim-scenario": "hang_mid_text"})
    with rest.http.stream("POST", path, json=completion(), headers=headers) as response:
        chunks, data = response.iter_raw(), b""
        while b"Then silence" not in data:
            data += next(chunks)
        assert (second().status, second().error_type) == (200, "chat.user_stream_pushing")
        assert second().response.headers["content-type"].startswith("text/event-stream")
        rest.server.change(rest_pushing="json")
        assert (second().status, second().error_type) == (400, "chat.user_stream_pushing")
        assert other_rest.ask().kinds[-1] == "all_done"
        rest.server.change(max_streams=1)
        assert rest.caller.chat().trailer == {}  # Connect counts apart
    assert parse(data)[-1]["text"] == "Then silence"


@pytest.mark.parametrize("how", ["404", "405", "410", "redirect"])
def test_retired(rest: RestCaller, how: str) -> None:
    chat_id = rest.new_chat()
    status = 302 if how == "redirect" else int(how)
    rest.server.change(rest_retired=how, rest_retired_scope="completion")
    assert rest.post("/api/chat", {"name": " "}).status_code == 200
    answer = rest.complete(chat_id)
    assert answer.status == status
    assert "json" not in answer.response.headers.get("content-type", "")
    if how == "redirect":
        assert answer.response.headers["location"].endswith(f"/api/chat/{chat_id}/completion/stream")
    rest.server.change(rest_retired_scope="all")
    calls: list[httpx.Response] = [
        rest.post("/api/chat", {"name": " "}),
        rest.post("/api/chat/list", {}),
        rest.delete(f"/api/chat/{chat_id}"),
        rest.get("/api/user"),
        rest.get("/api/chat/research/usage"),
        rest.post("/api/pre-sign-url", {}),
        rest.post("/api/file", {}),
        rest.http.post("/api/chat"),  # a retired host looks at nothing
    ]
    assert {call.status_code for call in calls} == {status}
    refresh = {"authorization": f"Bearer {rest.caller.tokens['refresh_token']}"}
    assert rest.http.get("/api/auth/token/refresh", headers=refresh).status_code == 200
