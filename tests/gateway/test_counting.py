"""Tokens counted beforehand are those that the answer's usage then tells, whatever a request holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness import Gateway, Simulator

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "Where?"}}}
TEXT = {"type": "text", "text": "What do you know of Oslo? Ærlig talt."}
FOUND = {"type": "search_result", "source": "https://a.example", "title": "Oslo", "content": [TEXT]}
PAGE = {"type": "web_search_result", "url": "https://a.example", "title": "Oslo", "encrypted_content": ""}
SEARCHED = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Oslo"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [PAGE]},
    {"type": "text", "text": "A town."},
]
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"city": "Oslo"}}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "Hello"}]},
        {"messages": [user(TEXT)], "system": [{"type": "text", "text": "Be brief."}]},
        {"messages": [user(FOUND, TEXT)]},
        {"messages": [user({"type": "document", "title": "T", "source": {"type": "text", "data": "x " * 99}}, TEXT)]},
        {
            "messages": [
                user(TEXT),
                {"role": "assistant", "content": [CALL]},
                user({"type": "tool_result", "tool_use_id": "toolu_1", "content": [FOUND], "is_error": True}),
            ],
            "tools": [{"name": "look_up", "description": "Looks up a town.", "input_schema": SCHEMA}],
        },
    ],
    ids=["text", "system", "search result", "document", "tools"],
)
def test_anthropics(gateway: Gateway, simulator: Simulator, body: dict[str, Any]) -> None:
    counted = gateway.http.post("/v1/messages/count_tokens", json={"model": "kimi", **body})
    assert counted.status_code == 200, counted.text
    assert simulator.state()["total_streams"] == 0
    answer = gateway.http.post("/v1/messages", json={"model": "kimi", "max_tokens": 4000, **body}).json()
    assert counted.json()["input_tokens"] == answer["usage"]["input_tokens"]


def test_a_searched_answer_in_the_history(gateway: Gateway, simulator: Simulator) -> None:
    """LiteLLM repeats what was found in a request to answer, but not in one to count."""
    body = {"model": "kimi", "messages": [user(TEXT), {"role": "assistant", "content": SEARCHED}, user(TEXT)]}
    counted = gateway.http.post("/v1/messages/count_tokens", json=body)
    assert counted.status_code == 200, counted.text
    usage = gateway.http.post("/v1/messages", json={"max_tokens": 4000, **body}).json()["usage"]
    assert 0.7 < counted.json()["input_tokens"] / usage["input_tokens"] <= 1


def test_openais(gateway: Gateway, simulator: Simulator) -> None:
    tools = [{"type": "function", "name": "look_up", "parameters": SCHEMA}]
    body = {"model": "kimi", "instructions": "Be brief.", "input": TEXT["text"], "tools": tools}
    counted = gateway.http.post("/v1/responses/input_tokens", json=body).json()
    answer = gateway.http.post("/v1/responses", json=body).json()
    assert counted["input_tokens"] == answer["usage"]["input_tokens"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_geminis(gateway: Gateway, simulator: Simulator, wrapped: bool) -> None:
    declared = {"name": "look_up", "description": "Looks up a town.", "parameters": SCHEMA}
    body = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": TEXT["text"]}]}],
        "tools": [{"functionDeclarations": [declared]}],
    }
    asked = {"generateContentRequest": {"model": "models/kimi", **body}} if wrapped else body
    counted = gateway.http.post("/v1beta/models/kimi:countTokens", json=asked).json()
    answer = gateway.http.post("/v1beta/models/kimi:generateContent", json=body).json()
    assert counted["totalTokens"] == answer["usageMetadata"]["promptTokenCount"]


def test_more_than_the_model_takes_can_be_counted(gateway: Gateway) -> None:
    body = {"model": "kimi", "messages": [{"role": "user", "content": "x" * 4_000_000}]}
    assert gateway.http.post("/v1/messages/count_tokens", json=body).json()["input_tokens"] == 1_000_000


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([user({"type": "weird"})], "part 1: Kimi does not take parts of type 'weird'"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([user({"type": "tool_result", "tool_use_id": "t", "content": [{"type": 5}]})], "content[0].type"),
    ],
)
def test_what_can_not_be_sent_can_not_be_counted(gateway: Gateway, messages: list[Any], words: str) -> None:
    answer = gateway.http.post("/v1/messages/count_tokens", json={"model": "kimi", "messages": messages})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert words in answer.json()["error"]["message"]
