"""Requests whose JSON has something else than it should, anywhere: never a 500, never a traceback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import Gateway, Simulator

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
GEMINI_CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
#: A request of each API with most of what it can have.
WHOLE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "kimi",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        "tool_choice": "auto",
        "stop": ["x"],
        "max_tokens": 100,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    },
    "/v1/messages": {
        "model": "kimi",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "done"}]},
                    {"type": "document", "title": "T", "source": {"type": "text", "data": "x"}},
                ],
            },
        ],
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto"},
        "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
    "/v1/responses": {
        "model": "kimi",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
        "tool_choice": "auto",
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        "max_output_tokens": 100,
    },
    "/v1beta/models/kimi:generateContent": {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [GEMINI_CALL]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "done"}}}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
        "generationConfig": {"stopSequences": ["x"], "maxOutputTokens": 100, "responseSchema": SCHEMA},
    },
}
NOTHING = object()
INSTEAD: list[Any] = [NOTHING, 5, "text", None, True, [], [5], {}, {"type": ["x"]}]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in `node` but its model."""
    if path and path != ("model",):
        yield path
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in below:
        yield from places(value, (*path, key))


def replaced(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed: Any = copy.deepcopy(body)
    node = changed
    for key in path[:-1]:
        node = node[key]
    if value is NOTHING:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return dict(changed)


@pytest.mark.parametrize("path", WHOLE)
def test_nothing_that_is_wrong_inside_of_a_request_is_our_fault(
    gateway: Gateway, simulator: Simulator, path: str
) -> None:
    simulator.scenario("say", text='{"a": 1}', times=None)
    wrong = []
    for place in places(WHOLE[path]):
        for value in INSTEAD:
            if place[-1] in ("tools", "functionDeclarations") and value in (5, True):
                continue  # LiteLLM's check of the key fails on these, before any hook of ours
            answer = gateway.http.post(path, json=replaced(WHOLE[path], place, value))
            if answer.status_code >= 500 or "Traceback" in answer.text:
                wrong.append((place, value, answer.status_code, answer.text[:200]))
    assert wrong == []
