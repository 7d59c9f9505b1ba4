"""Gemini's API through a real proxy: the google-genai SDK and curl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types

from tests.harness import MASTER_KEY, Gateway, Simulator


@pytest.fixture(params=["v1beta", "v1"])
def google(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[genai.Client]:
    options = types.HttpOptions(base_url=gateway.url, api_version=request.param)
    client = genai.Client(api_key=MASTER_KEY, http_options=options)
    yield client
    client.close()


def test_whole(google: genai.Client, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    answer = google.models.generate_content(model="kimi-thinking", contents="Weather in Oslo?")
    assert answer.text.startswith("Rain today, about 9 °C.")
    (candidate,) = answer.candidates
    assert "I should look this up." in "".join(p.text for p in candidate.content.parts if p.thought)
    assert candidate.finish_reason is types.FinishReason.STOP
    assert answer.usage_metadata.prompt_token_count > 0
    assert answer.usage_metadata.candidates_token_count > 0
    assert answer.usage_metadata.thoughts_token_count > 0


def test_thoughts_can_be_left_out(google: genai.Client, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=False))
    answer = google.models.generate_content(model="kimi-thinking", contents="Weather?", config=config)
    assert not [p for p in answer.candidates[0].content.parts if p.thought]


@pytest.mark.parametrize(
    ("thinking", "wanted"),
    [
        (types.ThinkingConfig(thinking_budget=0), (False, "REASONING_EFFORT_NONE")),
        (types.ThinkingConfig(thinking_budget=4096), (True, "REASONING_EFFORT_LOW")),
        (types.ThinkingConfig(thinking_level=types.ThinkingLevel.HIGH), (True, "REASONING_EFFORT_LOW")),
    ],
)
def test_thinking_config_arrives(
    google: genai.Client, simulator: Simulator, thinking: types.ThinkingConfig, wanted: tuple[bool, str]
) -> None:
    config = types.GenerateContentConfig(thinking_config=thinking)
    google.models.generate_content(model="kimi", contents="Hi", config=config)
    options = simulator.chat_bodies()[-1]["options"]
    assert (options["thinking"], options["reasoning_effort"]) == wanted


def test_google_search_switches_search_on(google: genai.Client, simulator: Simulator) -> None:
    config = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    google.models.generate_content(model="kimi", contents="Hi", config=config)
    assert [tool["type"] for tool in simulator.chat_bodies()[-1]["tools"]] == ["TOOL_TYPE_SEARCH"]


def test_parameters_without_effect_are_named(gateway: Gateway, simulator: Simulator) -> None:
    body = {
        "contents": [{"parts": [{"text": "Hi"}]}],
        "generationConfig": {"topK": 3, "temperature": 0.1},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    }
    for method in ("generateContent", "streamGenerateContent?alt=sse"):
        answer = gateway.http.post(f"/v1beta/models/kimi:{method}", json=body)
        assert answer.status_code == 200, answer.text
        named = set(answer.headers["llm_provider-x-kimi-ignored"].split(","))
        assert named >= {"topK", "temperature", "safetySettings"}


def test_a_mid_stream_error_ends_the_stream_as_an_error(gateway: Gateway, simulator: Simulator) -> None:
    simulator.scenario("overloaded_after_text", times=None)
    body = {"contents": [{"parts": [{"text": "Hi"}]}]}
    answer = gateway.http.post("/v1beta/models/kimi:streamGenerateContent?alt=sse", json=body)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[0]["candidates"][0]["content"]["parts"][0]["text"].startswith("Well")
    assert events[-1]["error"]["status"] == "UNAVAILABLE"
    assert not [e for e in events if e.get("candidates", [{}])[0].get("finishReason")]


@pytest.mark.parametrize("alt", ["", "?alt=sse"])
def test_the_first_chunk_is_there_during_the_pause(gateway: Gateway, simulator: Simulator, alt: str) -> None:
    simulator.scenario("slow", pause_s=600)
    url = f"{gateway.url}/v1beta/models/kimi:streamGenerateContent{alt}"
    headers = {"x-goog-api-key": MASTER_KEY}
    with (
        httpx.Client(trust_env=False, headers=headers, timeout=30) as client,
        client.stream("POST", url, json={"contents": [{"parts": [{"text": "Hi"}]}]}) as answer,
    ):
        pieces = answer.iter_text()
        seen = next(pieces)
        assert "Before the pause" in seen
        assert "after the pause" not in seen
        simulator.control("resume")
        rest = "".join(pieces)
        assert "after the pause" in rest
    if not alt:
        assert answer.headers["content-type"].startswith("application/json")
        array: list[dict[str, Any]] = json.loads(seen + rest)
        assert array[-1]["usageMetadata"]["totalTokenCount"] > 0


def test_count_tokens(google: genai.Client) -> None:
    few = google.models.count_tokens(model="kimi", contents="Hello")
    many = google.models.count_tokens(model="kimi", contents="Hello, how are you today? " * 20)
    assert 0 < few.total_tokens < many.total_tokens


def test_models(gateway: Gateway) -> None:
    client = genai.Client(api_key=MASTER_KEY, http_options=types.HttpOptions(base_url=gateway.url))
    listed = {model.name: model for model in client.models.list(config={"page_size": 3})}
    assert listed.keys() >= {"models/kimi", "models/kimi-k3", "models/kimi-research"}
    one = client.models.get(model="kimi-k2.6")
    assert one.name == "models/kimi-k2.6"
    assert one.input_token_limit == 262144
    with pytest.raises(errors.APIError) as caught:
        client.models.get(model="kimi-nothing")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    client.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"contents": "Hi", "cachedContent": "x"}, "cachedContent is not supported"),
        ({"contents": [{"role": "wizard", "parts": [{"text": "Hi"}]}]}, "unknown role 'wizard'"),
        ({"contents": 7}, "contents must be a list"),
        ({"contents": []}, "messages is empty"),
        (
            {"contents": [{"parts": [{"text": "?"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}]},
            "image",
        ),
        ({"contents": [{"parts": [{"executableCode": {"code": "1"}}]}]}, "executableCode"),
        ({"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"candidateCount": 2}}, "n must be 1"),
    ],
)
def test_bad_input(gateway: Gateway, simulator: Simulator, body: dict[str, Any], words: str) -> None:
    for method in ("generateContent", "streamGenerateContent"):
        answer = gateway.http.post(f"/v1beta/models/kimi:{method}", json=body)
        assert answer.status_code == 400, answer.text
        assert words in answer.json()["error"]["message"]
        assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert simulator.state()["total_streams"] == 0


def test_a_wrong_key_is_refused_in_googles_format(gateway: Gateway) -> None:
    answer = gateway.http.post(
        "/v1beta/models/kimi:generateContent",
        json={"contents": [{"parts": [{"text": "Hi"}]}]},
        headers={"authorization": "Bearer sk-wrong"},
    )
    assert answer.status_code in (400, 401)
    assert answer.json()["error"]["status"] in ("UNAUTHENTICATED", "INVALID_ARGUMENT")


def test_curl(gateway: Gateway, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    command = ["curl", "-sSN", "--fail", f"{gateway.url}/v1beta/models/kimi:generateContent"]
    command += ["-H", f"x-goog-api-key: {MASTER_KEY}", "-H", "Content-Type: application/json"]
    command += ["-d", '{"contents":[{"parts":[{"text":"Weather in Oslo?"}]}]}']
    answer = json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
    assert "9 °C" in answer["candidates"][0]["content"]["parts"][-1]["text"]
