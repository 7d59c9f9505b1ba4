"""Deliberate mistakes on the legacy protocol, each with the exact refusal."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .sse import RestAnswer, RestCaller, completion, stream_of
from .wire import body, pack

USER = {"role": "user", "content": "Hi"}


def refused(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()
    assert list(error) == ["error_type", "message", "detail"]
    assert error["message"]
    return response.status_code, error["error_type"], error["detail"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [USER, USER]}, "messages"),
        ({"messages": ["Hi"]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages.role"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "messages.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.content"),
        ({"use_search": "yes"}, "use_search"),
        ({"use_research": 1}, "use_research"),
        ({"use_math": None}, "use_math"),
        ({"extend": []}, "extend"),
        ({"refs": "f"}, "refs"),
        ({"refs": [""]}, "refs"),
        ({"refs_file": [{"name": "a"}]}, "refs_file"),
        ({"action": "again", "segment_id": "s"}, "action"),
        ({"segment_id": "s"}, "action"),
        ({"action": "continue"}, "segment_id"),
    ],
)
def test_a_refused_field_is_named(rest: RestCaller, changes: dict[str, Any], field: str) -> None:
    response = rest.post(stream_of(rest.new_chat()), completion(**changes))
    assert refused(response) == (400, "request.invalid", field)
    (chat,) = rest.server.snapshot()["chats"]
    assert chat["messages"] == []


@pytest.mark.parametrize("agent", ["nobody", "a" * 20, "", None, 5])
def test_unknown_agent(rest: RestCaller, agent: Any) -> None:
    assert refused(rest.post("/api/chat", {"kimiplus_id": agent})) == (400, "kimiplus.not_found", "kimiplus_id")
    answer = rest.ask(kimiplus_id=agent)
    assert refused(answer.response) == (400, "kimiplus.not_found", "kimiplus_id")


def test_agents_are_a_setting(rest: RestCaller) -> None:
    rest.server.change(agents=["b" * 20])
    assert rest.ask(kimiplus_id="b" * 20).kinds[-1] == "all_done"
    assert rest.ask(kimiplus_id="crm40ee9e5jvhsn7ptcg").status == 400


def test_unknown_chat(rest: RestCaller, other_rest: RestCaller) -> None:
    for chat_id in ("c" * 20, other_rest.new_chat(), rest.caller.chat().chat_id):
        assert refused(rest.complete(chat_id).response) == (404, "chat.not_found", "")


@pytest.mark.parametrize("field", ["refs", "refs_file"])
def test_unknown_files(rest: RestCaller, other_rest: RestCaller, field: str) -> None:
    def named(file_id: str) -> dict[str, Any]:
        return {field: [file_id if field == "refs" else {"id": file_id, "name": "a.txt"}]}

    foreign = other_rest.upload("a.txt", b"words", "text/plain").json()["id"]
    for file_id in ("nope", foreign):
        assert refused(rest.ask(**named(file_id)).response) == (400, "file.not_found", "refs")
    rest.server.change(parse_result="never")
    waiting = rest.upload("b.txt", b"words", "text/plain").json()["id"]
    assert refused(rest.ask(**named(waiting)).response) == (400, "file.not_parsed", "refs")


@pytest.mark.parametrize("value", [{"name": 5}, {"name": None}])
def test_bad_name(rest: RestCaller, value: dict[str, Any]) -> None:
    assert refused(rest.post("/api/chat", value)) == (400, "request.invalid", "name")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("/api/chat/list", {"size": "many"}, "size"),
        ("/api/chat/list", {"offset": -1}, "offset"),
        ("/api/chat/segment/v3/rag-refs", {}, "queries"),
        ("/api/pre-sign-url", {"action": "video", "name": "a"}, "action"),
        ("/api/pre-sign-url", {"action": "file"}, "name"),
        ("/api/file", {"type": "file", "name": "a"}, "object_name"),
        ("/api/file", {"type": "image", "name": "a"}, "file_id"),
        ("/api/file", {"name": "a"}, "type"),
        ("/api/file/parse_process", {"ids": []}, "ids"),
        ("/api/file/parse_process", {"ids": ["a"], "timeout": "1"}, "timeout"),
    ],
)
def test_other_fields(rest: RestCaller, path: str, value: dict[str, Any], field: str) -> None:
    assert refused(rest.post(path, value)) == (400, "request.invalid", field)


CALLS = [
    ("POST", "/api/chat"),
    ("POST", "/api/chat/list"),
    ("POST", stream_of("c" * 20)),
    ("POST", "/api/chat/segment/v3/rag-refs"),
    ("POST", "/api/pre-sign-url"),
    ("POST", "/api/file"),
    ("POST", "/api/file/parse_process"),
    ("DELETE", "/api/chat/" + "c" * 20),
    ("GET", "/api/user"),
    ("GET", "/api/chat/research/usage"),
]


@pytest.mark.parametrize(("verb", "path"), CALLS)
def test_credentials(rest: RestCaller, verb: str, path: str) -> None:
    expired = rest.server.login(user="ada", expires_in=-5)["access_token"]
    bad = [None, "Bearer", "Bearer nonsense", "Basic abc", f"Bearer {rest.caller.tokens['refresh_token']}"]
    for header in [*bad, f"Bearer {expired}"]:
        headers = {"content-type": "application/json"} | ({"authorization": header} if header else {})
        content = b"{}" if verb == "POST" else None
        response = rest.http.request(verb, path, content=content, headers=headers)
        assert refused(response) == (401, "auth.token.invalid", "")


@pytest.mark.parametrize("path", [path for verb, path in CALLS if verb == "POST"])
def test_content_type_and_json(rest: RestCaller, path: str) -> None:
    for given in ("text/plain", "application/connect+json", ""):
        response = rest.http.post(path, content=b"{}", headers=rest.headers(**{"content-type": given}))
        assert refused(response)[:2] == (415, "request.unsupported_media_type")
    for content in (b"{", b"[]"):
        headers = rest.headers(**{"content-type": "application/json"})
        assert refused(rest.http.post(path, content=content, headers=headers))[:2] == (400, "request.invalid")


@pytest.mark.parametrize(("verb", "path"), [("GET", "/api/chat"), ("POST", "/api/user"), ("GET", "/api/file")])
def test_wrong_verb(rest: RestCaller, verb: str, path: str) -> None:
    assert rest.http.request(verb, path, headers=rest.headers()).status_code == 405


@pytest.mark.parametrize("play", ["quota", "nonsense", "long pieces=many", "split of=oddities"])
def test_scenarios_of_the_other_protocol(rest: RestCaller, play: str) -> None:
    status, error_type, _ = refused(rest.ask(play=play).response)
    assert (status, error_type) == (400, "request.invalid")
    assert rest.server.snapshot()["active_streams"] == 0


def test_what_was_queued_for_the_other_protocol(rest: RestCaller) -> None:
    rest.server.queue("quota")
    assert rest.ask(use_research=True).status == 400
    rest.server.queue("long")
    assert rest.caller.post(pack(body())).json()["code"] == "invalid_argument"
    state = rest.server.snapshot()
    assert (state["active_streams"], state["queue"], state["calls"], state["research_used"]) == (0, [], [], {})


def test_the_queue_knows_both_tables(rest: RestCaller) -> None:
    rest.server.queue("long", pieces=2)
    assert "length" in rest.ask().kinds
    assert rest.http.post("/_sim/scenario", json={"name": "long", "params": {"piece": 2}}).status_code == 400
    assert RestAnswer(rest.complete(rest.new_chat(), "[[scenario:say text=Yes]]").response).text == "Yes"


@pytest.mark.parametrize(
    "value", [{"rest_retired": "500"}, {"rest_pushing": True}, {"research_shape": ""}, {"agents": "x"}]
)
def test_settings_are_words(rest: RestCaller, value: dict[str, Any]) -> None:
    assert rest.http.post("/_sim/settings", json=value).status_code == 400
