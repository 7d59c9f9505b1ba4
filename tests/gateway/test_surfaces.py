"""Plain HTTP as curl speaks it, and what only one API tells; what all of them do is tested in `tests.conformance`."""

from __future__ import annotations

import json
import subprocess

import openai
import pytest

from tests.gateway.bodies import ASK, BODIES
from tests.harness import MASTER_KEY, Gateway, Simulator


@pytest.fixture
def oai(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER_KEY, max_retries=0) as client:
        yield client


def test_chat_tells_thinking_apart_in_its_usage(oai: openai.OpenAI, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    usage = oai.chat.completions.create(model="kimi-thinking", messages=ASK).usage
    assert usage.completion_tokens > usage.completion_tokens_details.reasoning_tokens > 0


def test_chat_without_usage_asked_for_has_none(oai: openai.OpenAI, simulator: Simulator) -> None:
    chunks = list(oai.chat.completions.create(model="kimi", messages=ASK, stream=True))
    assert not [chunk for chunk in chunks if chunk.usage]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", BODIES)
def test_curl(gateway: Gateway, simulator: Simulator, surface: str, stream: bool) -> None:
    simulator.scenario("search_turn")
    path, body = BODIES[surface]
    auth = f"x-api-key: {MASTER_KEY}" if surface == "messages" else f"Authorization: Bearer {MASTER_KEY}"
    payload = json.dumps({"model": "kimi", "stream": stream, **body})
    command = ["curl", "-sSN", "--fail", gateway.url + path, "-H", auth, "-H", "Content-Type: application/json"]
    out = subprocess.run([*command, "-d", payload], capture_output=True, timeout=60, check=True).stdout.decode()
    assert "about 9 °C." in out or "about 9 \\u00b0C." in out
    assert ("data:" in out) is stream
