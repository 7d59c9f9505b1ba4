"""`serve` takes what lives as long as the proxy out of the collector's way; a host's own process is left alone."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import yaml

from tests.gateway.test_foreign import KIMI_ROW, OURS, BareLiteLLM
from tests.harness import Gateway, Simulator

#: LiteLLM asks it about every key; it writes down what the collector no longer walks.
ASKED = textwrap.dedent(
    """
    import gc
    from litellm.proxy._types import UserAPIKeyAuth

    async def auth(request, api_key):
        open("frozen", "w").write(str(gc.get_freeze_count()))
        return UserAPIKeyAuth(api_key=api_key)
    """
)
CONFIG = {
    "model_list": [KIMI_ROW],
    "litellm_settings": OURS,
    "general_settings": {"custom_auth": "asked.auth"},
}


def frozen(ask: Callable[[], httpx.Response], tmp: Path) -> int:
    assert ask().status_code == 200
    return int((tmp / "frozen").read_text())


def test_what_lasts_is_out_of_the_way_of_the_collector(tmp_path: Path, simulator: Simulator) -> None:
    (tmp_path / "asked.py").write_text(ASKED)
    (config := tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    token = simulator.login()["refresh_token"]
    with Gateway(tmp_path, simulator.url, token, config) as gateway:
        give_up_at = time.monotonic() + 120
        while (seen := frozen(lambda: gateway.http.get("/v1/models"), tmp_path)) == 0 and time.monotonic() < give_up_at:
            time.sleep(0.2)
    assert seen > 100_000


def test_the_collector_of_a_host_is_its_own(tmp_path: Path, simulator: Simulator) -> None:
    (tmp_path / "asked.py").write_text(ASKED)
    env = {"KIMI_BASE_URL": simulator.url, "KIMI_AUTH_URL": simulator.url}
    with BareLiteLLM(tmp_path, CONFIG, KIMI_TOKEN=simulator.login()["refresh_token"], **env) as host:
        later = time.monotonic() + 6  # `serve` would have done it by then
        while time.monotonic() < later:
            assert frozen(lambda: host.http.get("/v1/models"), tmp_path) == 0
            time.sleep(0.5)
