"""The page where users meet it: mounted on LiteLLM's proxy, below a prefix, with two workers, and in demo mode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from kimi_provider.admin.door import CSRF_HEADER
from tests.cli.running import Serve
from tests.harness import MASTER_KEY, Simulator

PREFIX = "/team/ai"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Serve]:
    """Real mode without KIMI_TOKEN: its one deployment lives on what is in the store."""
    tmp = tmp_path_factory.mktemp("served")
    (tmp / "config.yaml").write_text(
        "model_list: [{model_name: kimi, litellm_params: {model: kimi/kimi-latest}}]\n"
        "litellm_settings: {custom_provider_map: [{provider: kimi, custom_handler: "
        "kimi_provider.litellm_bridge.handler}]}\n"
        "general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n"
    )
    token = simulator_process.login("first")["refresh_token"]
    with Serve(
        tmp, "--config", "config.yaml", "--workers", "2",
        LITELLM_MASTER_KEY=MASTER_KEY, SERVER_ROOT_PATH=PREFIX, KIMI_LANG="id", KIMI_TOKEN=token,
        KIMI_BASE_URL=simulator_process.url, KIMI_AUTH_URL=simulator_process.url, KUBERNETES_SERVICE_HOST="10.0.0.1",
    ) as gateway:  # fmt: skip
        yield gateway


def test_the_page_on_two_workers_below_a_prefix(gateway: Serve, simulator: Simulator, browser: Browser) -> None:
    complaints: list[str] = []
    context = browser.new_context(locale="id-ID")
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
    page.goto(f"{gateway.url}{PREFIX}/kimi")
    page.get_by_role("link", name="Akun").click()
    page.get_by_label("Kunci utama").fill(MASTER_KEY)
    page.get_by_role("button", name="Masuk").click()
    token = simulator.login("ada")["refresh_token"]
    page.get_by_label("Tempel refresh_token").fill(token)
    page.get_by_role("button", name="Tambah").click()
    expect(page.locator("#message")).to_contain_text("ditambahkan: token refresh", timeout=60_000)
    expect(page.locator(".accounts tbody tr")).to_have_count(2, timeout=60_000)
    for _ in range(6):  # whichever worker answers
        page.reload()
        expect(page.locator(".accounts tbody tr")).to_have_count(2, timeout=60_000)
    cookie = context.cookies()[0]
    assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == (f"{PREFIX}/kimi", True, "Strict")
    assert complaints == []
    assert "/kimi/accounts" in gateway.output
    assert "/kimi/accounts/table" not in gateway.output, "a line every two seconds would bury the others"
    assert token[-40:] not in page.content() + gateway.output
    context.close()


def test_what_threatens_the_accounts_is_said_at_the_start_and_when_asked(gateway: Serve) -> None:
    told = [line for line in gateway.output.splitlines() if "KIMI_STATE_URL=postgresql://" in line]
    assert len(told) == 2, "one line of each worker"
    hint = httpx.get(f"{gateway.url}{PREFIX}/kimi/ready", trust_env=False).json()["hint"]
    for said in (*told, hint):
        assert "KIMI_SECRET_KEY" in said
        assert said.endswith(hint)


def test_an_account_that_is_added_answers(gateway: Serve, simulator: Simulator) -> None:
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    with httpx.Client(base_url=f"{gateway.url}{PREFIX}", headers=headers, trust_env=False, timeout=60) as http:
        for row in http.get("/kimi/api/accounts").json()["accounts"]:
            http.delete(f"/kimi/api/accounts/{row['id']}")
        assert http.get("/kimi/ready").status_code == 503
        given = {"credential": simulator.login("grace")["refresh_token"]}
        assert http.post("/kimi/api/accounts", json=given).status_code == 201
        assert http.get("/kimi/ready").json()["usable"] == 1
        body = {"model": "kimi", "messages": [{"role": "user", "content": "Hi"}]}
        for _ in range(4):
            answer = http.post("/v1/chat/completions", json=body)
            while answer.status_code != 200:  # the other worker learns of it within two seconds
                assert "akun" in answer.text.lower(), answer.text
                answer = http.post("/v1/chat/completions", json=body)
        found = http.post("/token/check", json={"token": simulator.login("bob")["access_token"]}).json()
        assert found["live"] is True
        assert http.get("/kimi/api/accounts", headers={"authorization": "Bearer sk-wrong"}).status_code == 401


def test_a_demo_shows_its_own_accounts(tmp_path: Path) -> None:
    with (
        Serve(tmp_path, LITELLM_MASTER_KEY=MASTER_KEY) as demo,
        httpx.Client(base_url=demo.url, trust_env=False, timeout=60) as http,
    ):
        assert http.get("/kimi/ready").json() == {
            "ready": True, "usable": 2, "accounts": {"ok": 2}, "reason": None, "hint": None,
        }  # fmt: skip
        http.post("/kimi/session", data={"key": MASTER_KEY}, headers={"origin": demo.url})
        page = http.get("/kimi/accounts").text
        assert "Demo mode" in page
        assert len(re.findall(r'id="pause-', page)) == 2
        csrf = page.split('"x-csrf-token": "')[1].split('"')[0]
        said = http.post(
            "/kimi/accounts/add",
            data={"credential": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyZWFsIiwidHlwIjoicmVmcmVzaCJ9.c2ln"},
            headers={CSRF_HEADER: csrf, "origin": demo.url},
        )
        assert said.status_code == 403
        assert "kimi-provider accounts add" in said.text
