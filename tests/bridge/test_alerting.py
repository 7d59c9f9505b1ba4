"""LiteLLM's alerting, as it is configured and as it fails, and alerts of a library; tests/gateway has the gateways'."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Process, Simulator, clean_environment
from tests.mailbox import Mailbox

#: In a process of its own: with a proxy's modules beside them, other tests of the library would be a proxy's.
SCRIPT = """
import asyncio, json
from litellm.proxy.proxy_server import proxy_logging_obj
from kimi_provider.accounts.alert_text import Alert
from kimi_provider.errors import Unavailable
from kimi_provider.litellm_bridge.alerting import LiteLLMAlerting

async def configured(alerting, alert_types):
    proxy_logging_obj.alerting = alerting
    proxy_logging_obj.slack_alerting_instance.alert_types = alert_types
    return LiteLLMAlerting(asyncio.get_running_loop()).configured

async def failure(loop):
    try:
        await LiteLLMAlerting(loop).send(Alert(title="A", body="B", severity="failure"))
    except Unavailable as exc:
        return exc.message

async def main():
    everything = proxy_logging_obj.slack_alerting_instance.alert_types
    ways = [None, [], ["slack"], ["ms_teams"], ["webhook", "email"], ["sentry"]]
    by_way = {",".join(way or ["-"]): await configured(way, everything) for way in ways}
    by_kind = {kind: await configured(["slack"], [kind]) for kind in ("llm_exceptions", "budget_alerts")}
    proxy_logging_obj.update_values(alerting=["slack"], alert_types=everything)
    missing_webhook = await failure(asyncio.get_running_loop())
    stopped = asyncio.new_event_loop()
    stopped.close()
    print(json.dumps({
        "ways": by_way, "kinds": by_kind, "missing_webhook": missing_webhook, "stopped": await failure(stopped)
    }))

asyncio.run(main())
"""


@pytest.mark.timeout(300)
def test_alerting_as_it_is_configured_and_as_it_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(
        command, env=clean_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        # `webhook` and `email` carry budgets only.
        "ways": {"-": False, "slack": True, "ms_teams": True, "webhook,email": False, "sentry": True},
        "kinds": {"llm_exceptions": True, "budget_alerts": False},
        "missing_webhook": "LiteLLM raised ValueError",
        "stopped": "the proxy has stopped",
    }


LIBRARY = """
import sys, litellm, kimi_provider.litellm_bridge
ask = [{"role": "user", "content": "[[scenario:say text=Hi-there]] hello"}]
print(litellm.completion(model="kimi/kimi-latest", messages=ask).choices[0].message.content, flush=True)
sys.stdin.read()
"""


def test_a_program_that_uses_the_library_tells_too(simulator: Simulator, tmp_path: Path) -> None:
    pair = simulator.login("ada", refresh_expires_in=3 * 86_400)
    with Mailbox() as box:
        environment = clean_environment(
            tmp_path,
            KIMI_BASE_URL=simulator.url,
            KIMI_AUTH_URL=simulator.url,
            KIMI_TOKEN=f"{pair['access_token']} {pair['refresh_token']}",
            KIMI_ALERT_URLS=box.apprise,
        )
        with Process([sys.executable, "-c", LIBRARY], tmp_path / "library.log", environment, tmp_path) as program:
            program.wait_for("Hi-there", 100)
            box.until(lambda: bool(box.titles))
            assert box.titles[0].endswith(": log in again within 3 d")
