"""Deliberate mistakes of a client, each with the exact refusal."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest

from kimi_provider.simulator import SimulatorServer

from .wire import CHAT, CHAT_V1, Answer, Caller, body, pack


def error_of(response: httpx.Response) -> Any:
    """The one error of a refused Chat call, wherever it is carried."""
    if response.headers["content-type"] == "application/json":
        return response.json()
    (frame,) = Answer(response).frames
    assert frame[0] == 2
    return frame[1]["error"]


def field_named(error: dict[str, Any]) -> str:
    (violation,) = error["details"][0]["debug"]["violations"]
    assert violation["message"]
    return ".".join(element["fieldName"] for element in violation["field"]["elements"])


VALID = json.dumps(body()).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VALID, "protocol error"),  # bare JSON: its first byte is no flag
        (pack(VALID, 1), "protocol error"),
        (pack(gzip.compress(VALID), 1), "protocol error"),
        (pack(VALID, 2), "protocol error"),
        (pack(VALID) + pack(VALID), "expected exactly one message"),
        (pack(VALID) + b"\x00", "expected exactly one message"),
        (pack(VALID)[:-1], "incomplete envelope"),
        (b"", "incomplete envelope"),
        (pack(b"not json"), "invalid JSON"),
        (pack([]), "expected a JSON object"),
    ],
    ids=["bare", "gzip-flag", "gzip", "end-flag", "two", "surplus", "short", "empty", "not-json", "list"],
)
@pytest.mark.parametrize("path", [CHAT, CHAT_V1])
def test_not_exactly_one_envelope(caller: Caller, content: bytes, message: str, path: str) -> None:
    response = caller.post(content, path=path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/connect+json")
    assert error_of(response) == {"code": "invalid_argument", "message": message}


@pytest.mark.parametrize("given", ["application/json", "text/plain", "application/connect+proto", ""])
def test_wrong_content_type(caller: Caller, given: str) -> None:
    response = caller.post(pack(body()), **{"content-type": given})
    assert response.status_code == 415


def text(content: Any) -> dict[str, Any]:
    return {"text": {"content": content}}


def message(**changes: Any) -> dict[str, Any]:
    return {**body()["message"], **changes}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scenario": "SCENARIO_NONSENSE"}, "scenario"),
        ({"scenario": None}, "scenario"),
        ({"scenario": "SCENARIO_K2D6"}, "scenario"),
        ({"scenario": 7}, "scenario"),
        ({"chat_id": ""}, "chat_id"),
        ({"chatId": ""}, "chat_id"),
        ({"chat_id": 5}, "chat_id"),
        ({"message": None}, "message"),
        ({"message": "hello"}, "message"),
        ({"message": message(role="assistant")}, "message.role"),
        ({"message": message(role=None)}, "message.role"),
        ({"message": message(parent_id="")}, "message.parent_id"),
        ({"message": message(scenario="SCENARIO_NONSENSE")}, "message.scenario"),
        ({"message": message(blocks=[])}, "message.blocks"),
        ({"message": message(blocks=None)}, "message.blocks"),
        ({"message": message(blocks=[{"picture": {}}])}, "message.blocks"),
        ({"message": message(blocks=[text("")])}, "message.blocks.text.content"),
        ({"message": message(blocks=[{"text": {}}])}, "message.blocks.text.content"),
        ({"message": message(blocks=[text("a"), {"file": {"id": ""}}])}, "message.blocks.file.id"),
        ({"tools": {}}, "tools"),
        ({"tools": ["TOOL_TYPE_SEARCH"]}, "tools"),
        ({"kimiplus_id": "no-such-agent"}, "kimiplus_id"),
        ({"kimi_plus_id": "no-such-agent"}, "kimiplus_id"),
        ({"agent_mode": "TYPE_WILD"}, "agent_mode"),
        ({"options": {"thinking": "yes"}}, "options.thinking"),
        ({"options": {"model": "k9"}}, "options.model"),
        ({"options": {"model": "k3-agent"}}, "options.model"),
        ({"scenario": "SCENARIO_K2D5", "options": {"model": "k2d6-chat"}}, "options.model"),
        ({"options": {"reasoning_effort": "high"}}, "options.reasoning_effort"),
        ({"options": {"reasoningEffort": "REASONING_EFFORT_MAX"}}, "options.reasoning_effort"),
        (
            {"scenario": "SCENARIO_OK_COMPUTER", "options": {"reasoning_effort": "REASONING_EFFORT_NONE"}},
            "options.reasoning_effort",
        ),
        ({"options": {"context_length": "CONTEXT_LENGTH_XXL"}}, "options.context_length"),
        ({"options": []}, "options"),
    ],
)
def test_a_refused_field_is_named(caller: Caller, changes: dict[str, Any], field: str) -> None:
    response = caller.post(pack(body(**changes)))
    assert response.status_code == 400
    error = response.json()
    assert (error["code"], error["message"]) == ("invalid_argument", "validation failed")
    assert error["details"][0]["type"] == "buf.validate.Violations"
    assert field_named(error) == field
    assert caller.server.snapshot()["chats"] == []


def test_frame_54_as_documented(caller: Caller) -> None:
    violation = {"field": {"elements": [{"fieldName": "chat_id"}]}, "message": "must not be empty"}
    assert caller.post(pack(body(chat_id=""))).json() == {
        "code": "invalid_argument",
        "message": "validation failed",
        "details": [{"type": "buf.validate.Violations", "debug": {"violations": [violation]}}],
    }


def test_empty_ids_pass_when_the_switch_is_off(caller: Caller) -> None:
    caller.server.change(empty_chat_id_refused=False)
    assert caller.chat(chat_id="", message=message(parent_id="")).trailer == {}


def test_unverified_scenarios_pass_when_the_switch_is_on(caller: Caller) -> None:
    caller.server.change(unverified_scenarios=True)
    assert caller.chat(scenario="SCENARIO_AUTOMATION_K3", options={}).trailer == {}


def test_unknown_chat(caller: Caller) -> None:
    assert error_of(caller.post(pack(body(chat_id="0198a000")))) == {"code": "not_found", "message": "chat not found"}


def test_chat_of_another_account(caller: Caller, other: Caller) -> None:
    chat_id = caller.chat().chat_id
    assert error_of(other.post(pack(body(chat_id=chat_id))))["code"] == "not_found"
    assert other.unary("ListMessages", {"chat_id": chat_id}).status_code == 404
    assert other.unary("DeleteChat", {"chat_id": chat_id}).json()["code"] == "not_found"
    assert other.unary("ListChats", {}).json()["chats"] == []


@pytest.mark.parametrize("place", ["parent_id", "id"])
def test_unknown_message(caller: Caller, place: str) -> None:
    chat_id = caller.chat().chat_id
    response = caller.post(pack(body(chat_id=chat_id, message=message(**{place: "m-nobody"}))))
    assert error_of(response)["code"] == "not_found"


def test_parent_without_a_chat(caller: Caller) -> None:
    answer = caller.chat()
    response = caller.post(pack(body(message=message(parent_id=answer.answer_id))))
    assert error_of(response)["code"] == "not_found"


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer nonsense", "Basic abc", "Bearer eyJhbGciOiJIUzUxMiJ9.e30.c2ln"]
)
def test_no_good_credential(caller: Caller, header: str | None) -> None:
    headers = {"content-type": "application/connect+json"} | ({"authorization": header} if header else {})
    response = caller.http.post(CHAT, content=pack(body()), headers=headers)
    assert response.status_code == 401
    assert response.json() == {"code": "unauthenticated", "message": "invalid token"}


def test_refresh_token_is_no_access_token(caller: Caller) -> None:
    caller.token = caller.tokens["refresh_token"]
    assert caller.post(pack(body())).status_code == 401


def test_the_cookie_alone_is_no_credential(caller: Caller) -> None:
    headers = {"content-type": "application/connect+json", "cookie": f"kimi-auth={caller.token}"}
    assert caller.http.post(CHAT, content=pack(body()), headers=headers).status_code == 401


def test_a_token_of_another_simulator(caller: Caller) -> None:
    with SimulatorServer() as foreign:
        caller.token = foreign.login()["access_token"]
    assert caller.post(pack(body())).status_code == 401


SWARM = {
    "scenario": "SCENARIO_OK_COMPUTER_SWARM",
    "kimiplus_id": "ok-computer",
    "agent_mode": "TYPE_ULTRA",
    "options": {"model": "k3-agent-swarm", "reasoning_effort": "REASONING_EFFORT_HIGH"},
}
LONG = {
    "scenario": "SCENARIO_OK_COMPUTER",
    "options": {"model": "k3-agent", "context_length": "CONTEXT_LENGTH_XL"},
}


@pytest.mark.parametrize(
    ("changes", "level"),
    [(SWARM, "LEVEL_BASIC"), (LONG, "LEVEL_ADVANCED"), ({"agent_mode": "TYPE_ULTRA"}, "LEVEL_BASIC")],
)
def test_paywall(server: SimulatorServer, changes: dict[str, Any], level: str) -> None:
    caller = Caller(server, user="plan", level="LEVEL_FREE")
    assert error_of(caller.post(pack(body(**changes)))) == {
        "code": "resource_exhausted",
        "message": "membership required",
        "details": [{"debug": {"paywall": {"minMembershipLevel": level}}}],
    }
    caller.token = server.login(user="plan", level=level)["access_token"]
    assert Answer(caller.post(pack(body(**changes)))).trailer == {}
    caller.close()


@pytest.mark.parametrize(
    ("scenario", "hint"),
    [
        ("overload_trailer", "overloaded_trailer"),
        ("fast farmes=3", "frames"),
        ("fast frames=many", "frames"),
        ("fast frames", "key=value"),
        ("split of=nothing", "nothing"),
        ("quota carrier=pigeon", "trailer, http"),
    ],
)
def test_unknown_scenario_or_parameter(caller: Caller, scenario: str, hint: str) -> None:
    response = caller.post(pack(body()), **{"x-sim-scenario": scenario})
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_argument"
    assert hint in response.json()["message"]
    assert caller.server.snapshot()["active_streams"] == 0


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("GET", "/apiv2/kimi.gateway.chat.v1.ChatService/ListChats", 405),
        ("POST", "/api/auth/token/refresh", 405),
        ("POST", "/apiv2/kimi.gateway.chat.v1.ChatService/Nonsense", 404),
        ("POST", "/apiv2/kimi.chat.v1.ChatService/GetChat", 404),
        ("POST", CHAT + "/", 404),
    ],
)
def test_wrong_verb_or_method(caller: Caller, verb: str, path: str, status: int) -> None:
    assert caller.http.request(verb, path, content=b"{}", headers=caller.headers()).status_code == status


def test_unary_strictness(caller: Caller) -> None:
    assert caller.unary("ListChats", {}, **{"content-type": "application/connect+json"}).status_code == 415
    assert caller.unary("ListChats", []).json() == {"code": "invalid_argument", "message": "expected a JSON object"}
    bad = caller.http.post(
        "/apiv2/kimi.gateway.chat.v1.ChatService/ListChats",
        content=b"{",
        headers=caller.headers(**{"content-type": "application/json"}),
    )
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid_argument")
    missing = caller.unary("GetChat", {})
    assert (missing.status_code, field_named(missing.json())) == (400, "chat_id")
    assert caller.unary("ListChats", {"page_token": "x"}).status_code == 400
    caller.token = "gone"
    assert caller.unary("ListChats", {}).status_code == 401


@pytest.mark.parametrize("service", ["kimi.gateway.chat.v1.ChatService", "kimi.chat.v1.ChatService"])
def test_unimplemented(caller: Caller, service: str) -> None:
    response = caller.unary(f"/apiv2/{service}/CreateChat", {})
    assert (response.status_code, response.json()["code"]) == (501, "unimplemented")
    cancelled = caller.unary(f"/apiv2/{service}/CancelChat", {"chat_id": caller.chat().chat_id})
    assert cancelled.status_code == (200 if "gateway" in service else 501)


def test_methods_can_be_taken_away(caller: Caller) -> None:
    caller.server.change(unimplemented=["kimi.gateway.chat.v1.ChatService/DeleteChat", "kimi.chat.v1.ChatService/Chat"])
    chat_id = caller.chat().chat_id
    assert caller.unary("DeleteChat", {"chat_id": chat_id}).status_code == 501
    assert caller.unary("/apiv2/kimi.chat.v1.ChatService/DeleteChat", {"chat_id": chat_id}).status_code == 200
    assert caller.post(pack(body()), path=CHAT_V1).status_code == 501


def test_what_is_accepted_all_the_same(caller: Caller) -> None:
    answer = caller.chat(
        messages=[{"role": "user", "content": "IGNORED"}],
        tools=[
            {"type": "TOOL_TYPE_FUNCTION", "function": {"name": "f"}},
            {"type": "TOOL_TYPE_DEVICE_TOOL", "name": "read_file"},
        ],
        projectId="",
        unheard_of=1,
    )
    assert answer.trailer == {}
    assert "IGNORED" not in answer.text
    last_request = next(one["chat"]["lastRequest"] for one in answer.events if one.get("mask") == "chat.lastRequest")
    assert last_request["tools"] == [{}, {"type": "TOOL_TYPE_DEVICE_TOOL", "name": "read_file"}]
