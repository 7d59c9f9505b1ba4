"""`cache: true` in the proxy: plain prompts are cached, nothing else is shared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.bodies import BODIES
from tests.harness import Gateway, Simulator, shipped_config_with_cache

PLAIN = {"model": "kimi", "messages": [{"role": "user", "content": "A plain question."}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def caching_gateway(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    tmp = tmp_path_factory.mktemp("caching")
    config = shipped_config_with_cache(tmp)
    with Gateway(tmp, simulator_process.url, simulator_process.login("cache")["refresh_token"], config) as gateway:
        yield gateway


def streams(simulator: Simulator) -> int:
    return int(simulator.state()["total_streams"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", BODIES)
def test_a_plain_prompt_twice_is_one_call(
    caching_gateway: Gateway, simulator: Simulator, surface: str, stream: bool
) -> None:
    path, _ = BODIES[surface]
    text = f"Only for {surface} {stream}"
    body = {"model": "kimi", "stream": stream, "max_tokens": 50}
    body |= {"input": text} if surface == "responses" else {"messages": [{"role": "user", "content": text}]}
    for _ in range(2):
        answer = caching_gateway.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert "[simulator]" in answer.text
    assert streams(simulator) == 1


def test_a_conversation_id_is_never_shared(caching_gateway: Gateway, simulator: Simulator) -> None:
    for conversation in ("a", "b", "a"):
        body = {**PLAIN, "conversation_id": conversation}
        assert caching_gateway.http.post("/v1/chat/completions", json=body).status_code == 200
    assert streams(simulator) == 3


@pytest.mark.parametrize(
    "more",
    [
        {"model": "kimi-search"},
        {"model": "kimi-research"},
        {"model": "kimi-k3"},
        {"web_search_options": {}},
        {"use_search": True},
        {"tools": [TOOL]},
    ],
    ids=lambda more: next(iter(more)) + str(more.get("model", "")),
)
def test_search_research_agents_and_tools_never_hit(
    caching_gateway: Gateway, simulator: Simulator, more: dict[str, Any]
) -> None:
    for _ in range(2):
        answer = caching_gateway.http.post("/v1/chat/completions", json={**PLAIN, **more})
        assert answer.status_code == 200, answer.text
    assert streams(simulator) == 2


def test_a_plain_answer_does_not_serve_a_search(caching_gateway: Gateway, simulator: Simulator) -> None:
    caching_gateway.http.post("/v1/chat/completions", json=PLAIN)
    before = streams(simulator)
    caching_gateway.http.post("/v1/chat/completions", json={**PLAIN, "use_search": True})
    assert streams(simulator) == before + 1


def test_failures_are_not_cached(caching_gateway: Gateway, simulator: Simulator) -> None:
    body = {"model": "kimi", "messages": [{"role": "user", "content": "Asked once in trouble"}]}
    simulator.scenario("paywall", times=None)
    assert caching_gateway.http.post("/v1/chat/completions", json=body).status_code == 403
    simulator.scenario(None)
    assert caching_gateway.http.post("/v1/chat/completions", json=body).status_code == 200
