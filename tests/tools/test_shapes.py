"""Tools in the shapes of every surface, as clients declare them and as LiteLLM hands them over."""

from __future__ import annotations

from typing import Any

import pytest
from litellm.responses.litellm_completion_transformation.transformation import LiteLLMCompletionResponsesConfig

from kimi_provider.errors import BadRequest
from kimi_provider.request import ToolChoice, ToolSpec
from kimi_provider.tools import Toolbox
from kimi_provider.tools.shapes import tool_choice, tool_specs

from .corpus import UPSTREAM

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
SPEC = ToolSpec(name="read", description="Reads.", parameters=SCHEMA)
CHAT = {"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": SCHEMA}}


@pytest.mark.parametrize(
    "tool",
    [
        CHAT,
        {"type": "function", "name": "read", "description": "Reads.", "parameters": SCHEMA, "strict": True},
        {"name": "read", "description": "Reads.", "input_schema": SCHEMA},
        {"type": "custom", "name": "read", "description": "Reads.", "input_schema": SCHEMA},
        {"functionDeclarations": [{"name": "read", "description": "Reads.", "parametersJsonSchema": SCHEMA}]},
        {"function_declarations": [{"name": "read", "description": "Reads.", "parameters": SCHEMA}]},
    ],
)
def test_one_tool_in_every_form(tool: dict[str, Any]) -> None:
    assert tool_specs([tool]) == ((SPEC,), ())


def test_what_is_no_function_is_listed() -> None:
    tools = [
        {"type": "web_search"},
        {"type": "computer_20250124", "name": "computer"},
        "x",
        {"type": "web_search"},
        CHAT,
    ]
    assert tool_specs(tools) == ((SPEC,), ("web_search", "computer_20250124", "str"))


def test_the_same_tool_twice_is_one_and_two_of_a_name_are_refused() -> None:
    assert tool_specs([CHAT, CHAT]) == ((SPEC,), ())
    with pytest.raises(BadRequest, match="'read'"):
        tool_specs([CHAT, {"name": "read", "input_schema": {}}])


#: The kinds of tools that Codex CLI declares on the Responses surface.
CODEX: list[Any] = [
    {"type": "function", "name": "exec_command", "description": "Runs.", "parameters": SCHEMA, "strict": False},
    {"type": "custom", "name": "exec", "description": "Runs JavaScript.",
     "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
    {"type": "namespace", "name": "apps", "description": "Connected apps.",
     "tools": [{"type": "function", "name": "list", "description": "Lists.", "parameters": SCHEMA}]},
]  # fmt: skip


def test_codex_tools_arrive_alike_with_and_without_litellm() -> None:
    delivered, _ = LiteLLMCompletionResponsesConfig.transform_responses_api_tools_to_chat_completion_tools(CODEX)
    by_litellm, others = tool_specs(delivered)
    by_us, _ = tool_specs(CODEX)
    assert others == ()
    assert [spec.name for spec in by_litellm] == [spec.name for spec in by_us] == ["exec_command", "exec", "apps__list"]
    for specs in (by_litellm, by_us):
        text = Toolbox(specs, UPSTREAM.tools).instructions
        assert "- exec_command(path: string)" in text
        assert "- exec(content: string)" in text
        assert "start: /.+/" in text
        assert "- apps__list(path: string)" in text
        assert "Connected apps." in text


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="required")),
        ("any", ToolChoice(mode="required")),
        ("ANY", ToolChoice(mode="required")),
        ({"type": "function", "function": {"name": "read"}}, ToolChoice(mode="required", names=("read",))),
        ({"type": "function", "name": "read"}, ToolChoice(mode="required", names=("read",))),
        ({"type": "tool", "name": "read"}, ToolChoice(mode="required", names=("read",))),
        ({"type": "custom", "custom": {"name": "exec"}}, ToolChoice(mode="required", names=("exec",))),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "any"}, ToolChoice(mode="required")),
        ({"type": "none"}, ToolChoice(mode="none")),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "read"}]},
            ToolChoice(mode="auto", names=("read",)),
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CHAT]}},
            ToolChoice(mode="required", names=("read",)),
        ),
    ],
)
def test_choices(said: Any, meant: ToolChoice) -> None:
    assert tool_choice(said) == meant


@pytest.mark.parametrize("said", ["always", 3, {"type": "sometimes"}, []])
def test_an_unknown_choice_is_refused(said: Any) -> None:
    with pytest.raises(BadRequest):
        tool_choice(said)
