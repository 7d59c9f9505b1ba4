"""Tokens, their claims, their ends, and the rotation of refresh tokens."""

from __future__ import annotations

import re
from typing import Any

import httpx
import jwt
import pytest

from kimi_provider.simulator import SIMULATOR_CLAIM, Simulator, SimulatorServer, SimulatorSettings

from .wire import Caller, body, pack

FORM_2 = "/api/account.gateway.v1.AuthService/RefreshToken"
FORM_1 = "/api/auth/token/refresh"
WHO = "/apiv2/kimi.gateway.account.v1.UserService/GetCurrentUser"


def claims_of(token: str) -> dict[str, Any]:
    assert jwt.get_unverified_header(token)["alg"] == "HS512"
    return jwt.decode(token, options={"verify_signature": False})


def form_2(server: SimulatorServer, token: str, name: str = "refresh_token") -> httpx.Response:
    return httpx.post(server.url + FORM_2, json={name: token}, trust_env=False)


def form_1(server: SimulatorServer, token: str) -> httpx.Response:
    return httpx.get(server.url + FORM_1, headers={"authorization": f"Bearer {token}"}, trust_env=False)


def works(caller: Caller, token: str) -> bool:
    caller.token = token
    return caller.unary(WHO, {}).status_code == 200


def test_claims_of_the_new_generation(server: SimulatorServer) -> None:
    tokens = server.login("ada", region="overseas")
    access, refresh = claims_of(tokens["access_token"]), claims_of(tokens["refresh_token"])
    for claims in (access, refresh):
        assert (claims["iss"], claims["aud"], claims["app_id"]) == ("account", ["kimi.ai"], "kimi")
        assert re.fullmatch(r"[0-9a-v]{20}", claims["sub"])
        assert claims["sub"] == tokens["user_id"]
        assert re.fullmatch(r"17\d{17}", claims["ssid"])
        assert re.fullmatch(r"7[0-9]\d{17}", claims["device_id"])
        assert claims["region"] == "overseas"
        assert claims["membership"] == {"level": 10}
        assert claims["code_membership"] == {"level": 10}
        assert claims[SIMULATOR_CLAIM] is True
        assert "space_id" not in claims
    assert (access["typ"], refresh["typ"]) == ("access", "refresh")
    assert access["exp"] - access["iat"] == 900
    assert refresh["exp"] - refresh["iat"] == 7_776_000
    assert access["jti"] != refresh["jti"]


def test_claims_of_the_cookie(server: SimulatorServer) -> None:
    claims = claims_of(server.login("ada", kind="cookie")["kimi_auth"])
    assert (claims["iss"], claims["typ"], claims["region"]) == ("user-center", "access", "cn")
    assert "aud" not in claims
    assert "code_membership" not in claims
    assert claims["space_id"]
    assert claims["exp"] - claims["iat"] == 30 * 86400


def test_the_cookie_works_as_a_bearer(caller: Caller) -> None:
    assert works(caller, caller.server.login("ada", kind="cookie")["kimi_auth"])


@pytest.mark.parametrize("name", ["refresh_token", "refreshToken"])
def test_rotation_kills_the_old_refresh_token(caller: Caller, name: str) -> None:
    first = caller.tokens["refresh_token"]
    answer = form_2(caller.server, first, name)
    assert answer.status_code == 200
    pair = answer.json()
    assert set(pair) == {"accessToken", "refreshToken"}
    assert pair["refreshToken"] != first
    assert works(caller, pair["accessToken"])
    dead = form_2(caller.server, first, name)
    assert (dead.status_code, dead.json()) == (401, {"code": "unauthenticated", "message": "session expired"})
    assert form_1(caller.server, first).status_code == 401
    assert form_2(caller.server, pair["refreshToken"], name).status_code == 200
    assert caller.server.snapshot()["refreshes"] == 2


def test_sessions_rotate_apart(server: SimulatorServer) -> None:
    browser, ours = server.login("ada"), server.login("ada")
    assert form_2(server, ours["refresh_token"]).status_code == 200
    assert form_2(server, browser["refresh_token"]).status_code == 200


def test_legacy_refresh(caller: Caller) -> None:
    first = caller.tokens["refresh_token"]
    pair = form_1(caller.server, first).json()
    assert set(pair) == {"access_token", "refresh_token"}
    assert works(caller, pair["access_token"])
    dead = form_1(caller.server, first)
    assert (dead.status_code, dead.json()["error_type"]) == (401, "auth.token.invalid")
    caller.server.change(legacy_refresh_rotates=False)
    kept = form_1(caller.server, pair["refresh_token"]).json()
    assert kept["refresh_token"] == pair["refresh_token"]
    assert works(caller, kept["access_token"])


