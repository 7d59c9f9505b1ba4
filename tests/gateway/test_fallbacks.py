"""The two blocks of the shipped configuration that are off, switched on as their comment says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.bodies import BODIES
from tests.harness import Gateway, Simulator, shipped_config_without_limits
from tests.provider import KEY, OtherProvider

GEMINI = ("/v1beta/models/{model}:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]})


def switched_on(tmp: Path) -> Path:
    """The shipped configuration with both blocks."""
    config = shipped_config_without_limits(tmp)
    config.write_text(re.sub(r"^#(fallbacks|aliases) ", "", config.read_text(), flags=re.M))
    return config


@pytest.fixture(scope="module")
def other() -> Iterator[OtherProvider]:
    with OtherProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def routed_process(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator, other: OtherProvider
) -> Iterator[Gateway]:
    tmp = tmp_path_factory.mktemp("routed")
    env = {"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": other.url, "OPENAI_BASE_URL": other.url}
    env["MOONSHOT_API_KEY"] = "sk-refused-by-the-other-provider"
    token = simulator_process.login("routed")["refresh_token"]
    env["MOONSHOT_API_BASE"] = other.url
    with Gateway(tmp, simulator_process.url, token, switched_on(tmp), **env) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    """Fallbacks switched on, their keys forgotten."""
    tmp = tmp_path_factory.mktemp("keyless")
    nowhere = {"OPENAI_API_BASE": "http://127.0.0.1:9", "MOONSHOT_API_BASE": "http://127.0.0.1:9"}
    token = simulator_process.login("keyless")["refresh_token"]
    with Gateway(tmp, simulator_process.url, token, switched_on(tmp), **nowhere) as gateway:
        yield gateway


@pytest.fixture
def routed(routed_process: Gateway, simulator: Simulator, other: OtherProvider) -> Gateway:
    other.reset()
    return routed_process


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
@pytest.mark.parametrize(
    ("scenario", "models"),
    [
        # An outage goes down the list; the first one's key is refused here.
        ("overloaded_trailer", ["gpt-5-mini"]),
        ("auth_http", ["gpt-5-mini"]),
        ("close_before_text", ["gpt-5-mini"]),
        # Too long, or declined: the lists made for that.
        ("context_too_long", ["gpt-5-mini"]),
        ("moderated_before_text", ["gpt-5-mini"]),
    ],
)
def test_a_fallback_answers_and_says_so(
    routed: Gateway,
    simulator: Simulator,
    other: OtherProvider,
    scenario: str,
    models: list[str],
    surface: str,
    stream: bool,
) -> None:
    simulator.scenario(scenario, times=None)
    answer = ask(routed, surface, "kimi", stream)
    assert answer.status_code == 200, answer.text
    assert "Another" in answer.text
    assert int(answer.headers["x-litellm-attempted-fallbacks"]) >= 1
    assert "llm_provider-x-kimi-served-by" not in answer.headers
    assert [body["model"] for body in other.bodies] == models


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_traffic_moves_to_the_fallback_and_back(
    routed: Gateway, simulator: Simulator, other: OtherProvider, surface: str, stream: bool
) -> None:
    for broken in (False, True, False):
        simulator.scenario("unavailable" if broken else None, times=None)
        other.reset()
        answer = ask(routed, surface, "kimi", stream)
        assert answer.status_code == 200, answer.text
        assert ("Another" if broken else "[simulator]") in answer.text
        assert bool(other.bodies) is broken


@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_kimi_answers_and_says_so(routed: Gateway, surface: str) -> None:
    for stream in (False, True):
        answer = ask(routed, surface, "kimi", stream)
        assert answer.status_code == 200, answer.text
        if surface in ("chat", "gemini"):
            assert answer.headers["llm_provider-x-kimi-served-by"] == "kimi-latest"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_failing_fallbacks_leave_kimis_own_error(
    routed: Gateway, simulator: Simulator, other: OtherProvider, surface: str, stream: bool
) -> None:
    other.status = 401
    simulator.scenario("overloaded_trailer", times=None)
    answer = ask(routed, surface, "kimi", stream)
    assert answer.status_code == 503, answer.text
    assert "[overloaded]" in answer.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_a_missing_fallback_key_leaves_kimis_own_error(
    keyless: Gateway, simulator: Simulator, surface: str, stream: bool
) -> None:
    simulator.scenario("quota", times=None)
    answer = ask(keyless, surface, "kimi", stream)
    assert answer.status_code == 429, answer.text
    assert "[quota_exhausted]" in answer.text


@pytest.mark.parametrize(
    ("name", "thinks"),
    [
        ("gpt-4o", False),
        ("claude-sonnet-4-5", True),
        ("gemini-2.5-flash", False),
        ("gpt-5", True),
        # Of no row, but of a pattern.
        ("gpt-9-codex", False),
        ("claude-haiku-9-20301231", False),
        ("gemini-9-flash-lite", False),
    ],
)
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_other_vendors_names_reach_kimi(
    routed: Gateway, simulator: Simulator, surface: str, name: str, thinks: bool
) -> None:
    answer = ask(routed, surface, name, stream=False)
    assert answer.status_code == 200, answer.text
    assert "[simulator]" in answer.text
    assert simulator.chat_bodies()[-1]["options"]["thinking"] is thinks


def ask(gateway: Gateway, surface: str, model: str, stream: bool) -> Any:
    if surface == "gemini":
        path, body = GEMINI
        path = path.format(model=model).replace("generate", "streamGenerate" if stream else "generate")
        return gateway.http.post(path, json=body)
    path, body = BODIES[surface]
    return gateway.http.post(path, json={"model": model, "stream": stream, **body})
