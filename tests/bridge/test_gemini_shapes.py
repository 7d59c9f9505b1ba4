"""Gemini's JSON <-> chat JSON: order of results, both spellings, files, tools, streamed calls."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_provider.errors import BadRequest
from kimi_provider.litellm_bridge.gemini import inbound, outbound


def test_function_results_answer_their_calls_before_the_text_beside_them() -> None:
    call = {"functionCall": {"name": "f", "args": {"x": 1}}}
    result = {"functionResponse": {"name": "f", "response": {"y": 2}}}
    chat = inbound.to_chat(
        {
            "contents": [
                {"role": "user", "parts": [{"text": "go"}]},
                {"role": "model", "parts": [{"text": "thinking", "thought": True}, {"text": "ok"}, call, call]},
                {"role": "user", "parts": [{"text": "and then?"}, result, result]},
            ]
        }
    )
    user, model, first, second, text = chat.body["messages"]
    assert user == {"role": "user", "content": "go"}
    assert model["content"] == "ok"
    ids = [one["id"] for one in model["tool_calls"]]
    assert len(set(ids)) == 2
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert (first["role"], first["content"]) == ("tool", '{"y":2}')
    assert text == {"role": "user", "content": "and then?"}


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ),
        (
            {"inline_data": {"mime_type": "image/png", "data": "AAAA"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ),
        (
            {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "format": "application/pdf"}},
        ),
        (
            {"fileData": {"mimeType": "image/png", "fileUri": "https://x.example/a.png"}},
            {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        ),
    ],
)
def test_files_reach_the_provider_in_both_spellings(part: dict[str, Any], wanted: dict[str, Any]) -> None:
    chat = inbound.to_chat({"contents": [{"parts": [{"text": "?"}, part]}]})
    assert chat.body["messages"][-1]["content"] == [{"type": "text", "text": "?"}, wanted]


def test_settings_tools_and_what_has_no_place() -> None:
    chat = inbound.to_chat(
        {
            "contents": "Hi",
            "system_instruction": {"parts": {"text": "Be brief."}},
            "generationConfig": {
                "maxOutputTokens": 9,
                "stopSequences": ["x"],
                "topK": 3,
                "responseMimeType": "application/json",
                "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
                "thinkingConfig": {"thinkingLevel": "LOW"},
            },
            "tools": [
                {"functionDeclarations": [{"name": "g"}, {"name": "f", "parameters": {"type": "OBJECT"}}]},
                {"urlContext": {}},
            ],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        }
    )
    body = chat.body
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], body["stop"], body["reasoning_effort"]) == (9, ["x"], "low")
    assert body["response_format"]["json_schema"]["schema"]["properties"] == {"a": {"type": "string"}}
    (tool,) = body["tools"]
    assert (tool["function"]["name"], tool["function"]["parameters"]) == ("f", {"type": "object"})
    assert body["tool_choice"] == "required"
    assert chat.ignored == ("tools.urlContext", "topK")


@pytest.mark.parametrize("request_", [{"contents": 7}, {"contents": ["x"]}, {"contents": [{"role": "x", "parts": []}]}])
def test_shapes_that_are_none(request_: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        inbound.to_chat(request_)


def test_a_streamed_call_is_sent_once_its_arguments_are_complete() -> None:
    stream = outbound.Stream(model="m", thoughts=True)
    pieces = [
        {"id": "r", "choices": [{"delta": {"content": "See: "}}]},
        {
            "choices": [
                {"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a"'}}]}}
            ]
        },
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
    ]
    sent = [response for piece in pieces for response in stream.feed(piece)]
    assert [r["candidates"][0]["content"]["parts"] for r in sent] == [[{"text": "See: "}]]
    last = stream.close()
    (part,) = last["candidates"][0]["content"]["parts"]
    assert part == {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}}
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"]["totalTokenCount"] == 3
