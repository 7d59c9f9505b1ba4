"""The forms in which clients declare tools and choices -> `ToolSpec` and `ToolChoice`.

OpenAI's chat form is what LiteLLM delivers for most surfaces; the flat Responses form, Anthropic's `input_schema`,
Google's `function_declarations`, `custom` tools (free text, as `content`) and `namespace` groups are read as well. What
is no function, such as a provider's own search, is listed by type: nothing is lost silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ..errors import BadRequest
from ..request import ANY_TOOL, ToolChoice, ToolSpec

_SCHEMA_KEYS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema")
_MODES: dict[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",
    "validated": "auto",
}


def tool_specs(tools: Sequence[Any]) -> tuple[tuple[ToolSpec, ...], tuple[str, ...]]:
    """The functions among `tools`, and the types of what is no function. Raises BadRequest for a name given twice."""
    specs: dict[str, ToolSpec] = {}
    others: list[str] = []
    for tool in tools:
        found = list(_specs(tool))
        if not found:
            others.append(str(tool.get("type") or "unknown") if isinstance(tool, Mapping) else type(tool).__name__)
        for spec in found:
            if specs.setdefault(spec.name, spec) != spec:
                raise BadRequest(f"Two different tools are called '{spec.name[:80]}'")
    return tuple(specs.values()), tuple(dict.fromkeys(others))


def _specs(tool: Any) -> Iterator[ToolSpec]:
    if not isinstance(tool, Mapping):
        return
    declarations = tool.get("function_declarations", tool.get("functionDeclarations"))
    if isinstance(declarations, Sequence) and not isinstance(declarations, str):
        for one in declarations:
            yield from _specs(one)
        return
    kind = tool.get("type")
    below = tool.get("tools")
    if kind == "namespace" and isinstance(below, Sequence) and not isinstance(below, str):
        for one in below:
            for spec in _specs(one):
                yield ToolSpec(
                    name=f"{tool.get('name') or ''}__{spec.name}",
                    description="\n".join(filter(None, (_text(tool.get("description")), spec.description))),
                    parameters=spec.parameters,
                )
        return
    inner = tool.get("custom" if kind == "custom" else "function")
    function: Mapping[str, Any] = inner if isinstance(inner, Mapping) else tool
    name = function.get("name")
    schema = next((function[key] for key in _SCHEMA_KEYS if isinstance(function.get(key), Mapping)), None)
    # A provider's own tools have a name and a type of their own, but no schema.
    if (
        not isinstance(name, str)
        or not name
        or (kind not in (None, "function", "custom", "namespace") and schema is None)
    ):
        return
    if kind == "custom" and schema is None:
        schema = {"type": "object", "properties": {"content": {"type": "string"}}, "required": ["content"]}
    description = _text(function.get("description")) + (_grammar(function.get("format")) if kind == "custom" else "")
    yield ToolSpec(name=name, description=description, parameters=schema or {})


def _grammar(form: Any) -> str:
    """What a custom tool says of its text."""
    grammar = form.get("grammar", form) if isinstance(form, Mapping) else {}
    definition = _text(grammar.get("definition")) if isinstance(grammar, Mapping) else ""
    return (
        f"\nThe content follows this {_text(grammar.get('syntax')) or 'grammar'}:\n{definition}" if definition else ""
    )


def tool_choice(choice: Any) -> ToolChoice:
    """OpenAI's and Anthropic's words for `tool_choice`. Raises BadRequest for any other."""
    if choice is None:
        return ANY_TOOL
    if isinstance(choice, str) and choice.lower() in _MODES:
        return ToolChoice(mode=_MODES[choice.lower()])
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        if kind == "allowed_tools":
            allowed = choice.get("allowed_tools", choice)
            names = tuple(filter(None, map(_name, allowed.get("tools") or ())))
            return ToolChoice(mode=_MODES.get(str(allowed.get("mode")), "auto"), names=names)
        if name := _name(choice):
            return ToolChoice(mode="required", names=(name,))
        if isinstance(kind, str) and kind in _MODES:
            return ToolChoice(mode=_MODES[kind])
        if kind in ("function", "tool", "custom"):
            return ToolChoice(mode="required")
    raise BadRequest("tool_choice must be auto, none, required or the name of a tool")


def _name(choice: Any) -> str:
    if not isinstance(choice, Mapping):
        return ""
    inner = choice.get("function") or choice.get("custom") or choice
    return _text(inner.get("name")) if isinstance(inner, Mapping) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
