"""/kimi/api/accounts, /token/check, /kimi/ready, and who comes in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from kimi_provider.admin.door import COOKIE, CSRF_HEADER, MAX_GUESSES
from kimi_provider.store import StoredCooldown, StoredFailure
from tests.harness import Simulator

from .world import KEY, Site

CALLS = (
    ("GET", "/kimi/api/accounts"),
    ("POST", "/kimi/api/accounts"),
    ("GET", "/kimi/api/accounts/x"),
    ("DELETE", "/kimi/api/accounts/x"),
    ("POST", "/kimi/api/accounts/x/check"),
    ("POST", "/kimi/api/accounts/x/refresh"),
    ("POST", "/kimi/api/accounts/x/enable"),
    ("POST", "/kimi/api/accounts/x/disable"),
    ("POST", "/token/check"),
)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer é"])
def test_nothing_opens_without_the_key(site: Site, authorization: str) -> None:
    for method, path in CALLS:
        answer = site.http.request(method, path, headers={"authorization": authorization.encode()}, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_signed_in"), path


def test_without_a_master_key_nobody_comes_in(state_url: str, simulator: Simulator) -> None:
    with Site(state_url, simulator, key=None) as site:
        for said in ("Bearer", "Bearer None", "None"):
            assert site.http.get("/kimi/api/accounts", headers={"authorization": said}).status_code == 401
        answer = site.http.post("/kimi/session", data={"key": ""}, headers={"origin": site.origin})
        assert answer.status_code == 403
        assert COOKIE not in answer.cookies
        assert "no master key" in site.http.get("/kimi/accounts").text


# --- accounts ---


def test_an_account_over_the_api(site: Site) -> None:
    tokens = site.simulator.login("ada", level="LEVEL_BASIC")
    answer = site.http.post("/kimi/api/accounts", json={"credential": json.dumps(tokens)})
    assert answer.status_code == 201
    (added,) = answer.json()["added"]
    assert added.items() >= {"outcome": "added", "kind": "refresh", "plan": "Moderato", "region": "overseas"}.items()
    path = f"/kimi/api/accounts/{added['id']}"
    assert site.http.get(f"/kimi/api/accounts/{added['id'][:5]}").json()["id"] == added["id"]
    assert site.http.post(f"{path}/check").json() == {
        "live": True, "short_id": added["short_id"], "reason": None, "code": None,
    }  # fmt: skip
    assert site.http.post(f"{path}/disable").json()["state"] == "paused"
    assert site.http.post(f"{path}/enable").json()["state"] == "ok"
    assert site.http.post(f"{path}/refresh").json()["state"] == "ok"
    again = site.http.post("/kimi/api/accounts", json={"credential": tokens["refresh_token"]}).json()["added"]
    assert [one["outcome"] for one in again] == ["updated"]
    assert site.http.delete(path).json() == {"id": added["id"], "removed": True, "still_in_kimi_token": False}
    assert site.http.get(path).status_code == 404
    assert site.rows() == []


def test_an_old_account_keeps_its_name_when_its_user_is_known(site: Site) -> None:
    dan = site.add("dan", kind="opaque")
    assert (dan["kind"], dan["short_id"][0]) == ("opaque", "#")
    assert site.http.post(f"/kimi/api/accounts/{dan['id']}/check").json()["live"] is True
    assert [row["short_id"] for row in site.rows()] == [dan["short_id"]]


def test_a_recording_is_the_body_itself(site: Site) -> None:
    token = site.simulator.login("ada")["access_token"]
    request = {"url": f"{site.simulator.url}/x", "headers": [{"name": "Cookie", "value": f"kimi-auth={token}"}]}
    body = json.dumps({"log": {"entries": [{"pad": "x" * 2_000_000}, {"request": request}]}})
    answer = site.http.post("/kimi/api/accounts", content=body)
    assert answer.json()["added"][0]["missing"] == "dies in 15 min and has no refresh partner"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"hello", b'{"credential": 5}', b'{"credential": "nothing here"}', b"\xff"]
)
def test_a_body_without_a_credential(site: Site, body: bytes) -> None:
    answer = site.http.post("/kimi/api/accounts", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "credential_missing")


def test_demo_and_real_never_mix(tmp_path: Path, simulator: Simulator) -> None:
    from tests.accounts.fakes import refresh

    with Site(f"sqlite:///{tmp_path}/demo.db", simulator, kimi_demo=True) as demo:
        answer = demo.http.post("/kimi/api/accounts", json={"credential": refresh()})
        assert answer.status_code == 403
        assert "kimi-provider accounts add" in answer.json()["error"]["message"]
        assert demo.rows() == []
        assert demo.add("ada")["simulated"] is True
    with Site(f"sqlite:///{tmp_path}/real.db", simulator) as real:
        real.roster._settings = real.settings.model_copy(update={"kimi_base_url": "https://www.kimi.com"})
        token = simulator.login("ada")["refresh_token"]
        answer = real.http.post("/kimi/api/accounts", json={"credential": token})
        assert (answer.status_code, real.rows()) == (403, [])
        assert "simulator" in answer.json()["error"]["message"]


def test_without_a_store_accounts_can_be_seen_and_not_removed(simulator: Simulator) -> None:
    with Site("sqlite://", simulator) as site:
        ada = site.add("ada")
        assert site.http.get("/kimi/api/accounts").json()["durable"] is False
        assert site.http.post(f"/kimi/api/accounts/{ada['id']}/check").json()["live"] is True
        answer = site.http.delete(f"/kimi/api/accounts/{ada['id']}")
        assert answer.status_code == 400
        assert "KIMI_STATE_URL" in answer.json()["error"]["message"]


def test_a_store_that_can_not_be_written_is_said_and_nothing_is_lost(site: Site) -> None:
    ada = site.add("ada")
    with site.with_store_that_says(site.read_only), site.signed_in() as (client, own):
        answer = site.http.post(f"/kimi/api/accounts/{ada['id']}/disable")
        said = client.post("/kimi/accounts/pause", data={"account": ada["id"]}, headers=own)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    for text in (answer.json()["error"]["message"], said.text):
        assert "Check the disk" in text or "Check KIMI_STATE_URL" in text
    assert said.status_code == 503
    assert [(row["id"], row["state"]) for row in site.rows()] == [(ada["id"], "ok")]


def test_ready_without_the_store_says_what_this_process_knows(site: Site) -> None:
    site.add("ada")
    with site.with_store_that_says("SELECT * FROM gone"):
        ready = site.http.get("/kimi/ready").json()
    assert ready["usable"] == 1
    assert "can't be used now" in ready["hint"]


# --- /token/check ---


def test_tokens_are_checked_without_a_prompt(site: Site) -> None:
    tokens = site.simulator.login("ada")
    for token in (tokens["access_token"], tokens["refresh_token"]):
        found = site.http.post("/token/check", json={"token": token}).json()
        assert found["live"] is True
        assert token not in json.dumps(found)
    assert [(row["shared"], row["state"]) for row in site.rows()] == [(False, "ok")], "kept, but not shared"
    paths = {request["path"].rsplit("/", 1)[-1] for request in site.simulator.state()["requests"]}
    assert "Chat" not in paths
    site.simulator.control("revoke", user="ada", what="all")
    dead = site.http.post("/token/check", json={"token": site.simulator.login("bob")["access_token"]})
    assert dead.json()["live"] is True
    dead = site.http.post("/token/check", json={"token": tokens["refresh_token"]})
    assert (dead.status_code, dead.json()["live"]) == (200, False)
    assert dead.json()["reason"]


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ({"token": 5}, 400), ([], 400), ({"token": "hello"}, 401), ({"token": ""}, 401)]
)
def test_what_is_no_token(site: Site, body: Any, status: int) -> None:
    assert site.http.post("/token/check", json=body).status_code == status


# --- /kimi/ready ---


def test_ready_says_why_not(site: Site) -> None:
    def ready() -> httpx.Response:
        return httpx.get(f"{site.url}/kimi/ready", trust_env=False)  # no key

    none = ready()
    assert (none.status_code, none.json()["ready"]) == (503, False)
    assert "kimi-provider accounts add" in none.json()["reason"]
    ada = site.add("ada")
    well = ready()
    assert (well.status_code, well.json()["usable"], well.json()["reason"]) == (200, 1, None)
    assert ada["short_id"] not in well.text
    site.http.post(f"/kimi/api/accounts/{ada['id']}/disable")
    assert "1 paused" in ready().json()["reason"]
    site.http.post(f"/kimi/api/accounts/{ada['id']}/enable")
    store = site.roster.store
    assert store is not None
    failure = StoredFailure(code="rate_limited", message="slow down")
    with store.write() as rows:
        rows.accounts.cool(StoredCooldown(account_id=ada["id"], scope="", failure=failure, hard=True, left_s=90))
    cooling = ready()
    assert cooling.status_code == 503
    assert 0 < int(cooling.headers["retry-after"]) <= 90


def test_ready_repeats_what_threatens_the_accounts(simulator: Simulator) -> None:
    with Site("sqlite://", simulator) as site:
        hint = httpx.get(f"{site.url}/kimi/ready", trust_env=False).json()["hint"]
        assert "KIMI_STATE_URL" in hint
        assert "KIMI_SECRET_KEY" in hint


# --- the session ---


def test_the_session_is_a_sealed_cookie_that_every_worker_knows(state_url: str, simulator: Simulator) -> None:
    with Site(state_url, simulator) as one, Site(state_url, simulator) as two, one.signed_in() as (client, own):
        cookie = client.cookies[COOKIE]
        there = httpx.get(f"{two.url}/kimi/api/accounts", cookies={COOKIE: cookie}, trust_env=False)
        assert there.status_code == 200
        changed = httpx.post(
            f"{two.url}/kimi/api/accounts", cookies={COOKIE: cookie}, headers=own | {"origin": two.origin},
            json={"credential": simulator.login("ada")["refresh_token"]}, trust_env=False,
        )  # fmt: skip
        assert changed.status_code == 201
        one.key = "sk-another-0123456789abcdef0123456789"
        assert client.get("/kimi/api/accounts").status_code == 401, "a new key ends every session"


def test_the_cookie_is_kept_from_scripts_and_other_sites(site: Site) -> None:
    answer = httpx.post(f"{site.url}/kimi/session", data={"key": KEY}, headers={"origin": site.origin}, trust_env=False)
    flags = answer.headers["set-cookie"]
    assert answer.status_code == 303
    for flag in ("HttpOnly", "SameSite=strict", "Max-Age=43200"):
        assert flag in flags
    assert "Path" not in flags, "the browser takes /kimi below any prefix"
    assert KEY not in str(answer.headers)


@pytest.mark.parametrize("cookie", ["", "x", "gAAAAA", "é", "a" * 5000])
def test_a_made_up_session_opens_nothing(site: Site, cookie: str) -> None:
    headers = [(b"cookie", f"{COOKIE}={cookie}".encode())]
    answer = httpx.get(f"{site.url}/kimi/api/accounts", headers=headers, trust_env=False)
    assert answer.status_code == 401


CHANGES = ("add", "check", "refresh", "pause", "resume", "remove")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_without_the_page_s_own_token_is_refused(site: Site, change: str) -> None:
    ada = site.add("ada")
    with site.signed_in() as (client, own):
        for forged in ({}, {CSRF_HEADER: ""}, {CSRF_HEADER: "0" * 64}, {CSRF_HEADER: own[CSRF_HEADER][:-1]}):
            answer = client.post(
                f"/kimi/accounts/{change}", data={"account": ada["id"]}, headers={"origin": site.origin} | forged
            )
            assert (answer.status_code, "did not come from this page" in answer.text) == (403, True)
        assert client.delete(f"/kimi/api/accounts/{ada['id']}", headers={"origin": site.origin}).status_code == 403
    assert [row["state"] for row in site.rows()] == ["ok"]


@pytest.mark.parametrize(
    "foreign",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    ],
)
def test_another_site_s_script_neither_changes_nor_reads(site: Site, foreign: dict[str, str]) -> None:
    ada = site.add("ada")
    with site.signed_in() as (client, own):
        token = {CSRF_HEADER: own[CSRF_HEADER]}
        answer = client.post("/kimi/accounts/remove", data={"account": ada["id"]}, headers=token | foreign)
        assert answer.status_code == 403
        if "origin" in foreign:  # a script that could read the answer says where it comes from
            assert own[CSRF_HEADER] not in client.get("/kimi/accounts", headers=foreign).text
            assert client.get("/kimi/api/accounts", headers=foreign).status_code == 401
        for key in (KEY, *["sk-wrong"] * MAX_GUESSES):
            assert client.post("/kimi/session", data={"key": key}, headers=foreign).status_code == 403
    with site.signed_in():  # another site can't use up the owner's guesses
        assert len(site.rows()) == 1


def test_guesses_are_counted_for_all_workers_together(state_url: str, simulator: Simulator) -> None:
    with Site(state_url, simulator) as one, Site(state_url, simulator) as two:

        def guess(site: Site, key: str) -> httpx.Response:
            headers = {"origin": site.origin}
            return httpx.post(f"{site.url}/kimi/session", data={"key": key}, headers=headers, trust_env=False)

        for number in range(MAX_GUESSES):
            assert guess((one, two)[number % 2], f"sk-{number}").status_code == 403
        for site in (one, two):
            late = guess(site, KEY)
            assert late.status_code == 429, "even the right one waits"
            assert 0 < int(late.headers["retry-after"]) <= 901
            assert "Too many wrong keys" in late.text
            assert COOKIE not in late.cookies
        assert one.http.get("/kimi/api/accounts").status_code == 200


# --- no secret anywhere ---


def test_nothing_that_is_shown_holds_a_secret(site: Site) -> None:
    from tests.security.needles import Needles

    needles = Needles()
    needles.add("key", KEY)
    with site.signed_in() as (client, own):
        for user, more in {"ada": {}, "bob": {"kind": "opaque"}, "carol": {"kind": "cookie"}}.items():
            tokens = site.simulator.login(user, **more)
            for name, token in tokens.items():
                if name != "user_id":
                    needles.add(f"{user}'s {name}", token)
            given = tokens.get("refresh_token") or tokens["kimi_auth"]
            said = client.post("/kimi/accounts/add", data={"credential": given}, headers=own)
            assert said.status_code == 200
            assert needles.found_in(said.text) == []
        for row in site.rows():
            for change in ("check", "refresh", "pause", "resume"):
                said = client.post(f"/kimi/accounts/{change}", data={"account": row["id"]}, headers=own)
                assert needles.found_in(said.text + str(said.headers)) == []
        for path in ("/kimi/accounts", "/kimi/accounts/table", "/kimi/api/accounts", "/kimi/ready"):
            assert needles.found_in(client.get(path).text) == [], path
        answer = client.get("/kimi/accounts")
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "<style" not in answer.text
        assert " style=" not in answer.text
        assert "hx-on" not in answer.text
        assert answer.text.count("<script") == 1
    assert os.environ.get("KIMI_TOKEN") is None
