"""What callers are told beside the answer: headers of the response."""

from __future__ import annotations

import pytest

from tests.gateway.bodies import ASK
from tests.harness import Gateway, Simulator

CHAT = "/v1/chat/completions"
BODY = {"model": "kimi", "messages": ASK}

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@STREAM
def test_retry_after_reaches_the_client(gateway: Gateway, simulator: Simulator, stream: bool) -> None:
    simulator.scenario("quota")
    answer = gateway.http.post(CHAT, json={**BODY, "stream": stream})
    assert int(answer.headers["retry-after"]) >= 1


@STREAM
def test_parameters_without_effect_are_named(gateway: Gateway, simulator: Simulator, stream: bool) -> None:
    answer = gateway.http.post(CHAT, json={**BODY, "temperature": 0.2, "seed": 7, "stream": stream})
    assert set(answer.headers["llm_provider-x-kimi-ignored"].split(",")) >= {"temperature", "seed"}
