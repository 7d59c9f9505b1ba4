"""Demo mode and real credentials never meet: nothing is sent, and the refusal names the way to real mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_provider.simulator import SimulatorServer
from tests.cli.running import run
from tests.cli.test_foreign import Foreign

from .needles import Needles, composed_token

CONFIG = """
model_list:
  - {{ model_name: of-the-file, litellm_params: {{ model: kimi/kimi-latest }} }}
  - {{ model_name: of-the-row, litellm_params: {{ model: kimi/kimi-latest, api_key: {token} }} }}
litellm_settings:
  custom_provider_map: [{{ provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler }}]
general_settings: {{ master_key: os.environ/LITELLM_MASTER_KEY }}
"""


def demo(simulator: SimulatorServer) -> dict[str, str]:
    """As `serve` sets its child up in demo mode, but for the credential."""
    return {"KIMI_DEMO": "true", "KIMI_BASE_URL": simulator.url, "KIMI_AUTH_URL": simulator.url}


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorServer]:
    """One of this module alone, so that every byte counts."""
    with SimulatorServer() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, simulator: SimulatorServer) -> Iterator[Foreign]:
    """A gateway in demo mode with a real credential in .env, and another one on a row."""
    tmp = tmp_path_factory.mktemp("demo guard")
    (tmp / ".env").write_text(f"KIMI_TOKEN={composed_token()}\n")
    with Foreign(tmp, CONFIG.format(token=composed_token()), **demo(simulator)) as proxy:
        yield proxy


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["of-the-file", "of-the-row"])
def test_a_real_credential_is_not_sent(proxy: Foreign, simulator: SimulatorServer, model: str, stream: bool) -> None:
    answer = proxy.ask(model, stream=stream)
    assert answer.status_code == 403, answer.text
    assert "demo mode" in answer.text
    assert "KIMI_TOKEN=... kimi-provider serve" in answer.text
    assert simulator.snapshot()["bytes_received"] == 0


def test_not_even_by_a_health_check(proxy: Foreign, simulator: SimulatorServer) -> None:
    assert proxy.http.get("/health").json()["healthy_count"] == 0
    assert simulator.snapshot()["bytes_received"] == 0


@pytest.mark.parametrize("command", [["chat", "Hi"], ["models", "--live"], ["doctor"]], ids=lambda c: c[0])
def test_nor_by_a_command(tmp_path: Path, simulator: SimulatorServer, command: list[str]) -> None:
    token, needles = composed_token(), Needles()
    needles.add("token", token)
    (tmp_path / ".env").write_text(f"KIMI_TOKEN={token}\n")
    done = run(tmp_path, *command, **demo(simulator))
    assert done.returncode in (1, 2)
    said = done.stdout + done.stderr
    assert "demo mode" in said
    assert "kimi-provider serve" in said
    assert needles.found_in(said) == []
    assert simulator.snapshot()["bytes_received"] == 0
