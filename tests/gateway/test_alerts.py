"""Alerts from real gateways: two of them on one account store, with LiteLLM's alerting and an Apprise URL each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.running import run
from tests.harness import MASTER_KEY, Gateway, Simulator
from tests.mailbox import SECRET, Mailbox
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(400)

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

CONFIG = """
model_list: [{ model_name: kimi, litellm_params: { model: kimi/kimi-latest } }]
litellm_settings: { custom_provider_map: [{ provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler }] }
router_settings: { num_retries: 0, disable_cooldowns: true }
general_settings: { master_key: os.environ/LITELLM_MASTER_KEY, alerting: [slack] }
"""


class Fleet:
    """Two gateways on one PostgreSQL, and the mailbox of their owner."""

    def __init__(self, tmp: Path, simulator: Simulator, url: str, box: Mailbox) -> None:
        self.box, self.simulator = box, simulator
        (config := tmp / "config.yaml").write_text(CONFIG)
        environment = {
            "KIMI_STATE_URL": url,
            "KIMI_SECRET_KEY": KEY,
            "KIMI_ALERT_URLS": box.apprise,
            "SLACK_WEBHOOK_URL": box.webhook,
        }
        token = simulator.login("ada")["refresh_token"]
        self.gateways: list[Gateway] = []
        for name in ("one", "other"):
            self.gateways.append(Gateway(tmp / name, simulator.url, token, config, **environment))

    def ask(self, number: int) -> httpx.Response:
        body = {"model": "kimi", "messages": [{"role": "user", "content": "Hi"}]}
        return self.gateways[number].http.post("/v1/chat/completions", json=body)

    def account(self) -> dict[str, Any]:
        (row,) = self.gateways[0].http.get("/kimi/api/accounts").json()["accounts"]
        return dict(row)

    def slack(self) -> list[str]:
        """Titles of ours: LiteLLM has things of its own to say there."""
        return [line for text in self.box.texts for line in map(_message, text.splitlines()) if "Kimi account" in line]


def _message(line: str) -> str:
    """The first line of what LiteLLM was given to say."""
    return line.partition("Message: ")[2]


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator, postgres: Postgres
) -> Iterator[Fleet]:
    with Mailbox() as box:
        fleet = Fleet(tmp_path_factory.mktemp("alerting"), simulator_process, postgres.database(), box)
        yield fleet
        for gateway in fleet.gateways:
            gateway.stop()


def test_a_ban_and_its_end_are_told_once_each_way_though_two_gateways_know(fleet: Fleet, simulator: Simulator) -> None:
    assert fleet.ask(0).status_code == 200
    short = fleet.account()["short_id"]
    simulator.scenario("account_abnormal")
    assert fleet.ask(1).status_code == 403
    bad = [f"Kimi account {short}: stopped by Kimi", "No Kimi account can answer"]
    fleet.box.until(lambda: len(fleet.box.titles) == 2 and len(fleet.slack()) == 2)
    assert (sorted(fleet.box.titles), sorted(fleet.slack())) == (sorted(bad), sorted(bad))
    assert fleet.ask(0).status_code == 403, "nobody left, and the call says so"
    assert fleet.gateways[0].http.post(f"/kimi/api/accounts/{short}/enable").status_code == 200
    fleet.box.until(lambda: len(fleet.box.titles) >= 4 and len(fleet.slack()) >= 4)
    assert fleet.ask(1).status_code == 200
    good = [f"Kimi account {short}: in use again", "Kimi accounts can answer again"]
    assert (sorted(fleet.box.titles[2:]), sorted(fleet.slack()[2:])) == (sorted(good), sorted(good))


def test_a_call_does_not_wait_for_an_alert(fleet: Fleet, simulator: Simulator) -> None:
    before = len(fleet.box.titles)
    fleet.box.open.clear()
    bob = simulator.login("bob", refresh_expires_in=86_400)["refresh_token"]
    assert fleet.gateways[0].http.post("/kimi/api/accounts", json={"credential": bob}).status_code == 201
    fleet.box.until(lambda: len(fleet.box.titles) > before)
    assert [fleet.ask(number).status_code for number in (0, 1)] == [200, 200]
    assert not fleet.box.open.is_set()
    fleet.box.open.set()


def test_no_log_and_no_alert_gives_a_secret_away(fleet: Fleet) -> None:
    """Last: what was said until here."""
    assert fleet.box.titles
    for gateway in fleet.gateways:
        assert not any(part in gateway.output for part in SECRET.split("/"))
        assert "not delivered" not in gateway.output
    assert not any("eyJ" in str(body) or MASTER_KEY in str(body) for _, body in fleet.box.requests)


def test_the_doctor_tries_the_way(tmp_path: Path, simulator: Simulator) -> None:
    with Mailbox() as box:
        known = {
            "KIMI_TOKEN": simulator.login("ada")["refresh_token"],
            "KIMI_BASE_URL": simulator.url,
            "KIMI_AUTH_URL": simulator.url,
            "KIMI_LANG": "id",
            "KIMI_ALERT_URLS": f"{box.apprise}, nothing://{SECRET}",
        }
        looked = run(tmp_path, "doctor", **known)
        assert looked.returncode == 0, looked.stdout
        assert "entry 1 of KIMI_ALERT_URLS (json)" in looked.stdout
        assert box.titles == []
        tried = run(tmp_path, "doctor", "--test-alert", **known)
        assert box.titles == ["Peringatan kimi-provider sampai"]
        assert tried.returncode == 1
        assert "entry 2 of KIMI_ALERT_URLS (nothing)" in tried.stdout
        assert "Apprise does not know such a URL" in tried.stdout
        assert not any(part in looked.stdout + tried.stdout + tried.stderr for part in SECRET.split("/"))
        nobody = run(tmp_path, "doctor", "--test-alert", **(known | {"KIMI_ALERT_URLS": ""}))
        assert (nobody.returncode, "names nobody" in nobody.stdout) == (1, True)


def test_without_apprise_one_line_says_what_to_install(tmp_path: Path, simulator: Simulator) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['apprise'] = None\n")
    known = {
        "KIMI_ALERT_URLS": f"json://127.0.0.1:9/{SECRET}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))),
    }
    with Gateway(tmp_path, simulator.url, simulator.login("ada")["refresh_token"], **known) as gateway:
        said = [line for line in gateway.output.splitlines() if "KIMI_ALERT_URLS" in line]
        assert len(said) == 1
        assert "pip install 'kimi-provider[alerts]'" in said[0]
        assert not any(part in gateway.output for part in SECRET.split("/"))
    doctor = run(tmp_path, "doctor", KIMI_BASE_URL=simulator.url, KIMI_AUTH_URL=simulator.url, **known)
    assert "pip install 'kimi-provider[alerts]'" in doctor.stdout
