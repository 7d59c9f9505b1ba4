"""The shipped configuration holds a working rate limit: call N+1 is refused on each surface and says when to return."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.gateway.bodies import BODIES
from tests.gateway.test_fallbacks import ask
from tests.harness import ROOT, Gateway, Simulator

LIMIT = 3


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    tmp = tmp_path_factory.mktemp("limited")
    text = (ROOT / "litellm_config.yaml").read_text("utf-8")
    assert len(re.findall(r"rpm: \d+", text)) == text.count("- model_name: ") - text.count("- model_name: backup-")
    # Small figures and a row for each case, so that the test does not wait for a minute to pass.
    rows = "".join(
        f"  - model_name: {surface}-{stream}\n    litellm_params: {{ model: kimi/kimi-latest, rpm: {LIMIT} }}\n"
        for surface in [*BODIES, "gemini"]
        for stream in (False, True)
    )
    (config := tmp / "config.yaml").write_text(text.replace("model_list:\n", "model_list:\n" + rows, 1))
    with Gateway(tmp, simulator_process.url, simulator_process.login("limited")["refresh_token"], config) as gateway:
        yield gateway


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_one_call_too_many(limited: Gateway, simulator: Simulator, surface: str, stream: bool) -> None:
    model = f"{surface}-{stream}"
    assert [ask(limited, surface, model, stream).status_code for _ in range(LIMIT)] == [200] * LIMIT
    refused = ask(limited, surface, model, stream)
    assert refused.status_code == 429, refused.text
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert simulator.state()["total_streams"] == LIMIT


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_kimis_own_limits_say_when_to_return(
    gateway: Gateway, simulator: Simulator, surface: str, stream: bool
) -> None:
    simulator.scenario("rate_limited", times=None, retry_after_s=1)
    refused = ask(gateway, surface, "kimi", stream)
    assert refused.status_code == 429, refused.text
    assert int(refused.headers["retry-after"]) == 1
    # Leave the shared account as it was found.
    simulator.scenario(None)
    give_up_at = time.monotonic() + 5
    while ask(gateway, surface, "kimi", stream).status_code == 429:
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