def test_opaque_refresh_tokens_know_form_1_only(caller: Caller) -> None:
    token = caller.server.login("ada", kind="opaque")["refresh_token"]
    assert "." not in token
    assert form_2(caller.server, token).status_code == 401
    assert works(caller, form_1(caller.server, token).json()["access_token"])


def test_what_does_not_refresh(caller: Caller) -> None:
    assert form_2(caller.server, caller.tokens["access_token"]).status_code == 401
    assert form_2(caller.server, "nonsense").status_code == 401
    empty = httpx.post(caller.server.url + FORM_2, json={}, trust_env=False)
    assert (empty.status_code, empty.json()["code"]) == (400, "invalid_argument")
    enveloped = httpx.post(caller.server.url + FORM_2, content=pack({}), headers=caller.headers(), trust_env=False)
    assert enveloped.status_code == 415
    expired = caller.server.login("ada", refresh_expires_in=-1)["refresh_token"]
    assert form_2(caller.server, expired).status_code == 401


def test_an_access_token_expires() -> None:
    now_s = 1_790_000_000.0
    simulator = Simulator(clock=lambda: now_s, settings=SimulatorSettings(access_ttl_s=60))
    with SimulatorServer(simulator) as server:
        caller = Caller(server, user="ada")
        assert works(caller, caller.token)
        now_s += 59
        assert works(caller, caller.token)
        now_s += 1
        assert not works(caller, caller.token)
        assert caller.post(pack(body())).json() == {"code": "unauthenticated", "message": "invalid token"}
        assert works(caller, form_2(server, caller.tokens["refresh_token"]).json()["accessToken"])
        caller.close()


def test_expires_in_at_login(caller: Caller) -> None:
    assert not works(caller, caller.server.login("ada", expires_in=-5)["access_token"])
    caller.server.change(access_ttl_s=5)
    claims = claims_of(caller.server.login("ada")["access_token"])
    assert claims["exp"] - claims["iat"] == 5


@pytest.mark.parametrize(
    ("what", "access", "refresh"), [("all", False, False), ("access", False, True), ("refresh", True, False)]
)
def test_revoke(caller: Caller, what: str, access: bool, refresh: bool) -> None:
    answer = caller.http.post("/_sim/revoke", json={"user": "ada", "what": what})
    assert answer.status_code == 200
    assert works(caller, caller.tokens["access_token"]) is access
    assert (form_2(caller.server, caller.tokens["refresh_token"]).status_code == 200) is refresh
    again = caller.server.login("ada")
    assert works(caller, again["access_token"])
    assert form_2(caller.server, again["refresh_token"]).status_code == 200


def test_a_restarted_simulator_knows_its_tokens() -> None:
    with SimulatorServer(Simulator(key=b"kept")) as server:
        tokens = server.login("ada", level="LEVEL_BASIC")
    with SimulatorServer(Simulator(key=b"kept")) as server:
        caller = Caller(server, user="somebody else")
        caller.token = tokens["access_token"]
        assert caller.unary(WHO, {}).json()["user"]["id"] == tokens["user_id"]
        pair = form_2(server, tokens["refresh_token"]).json()
        assert works(caller, pair["accessToken"])
        assert form_2(server, tokens["refresh_token"]).status_code == 401
        assert claims_of(pair["accessToken"])["membership"] == {"level": 20}
        caller.close()


def test_401_then_success_after_refresh(caller: Caller) -> None:
    for _ in range(2):
        stale = caller.post(pack(body()), **{"x-sim-scenario": "stale_token"})
        assert (stale.status_code, stale.json()) == (401, {"code": "unauthenticated", "message": "invalid token"})
    assert caller.unary(WHO, {}).status_code == 401
    caller.token = form_2(caller.server, caller.tokens["refresh_token"]).json()["accessToken"]
    assert caller.chat(play="stale_token").text == "Answered after a refresh."
    assert caller.chat().trailer == {}


def test_who_am_i(caller: Caller) -> None:
    user = caller.unary(WHO, {}).json()["user"]
    assert user["id"] == caller.tokens["user_id"]
    assert (user["nickname"], user["region"], user["phone"]) == ("ada", "REGION_OVERSEA", {})
    assert set(user) == {"id", "nickname", "avatar", "phone", "region", "globalId"}
