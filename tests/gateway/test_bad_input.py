"""What callers get wrong: one clear sentence each, in the format of the API they called, and nothing sent to Kimi."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.bodies import ASK
from tests.harness import Gateway, Simulator

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CHAT = "/v1/chat/completions"
PARTS = [{"type": "text", "text": "What is this?"}, IMAGE]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (CHAT, {"messages": []}, 400, "messages is empty"),
        (CHAT, {"messages": [{"role": "user", "content": "  "}]}, 400, "no text to answer"),
        (CHAT, {"messages": [{"role": "wizard", "content": "Hi"}]}, 400, "unknown role 'wizard'"),
        (CHAT, {"messages": [{"role": "user", "content": PARTS}]}, 400, "Message 1, part 2: it is given as an image"),
        (
            CHAT,
            {"messages": [*ASK, {"role": "user", "content": [{"type": "weird"}]}]},
            400,
            "Message 2, part 1: Kimi does not take parts of type 'weird'",
        ),
        (CHAT, {"messages": ["Hi"]}, 400, "messages[0]: Input should be a valid dictionary"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, 400, "messages[0].content: Input should be a valid"),
        (CHAT, {"messages": ASK, "n": 2}, 400, "n must be 1"),
        (CHAT, {"messages": ASK, "reasoning_effort": "frantic"}, 400, "Unknown reasoning effort 'frantic'"),
        (CHAT, {"messages": [{"role": "user", "content": "x " * 900_000}]}, 400, "takes 262144"),
        (
            "/v1/messages",
            {
                "max_tokens": 4000,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "?"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                        ],
                    }
                ],
            },
            400,
            "Message 1, part 2: it is given as an image",
        ),
        ("/v1/messages", {"max_tokens": 4000, "messages": []}, 400, "messages is empty"),
        # LiteLLM would offer it as a tool that it names itself.
        (
            "/v1/messages",
            {"max_tokens": 4000, "messages": ASK, "tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]},
            400,
            "tools[0].name: Field required",
        ),
        # LiteLLM would leave it out.
        (
            "/v1/messages",
            {"max_tokens": 4000, "messages": [*ASK, {"role": "w", "content": "?"}]},
            400,
            "[1].role: Input",
        ),
        ("/v1/responses", {"input": [{"role": "user", "content": 5}]}, 400, "input[0].content: Input should be"),
        (
            "/v1/responses",
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "?"},
                            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                        ],
                    }
                ]
            },
            400,
            "Message 1, part 2: it is given as an image",
        ),
    ],
)
def test_a_wrong_request(
    gateway: Gateway, simulator: Simulator, path: str, body: dict[str, Any], status: int, words: str, stream: bool
) -> None:
    answer = gateway.http.post(path, json={"model": "kimi", "stream": stream, **body})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]
    assert (answer.json().get("type") == "error") is (path == "/v1/messages")
    assert "Traceback" not in answer.text
    assert simulator.state()["total_streams"] == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("name", ["kimi-k2.7", "kimi/kimi-thinkin", "kimi-unknown"])
def test_an_unknown_model_is_404_with_near_names(gateway: Gateway, simulator: Simulator, path: str, name: str) -> None:
    body = {"model": name, "messages": ASK, "input": "Hi", "max_tokens": 4000}
    answer = gateway.http.post(path, json=body)
    assert answer.status_code == 404, answer.text
    assert "Near names: kimi" in answer.text
    assert simulator.state()["total_streams"] == 0


def test_an_unknown_model_of_somebody_else_is_404_where_only_kimi_is_served(gateway: Gateway) -> None:
    answer = gateway.http.post(CHAT, json={"model": "gpt-9", "messages": ASK})
    assert answer.status_code == 404
    assert "This gateway has no model 'gpt-9'. Near names: kimi," in answer.text


def test_broken_json_and_a_wrong_key(gateway: Gateway) -> None:
    broken = gateway.http.post(CHAT, content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 400
    stranger = gateway.http.post(CHAT, json={"model": "kimi", "messages": ASK}, headers={"authorization": "Bearer no"})
    assert stranger.status_code in (400, 401)
