"""docs/parameters.md: complete by the SDKs' own types, and true of every field that it calls refused or reported."""

from __future__ import annotations

import ast
import json
import re
import typing
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import message_create_params
from google import genai
from google.genai import types
from openai.types.chat import completion_create_params

from tests.gateway.bodies import ASK
from tests.gateway.calling import Gemini
from tests.gateway.test_tools import ADD, ONE, calls, prompts, says
from tests.harness import MASTER_KEY, ROOT, Gateway, Simulator

CHAT, MESSAGES, GEMINI = "OpenAI chat completions", "Anthropic messages", "Gemini generateContent"
FIELDS = {
    CHAT: set(typing.get_type_hints(completion_create_params.CompletionCreateParamsStreaming)),
    MESSAGES: set(typing.get_type_hints(message_create_params.MessageCreateParamsStreaming)),
    GEMINI: {"model", "contents", *types.GenerateContentConfig.model_fields, *types.GenerationConfig.model_fields},
}
#: What is sent of each field that has no effect.
SAMPLES: dict[str, dict[str, Any]] = {
    CHAT: {
        "audio": {"voice": "alloy", "format": "mp3"},
        "frequency_penalty": 0.5,
        "logit_bias": {"1": 2},
        "logprobs": True,
        "modalities": ["text"],
        "moderation": {"model": "any"},
        "prediction": {"type": "content", "content": "x"},
        "presence_penalty": 0.5,
        "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "explicit"},
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "seed": 1,
        "service_tier": "flex",
        "store": True,
        "temperature": 0.5,
        "top_logprobs": 2,
        "top_p": 0.5,
        "verbosity": "low",
    },
    MESSAGES: {
        "cache_control": {"type": "ephemeral"},
        "container": "c",
        "diagnostics": {"previous_message_id": None},
        "inference_geo": "us",
        "service_tier": "auto",
        "speed": "fast",
        "user_profile_id": "u",
        "workspace_id": "w",
    },
    GEMINI: {
        "audio_timestamp": True,
        "audio_transcription_config": {"a": 1},
        "continuation_token": "x",
        "enable_affective_dialog": True,
        "enable_enhanced_civic_answers": True,
        "frequency_penalty": 0.5,
        "generation_output_config": {"a": 1},
        "image_config": {"a": 1},
        "labels": {"a": "b"},
        "logprobs": 2,
        "media_resolution": "MEDIA_RESOLUTION_LOW",
        "model_armor_config": {"a": 1},
        "model_selection_config": {"a": 1},
        "presence_penalty": 0.5,
        "response_format": [{"a": 1}],
        "response_logprobs": True,
        "response_modalities": ["TEXT"],
        "routing_config": {"a": 1},
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT"}],
        "seed": 1,
        "service_tier": "flex",
        "speech_config": {"languageCode": "en"},
        "store": True,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
        "translation_config": {"a": 1},
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    CHAT: {"n": 2},
    MESSAGES: {},
    GEMINI: {"cached_content": "cachedContents/x", "candidate_count": 2},
}
BOTH = pytest.mark.parametrize("api", [CHAT, MESSAGES, GEMINI])


def rows(api: str) -> list[tuple[str, str, str]]:
    """Field, word and test of each row."""
    text = (ROOT / "docs/parameters.md").read_text("utf-8")
    section = text.partition(f"## {api}\n")[2].partition("\n## ")[0]
    lines = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [(line[0].strip("| `"), line[1], line[-1].strip("| `")) for line in lines]


def called(api: str, word: str) -> set[str]:
    return {field for field, kind, _ in rows(api) if kind == word}


@BOTH
def test_every_field_has_a_row(api: str) -> None:
    fields = [field for field, _, _ in rows(api)]
    assert sorted(fields) == sorted(FIELDS[api])
    assert {word for _, word, _ in rows(api)} <= {"honoured", "emulated", "refused", "reported"}


@BOTH
def test_every_rows_test_is_there(api: str) -> None:
    for _, _, test in rows(api):
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        functions = {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, test


def ask(gateway: Gateway, api: str, fields: dict[str, Any], *, stream: bool) -> Any:
    """The answer to a request with `fields`, as the SDK would write them."""
    match api:
        case "OpenAI chat completions":
            body = {"model": "kimi", "messages": ASK, "stream": stream, **fields}
            return gateway.http.post("/v1/chat/completions", json=body)
        case "Anthropic messages":
            names = ("user_profile_id", "workspace_id")
            headers = {f"anthropic-{name.replace('_', '-')}": fields[name] for name in names if name in fields}
            inside = {name: value for name, value in fields.items() if name not in names}
            body = {"model": "kimi", "messages": ASK, "max_tokens": 4000, "stream": stream, **inside}
            return gateway.http.post("/v1/messages", json=body, headers=headers)
    config = {name: value for name, value in fields.items() if name in types.GenerationConfig.model_fields}
    outside = {name: value for name, value in fields.items() if name not in config}
    body = {"contents": ASK[0]["content"], "generationConfig": _camel(config), **_camel(outside)}
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return gateway.http.post(f"/v1beta/models/kimi:{method}", json=body)


def _camel(fields: dict[str, Any]) -> dict[str, Any]:
    return {re.sub(r"_(.)", lambda match: match[1].upper(), name): value for name, value in fields.items()}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@BOTH
def test_what_has_no_effect_is_reported(gateway: Gateway, simulator: Simulator, api: str, stream: bool) -> None:
    assert SAMPLES[api].keys() == called(api, "reported")
    answer = ask(gateway, api, SAMPLES[api], stream=stream)
    assert answer.status_code == 200, answer.text
    named = answer.headers["llm_provider-x-kimi-ignored"].split(",")
    assert {re.sub(r"([A-Z])", r"_\1", name).lower() for name in named} == SAMPLES[api].keys()


@BOTH
def test_what_can_not_be_had_is_refused(gateway: Gateway, simulator: Simulator, api: str) -> None:
    assert REFUSED[api].keys() == called(api, "refused")
    for name, value in REFUSED[api].items():
        assert ask(gateway, api, {name: value}, stream=False).status_code == 400, name
    assert simulator.chat_bodies() == []


@pytest.mark.parametrize(
    ("api", "fields"),
    [
        (CHAT, {"user": "canary-of-a-user", "metadata": {"tag": "canary-of-a-user"}, "store": False}),
        (MESSAGES, {"metadata": {"user_id": "canary-of-a-user"}}),
    ],
)
def test_who_asks_stays_in_the_gateway(
    gateway: Gateway, simulator: Simulator, api: str, fields: dict[str, Any]
) -> None:
    answer = ask(gateway, api, fields, stream=False)
    assert answer.status_code == 200, answer.text
    assert "llm_provider-x-kimi-ignored" not in answer.headers
    assert "canary-of-a-user" not in str(simulator.state()["requests"])


def test_the_newer_name_of_the_limit(gateway: Gateway, simulator: Simulator) -> None:
    says(simulator, "word " * 400)
    (choice,) = ask(gateway, CHAT, {"max_completion_tokens": 10}, stream=False).json()["choices"]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_functions_are_called_in_the_older_form(gateway: Gateway, simulator: Simulator, stream: bool) -> None:
    """OpenAI's form of 2023: `function_call` in requests, answers and the history; messages of the role `function`."""
    says(simulator, "I'd rather not.", f"I add.\n\n{calls(ONE, ONE)}", "It is 3.")
    add = {"name": ADD.name, "description": ADD.description, "parameters": dict(ADD.parameters)}
    asked: dict[str, Any] = {"model": "kimi", "functions": [add], "stream": stream}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER_KEY, max_retries=0) as client:
        first = client.chat.completions.create(messages=ASK, function_call={"name": "add"}, **asked)
        pieces = list(first) if stream else [first]
        choices = [choice for piece in pieces for choice in piece.choices]
        said = [choice.delta if stream else choice.message for choice in choices]
        made = [one.function_call for one in said if one.function_call]
        name, arguments = made[0].name, "".join(one.arguments for one in made)
        assert (name, json.loads(arguments)) == ONE
        assert not any(one.name for one in made[1:])
        assert not any(one.tool_calls for one in said)
        assert choices[-1].finish_reason == "function_call"
        history = [
            *ASK,
            {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": arguments}},
            {"role": "function", "name": name, "content": "the sum is three"},
        ]
        list(client.chat.completions.create(messages=history, function_call="none", **asked))
    forced, _, told = prompts(simulator)
    assert "Adds two numbers." in forced
    assert "Adds two numbers." not in told
    assert told.index('<invoke name="add">') < told.index("[TOOL RESULT for add]\nthe sum is three")


def test_functions_beside_tools_are_reported(gateway: Gateway, simulator: Simulator) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    answer = ask(gateway, CHAT, {"tools": tools, "functions": [{"name": "g"}]}, stream=False)
    assert answer.headers["llm_provider-x-kimi-ignored"] == "functions"


def test_anthropics_effort_and_threads(gateway: Gateway, simulator: Simulator) -> None:
    ask(gateway, MESSAGES, {"output_config": {"effort": "low"}}, stream=False)
    (body,) = simulator.chat_bodies()
    assert body["options"]["thinking"] is True
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key=MASTER_KEY, max_retries=0) as client,
        pytest.raises(anthropic.BadRequestError, match="whole history"),
    ):
        client.beta.messages.create(model="kimi", max_tokens=4000, messages=ASK, thread={"type": "create"})


def test_geminis_http_response(gateway: Gateway, simulator: Simulator) -> None:
    surface = Gemini(gateway.url)
    config = types.GenerateContentConfig(should_return_http_response=True)
    client: genai.Client = surface.client
    response = client.models.generate_content(model="kimi", contents="Hi", config=config).sdk_http_response
    surface.close()
    assert '"candidates"' in response.body
