"""Rows of `tools` in upstream.yaml: how client tools are described to the model and how its calls are spelled.

Values only. The service has no function tools (protocol E.4), so every text and tag of the emulation is a finding
that may change: data, never code.
"""

from __future__ import annotations

from string import Template
from typing import Annotated, Any, Literal, Self

import regex
from pydantic import AfterValidator, Field, model_validator

from .models import Row


def _template(text: str) -> str:
    if not Template(text).is_valid():
        raise ValueError("a lone '$' must be written '$$'")
    return text


def _tag(pattern: str) -> str:
    if not pattern or pattern[0] in "([.^" or pattern[:2] in ("\\w", "\\s", "\\b"):
        raise ValueError("must begin with a character that stands for itself")
    try:
        regex.compile(pattern.replace("{name}", "x"))
    except regex.error as exc:
        raise ValueError(f"not a regular expression: {exc}") from None
    return pattern


#: Text with `$word` in places that the room `tools` fills in.
Text = Annotated[str, AfterValidator(_template)]
#: A regular expression; `{name}` stands for a tool's name.
Tag = Annotated[str, AfterValidator(_tag)]


class Family(Row):
    """One spelling of a call: `start` up to `end`, with the arguments (or JSON that names the tool) in between."""

    start: Tag
    end: Tag


class Families(Row):
    """Every spelling that is understood, whatever dialect was asked for (protocol E.5).

    `named`: the start holds the tool's name. `json`: the body is JSON that holds it. `noise`: tags that only wrap
    calls; `closing`: the same, but only behind a call, elsewhere such tags are text. `parameter` and `parameter_end`:
    tags around one argument (`{name}` is its name); `arguments`: around all. Every pattern begins with the character
    that it matches first. Names in `plain_tags` are never read as `<name>...</name>`.
    """

    named: tuple[Family, ...]
    json_calls: tuple[Family, ...] = Field(alias="json")
    noise: tuple[Tag, ...]
    closing: tuple[Tag, ...]
    parameter: tuple[Tag, ...]
    parameter_end: Tag
    arguments: Tag
    name_keys: frozenset[str]
    argument_keys: frozenset[str]
    wrapper_keys: frozenset[str]
    name_prefixes: tuple[str, ...]
    plain_tags: frozenset[str]


class ExampleTurn(Row):
    """A turn of a seeded example. `call` is spelled by the dialect and stands behind `text`."""

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    name: str | None = None
    call: dict[str, Any] | None = None


class Dialect(Row):
    """How calls are asked for and written in the history.

    A call is `call` with `$name` and `$arguments`: JSON, or a `parameter` (`$key`, `$value`) for each. Calls of a turn
    are joined by `between` and stand between `before` and `after`. `device_tools` adds an entry for each tool to the
    request, `system_prompt` moves the instructions into that option: what either does is open (protocol G.13).
    """

    instructions: Text
    before: str = ""
    call: Text
    parameter: Text | None = None
    between: str = "\n"
    after: str = ""
    example: tuple[ExampleTurn, ...] = ()
    device_tools: bool = False
    system_prompt: bool = False


class ToolTexts(Row):
    """Sentences of every dialect."""

    required: Text
    named: Text
    single: str
    result: Text
    failed_result: Text
    attachment: Text
    unknown_tool: Text
    not_allowed: Text
    malformed: Text
    no_call: Text
    repair: Text


class JsonTexts(Row):
    """Sentences that ask for an answer in JSON (`response_format`)."""

    any_object: str
    by_schema: Text
    repair: Text


class Tools(Row):
    """The whole section. `budget_chars` bounds what descriptions may add to signatures, which are never cut."""

    default_dialect: str
    dialects: dict[str, Dialect]
    budget_chars: int = Field(gt=0)
    max_repairs: int = Field(ge=0, le=2)
    rename_prefix: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    native_names: frozenset[str]
    device_tool: dict[str, str]
    texts: ToolTexts
    structured: JsonTexts
    families: Families

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        if self.default_dialect not in self.dialects:
            raise ValueError(f"default_dialect: there is no dialect '{self.default_dialect}'")
        return self

    def dialect(self, name: str | None) -> Dialect:
        """The dialect of a model's row; None, or one that an overlay has removed, is the default."""
        return self.dialects.get(name or "") or self.dialects[self.default_dialect]
