"""A LiteLLM proxy of somebody else: started by its own command, with model_list and custom_provider_map only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kimi_provider.simulator.accounts import xid_of
from tests.harness import MASTER_KEY, Process, Simulator, clean_environment, free_port, quick_overlay

CONFIG = """
model_list:
  - { model_name: kimi, litellm_params: { model: kimi/kimi-latest } }
  - { model_name: of-bob, litellm_params: { model: kimi/kimi-latest, api_key: os.environ/BOBS_KIMI } }
  - { model_name: of-nobody, litellm_params: { model: kimi/kimi-latest, api_key: os.environ/NOBODYS_KIMI } }
litellm_settings:
  custom_provider_map: [{ provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler }]
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
"""


class Foreign(Process):
    def __init__(self, tmp: Path, config: str, **env: str) -> None:
        (path := tmp / "theirs.yaml").write_text(config)
        port = free_port()
        command = [sys.executable, "-c", "from litellm import run_server; run_server()", "--config", str(path)]
        environment = clean_environment(tmp, LITELLM_MASTER_KEY=MASTER_KEY, **env)
        super().__init__([*command, "--host", "127.0.0.1", "--port", str(port)], tmp / "log", environment, tmp)
        try:
            self.wait_for("Uvicorn running", 90)
        except BaseException:
            self.stop()
            raise
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {MASTER_KEY}"},
            trust_env=False,
            timeout=60,
        )

    def ask(self, model: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
        return self.http.post("/v1/chat/completions", json=body)

    def stop(self) -> int:
        if hasattr(self, "http"):
            self.http.close()
        return super().stop()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Foreign]:
    tmp = tmp_path_factory.mktemp("foreign")
    with Foreign(
        tmp,
        CONFIG,
        KIMI_BASE_URL=simulator_process.url,
        KIMI_AUTH_URL=simulator_process.url,
        KIMI_UPSTREAM_FILE=str(quick_overlay(tmp)),
        BOBS_KIMI=simulator_process.login("bob")["refresh_token"],
    ) as proxy:
        yield proxy


def test_the_start_says_what_is_missing(proxy: Foreign) -> None:
    lines = [line for line in proxy.output.splitlines() if line.startswith("kimi-provider: ")]
    # Said wherever the tests themselves run in a container.
    lines = [line for line in lines if "is inside this container" not in line]
    assert len(lines) == 2, proxy.output
    assert "NOBODYS_KIMI that 'of-nobody' names as its api_key is not set: it can't answer" in lines[0]
    for words in ("KIMI_TOKEN", ".env", "api_key"):
        assert words in lines[1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_deployment_answers_with_its_own_account_only(proxy: Foreign, simulator: Simulator, stream: bool) -> None:
    answer = proxy.ask("of-bob", stream=stream)
    assert answer.status_code == 200, answer.text
    assert "[simulator]" in answer.text
    simulator.scenario("hang_mid_text")
    with pytest.raises(httpx.ReadTimeout):
        proxy.http.post(
            "/v1/chat/completions",
            json={"model": "of-bob", "messages": [{"role": "user", "content": "Hi"}], "stream": True},
            timeout=0.5,
        )
    assert simulator.state()["active_by_account"] in ({xid_of("bob"): 1}, {})
    assert {chat["account"] for chat in simulator.state()["chats"]} <= {xid_of("bob")}


@pytest.mark.parametrize("model", ["kimi", "of-nobody"])
def test_a_deployment_without_an_account_is_401_and_says_where_to_put_one(
    proxy: Foreign, simulator: Simulator, model: str
) -> None:
    answer = proxy.ask(model)
    assert answer.status_code == 401, answer.text
    assert "KIMI_TOKEN" in answer.text
    assert "api_key" in answer.text
    assert simulator.state()["total_streams"] == 0


def test_the_guide_and_the_model_list_are_there(proxy: Foreign) -> None:
    assert "of-bob" in proxy.http.get("/kimi").text
    assert {row["id"] for row in proxy.http.get("/v1/models").json()["data"]} == {"kimi", "of-bob", "of-nobody"}
