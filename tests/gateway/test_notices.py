"""What the service remarks on an answer reaches the caller's headers and the operator's log, on every API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness import Gateway, Simulator

ASK = [{"role": "user", "content": "Hi"}]
CALLS = [
    ("/v1/chat/completions", {"model": "kimi", "messages": ASK}),
    ("/v1/chat/completions", {"model": "kimi", "messages": ASK, "stream": True}),
    ("/v1/messages", {"model": "kimi", "messages": ASK, "max_tokens": 4000}),
    ("/v1/messages", {"model": "kimi", "messages": ASK, "max_tokens": 4000, "stream": True}),
    ("/v1/responses", {"model": "kimi", "input": "Hi"}),
    ("/v1/responses", {"model": "kimi", "input": "Hi", "stream": True}),
    ("/v1beta/models/kimi:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    ("/v1beta/models/kimi:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "Hi"}]}]}),
]


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_a_degraded_model_is_said(gateway: Gateway, simulator: Simulator, path: str, body: dict[str, Any]) -> None:
    simulator.scenario("degraded")
    before = gateway.output.count("[model_degraded]")
    answer = gateway.http.post(path, json=body)
    assert "Sure." in answer.text
    assert answer.headers["llm_provider-x-kimi-notice"] == "model_degraded"
    assert gateway.output.count("[model_degraded]") == before + 1
    assert "High demand" in gateway.output
