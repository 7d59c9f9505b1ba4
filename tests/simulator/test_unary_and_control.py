"""Lists, models, and everything under /_sim."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from kimi_provider.simulator import SimulatorServer

from .wire import CHAT, Caller, body, pack

MODELS = "/apiv2/kimi.gateway.config.v1.ConfigService/GetAvailableModels"
DELETE = "/apiv2/{}/DeleteChat"


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("2.3.0", ["k2d6", "k28-preview", "k3", "k3-agent-ultra"]),
        ("2.1.0", ["k2d6", "k28-preview", "k3", "k3-agent-ultra"]),
        ("2.0.0", ["k2d6", "k3", "k3-agent-ultra"]),
        ("1.0.0", ["k2d6", "k2d6-thinking", "k2d6-agent", "k2d6-agent-ultra"]),
        (None, ["k2d6", "k2d6-thinking", "k2d6-agent", "k2d6-agent-ultra"]),
    ],
)
def test_models_by_version_and_without_login(server: SimulatorServer, version: str | None, keys: list[str]) -> None:
    headers = {"x-msh-version": version} if version else {}
    listed = httpx.post(server.url + MODELS, json={}, headers=headers, trust_env=False).json()
    assert [model["key"] for model in listed["availableModels"]] == keys
    if len(keys) == 4 and "k3" in keys:
        assert listed["defaultScenario"] == {"scenario": "SCENARIO_CHAT", "model": "k2d6-chat"}
        assert listed["availableModels"][1]["label"] == ["Preview"]


def test_models_strictness(server: SimulatorServer) -> None:
    assert httpx.get(server.url + MODELS, trust_env=False).status_code == 405
    assert httpx.post(server.url + MODELS, content=b"{}", trust_env=False).status_code == 415


@pytest.mark.parametrize("service", ["kimi.gateway.chat.v1.ChatService", "kimi.chat.v1.ChatService"])
def test_delete_chat(caller: Caller, service: str) -> None:
    chat_id = caller.chat().chat_id
    assert caller.unary(DELETE.format(service), {"chat_id": chat_id}).json() == {}
    state = caller.server.snapshot()
    assert (state["chats"], state["deleted"]) == ([], [chat_id])
    again = caller.unary(DELETE.format(service), {"chat_id": chat_id})
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    assert caller.chat(chat_id=chat_id).trailer["error"]["code"] == "not_found"


def test_list_chats_pages_and_queries(caller: Caller) -> None:
    made = [caller.chat(prompt).chat_id for prompt in ("Red apples", "Green pears", "Green apples")]
    first = caller.unary("ListChats", {"page_size": 2, "page_token": "", "query": "", "project_id": ""}).json()
    assert [chat["id"] for chat in first["chats"]] == [made[2], made[1]]
    second = caller.unary("ListChats", {"pageSize": 2, "pageToken": first["nextPageToken"]}).json()
    assert [chat["id"] for chat in second["chats"]] == [made[0]]
    assert not second["nextPageToken"]
    hits = caller.unary("/apiv2/kimi.chat.v1.ChatService/ListChats", {"query": "APPLES"}).json()["chats"]
    assert [chat["name"] for chat in hits] == ["Green <em>apples</em>", "Red <em>apples</em>"]


def test_get_chat(caller: Caller) -> None:
    answer = caller.chat("Hello", options={"thinking": True, "model": "k2d6-chat"})
    chat = caller.unary("GetChat", {"chat_id": answer.chat_id}).json()["chat"]
    assert (chat["id"], chat["name"], chat["status"]) == (answer.chat_id, "Hello", "STATUS_COMPLETED")
    assert chat["lastRequest"]["options"] == {"thinking": True, "model": "k2d6-chat"}
    assert chat["messageContent"].startswith("[simulator] ")


def test_a_running_chat_reads_generating(caller: Caller) -> None:
    with caller.stream("hang_mid_text") as response:
        chunks = response.iter_raw()
        data = b""
        while b"Then silence" not in data:
            data += next(chunks)
        (listed,) = caller.unary("ListChats", {}).json()["chats"]
        assert caller.unary("GetChat", {"chat_id": listed["id"]}).json()["chat"]["status"] == "STATUS_GENERATING"
        newest = caller.unary("ListMessages", {"chat_id": listed["id"]}).json()["messages"][0]
        assert newest["status"] == "MESSAGE_STATUS_GENERATING"


def test_list_messages_pages_newest_first(caller: Caller) -> None:
    first = caller.chat("One")
    second = caller.go_on(first, "Two")
    everything = caller.unary("ListMessages", {"chat_id": first.chat_id, "page_size": 100}).json()
    roles = [message["role"] for message in everything["messages"]]
    assert roles == ["assistant", "user", "assistant", "user", "system"]
    assert everything["messages"][0]["id"] == second.answer_id
    assert "nextPageToken" not in everything
    page = caller.unary("ListMessages", {"chat_id": first.chat_id, "page_size": 2}).json()
    rest = caller.unary("ListMessages", {"chat_id": first.chat_id, "page_token": page["nextPageToken"]}).json()
    assert page["messages"] + rest["messages"] == everything["messages"]


def control(caller: Caller, name: str, value: Any) -> httpx.Response:
    return caller.http.post(f"/_sim/{name}", json=value)


def test_the_record_of_requests(caller: Caller) -> None:
    assert caller.http.get("/_sim/state").json()["bytes_received"] == 0
    caller.chat("Hello")
    caller.http.post(
        "/api/account.gateway.v1.AuthService/RefreshToken", json={"refresh_token": caller.tokens["refresh_token"]}
    )
    response = caller.http.get("/_sim/state")
    state = response.json()
    assert state["bytes_received"] > len(pack(body("Hello")))
    chat, refresh = state["requests"]
    assert (chat["method"], chat["path"], chat["body"]) == ("POST", CHAT, body("Hello"))
    assert chat["headers"]["authorization"].startswith("sha256:")
    assert refresh["body"]["refresh_token"].startswith("sha256:")
    assert state["refreshes"] == 1
    for secret in caller.tokens.values():
        assert secret not in response.text or secret == caller.tokens["user_id"]


def test_the_record_is_bounded_and_reset(caller: Caller) -> None:
    for _ in range(205):
        caller.http.get("/nothing")
    assert len(caller.http.get("/_sim/state").json()["requests"]) == 200
    caller.chat()
    caller.server.queue("quota")
    caller.server.change(max_streams=1)
    assert control(caller, "reset", {}).json() == {}
    state = caller.http.get("/_sim/state").json()
    for name in ("requests", "chats", "cancelled", "deleted", "queue"):
        assert state[name] == []
    for name in ("active_streams", "peak_streams", "total_streams", "bytes_received", "refreshes"):
        assert state[name] == 0
    assert state["settings"]["max_streams"] == 2
    assert caller.chat().trailer == {}  # the account is still logged in


def test_login_kinds(caller: Caller) -> None:
    assert set(control(caller, "login", {}).json()) == {"access_token", "refresh_token", "user_id"}
    assert set(control(caller, "login", {"kind": "cookie"}).json()) == {"kimi_auth", "user_id"}
    assert set(control(caller, "login", {"kind": "opaque"}).json()) == {"refresh_token", "user_id"}
    one, two = (control(caller, "login", {"user": "same"}).json() for _ in range(2))
    assert one["user_id"] == two["user_id"]
    assert one["access_token"] != two["access_token"]
    assert control(caller, "login", {}).json()["user_id"] != control(caller, "login", {}).json()["user_id"]


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("login", {"kind": "pear"}, "kind"),
        ("login", {"level": "LEVEL_GOLD"}, "level"),
        ("login", {"region": "moon"}, "region"),
        ("login", {"expires_in": "soon"}, "expires_in"),
        ("login", {"user": 5}, "user"),
        ("login", [], "object"),
        ("settings", {"max_stream": 3}, "max_streams"),
        ("settings", {"max_streams": "3"}, "max_streams"),
        ("settings", {"max_streams": 1.5}, "max_streams"),
        ("settings", {"max_streams": True}, "max_streams"),
        ("settings", {"empty_chat_id_refused": 1}, "empty_chat_id_refused"),
        ("scenario", {"name": "nonsense"}, "nonsense"),
        ("scenario", {"name": "fast", "params": {"frame": 1}}, "frames"),
        ("scenario", {"name": "fast", "params": []}, "params"),
        ("scenario", {"name": "fast", "times": 0}, "times"),
    ],
)
def test_control_mistakes(caller: Caller, name: str, value: Any, hint: str) -> None:
    response = control(caller, name, value)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_argument")
    assert hint in response.json()["message"]


def test_control_settings_and_revoke(caller: Caller) -> None:
    changed = control(caller, "settings", {"max_streams": 5, "access_ttl_s": 1.5, "pace": 0}).json()
    assert (changed["max_streams"], changed["access_ttl_s"]) == (5, 1.5)
    assert control(caller, "revoke", {"user": "nobody"}).status_code == 404
    assert caller.http.post("/_sim/settings", content=b"{").status_code == 400


def test_control_queue(caller: Caller) -> None:
    assert control(caller, "scenario", {"name": "say", "params": {"text": "One two"}, "times": 1}).json() == {
        "queued": 1
    }
    assert caller.http.get("/_sim/state").json()["queue"] == [
        {"name": "say", "params": {"text": "One two"}, "times": 1}
    ]
    assert caller.chat().text == "One two"
    assert control(caller, "scenario", {"name": "quota", "params": {}, "times": None}).json() == {"queued": 1}
    assert control(caller, "scenario", {"name": None}).json() == {}
    assert caller.chat().text.startswith("[simulator] ")


def test_scenarios_are_described(caller: Caller) -> None:
    rows = caller.http.get("/_sim/scenarios").json()
    assert len({row["name"] for row in rows}) == len(rows) > 50
    assert all(row["description"] and isinstance(row["params"], dict) for row in rows)


def test_the_face(caller: Caller) -> None:
    face = caller.http.get("/")
    assert face.headers["content-type"].startswith("text/plain")
    assert "simulator" in face.text
    assert "no affiliation with Moonshot AI" in face.text
