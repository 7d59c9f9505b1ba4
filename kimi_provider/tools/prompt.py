"""Client tools as words: what the model is told, and how its earlier calls and their results are written down.

The service takes no tool definitions (protocol E.4), so one `Toolbox` per request describes them in the dialect that
the model follows best, and makes the parser that reads the answer. Law: what `calls_text` writes, the parser reads
back as the same calls; names, types and required arguments of every tool are told, however many there are, only
descriptions are cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import Template
from typing import Any, Literal

from ..dialects import Dialect, Tools
from ..errors import BadRequest
from ..request import ANY_TOOL, ToolCall, ToolChoice, ToolSpec
from .calls import new_call_id
from .markup import ENTITY, markup
from .mending import parsed
from .names import Names
from .parser import Outcome, ToolParser
from .schemas import View, signature, standard

#: Characters left of a tool's description, tried in this order.
_LIMITS = (None, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleTurn:
    """A turn to put before the real ones."""

    role: Literal["user", "assistant", "tool"]
    text: str


class Toolbox:
    """The tools of one request. Raises BadRequest when the choice names a tool that is not there."""

    def __init__(
        self,
        specs: Sequence[ToolSpec],
        data: Tools,
        *,
        dialect: str | None = None,
        choice: ToolChoice = ANY_TOOL,
        parallel: bool = True,
    ) -> None:
        unknown = sorted(set(choice.names) - {spec.name for spec in specs})
        if unknown:
            raise BadRequest(f"tool_choice names '{unknown[0][:80]}', which is not among the tools")
        if choice.mode == "required" and not specs:
            raise BadRequest("tool_choice asks for a call, but there are no tools")
        self._data = data
        self._dialect: Dialect = data.dialect(dialect)
        self._choice = choice
        self._parallel = parallel
        self._specs = tuple(replace(spec, parameters=standard(spec.parameters)) for spec in specs)
        self.names = Names((spec.name for spec in specs), data)
        self._markup = markup(data.families)

    @property
    def active(self) -> bool:
        """The model may call something: there are instructions to send and an answer to parse."""
        return bool(self._specs) and self._choice.mode != "none"

    def parser(self, *, first_index: int = 0, new_id: Callable[[], str] = new_call_id) -> ToolParser:
        """A parser for one answer; `first_index` continues the numbering after a repair."""
        return ToolParser(
            self._specs,
            self.names,
            self._data.families,
            choice=self._choice,
            parallel=self._parallel,
            first_index=first_index,
            new_id=new_id,
        )

    # --- what the request holds -----------------------------------------------------------------------------------

    @property
    def instructions(self) -> str:
        """Text to put behind the system text; empty when there is nothing to call, or when it goes elsewhere."""
        return "" if self._dialect.system_prompt else self._instructions

    @property
    def system_prompt(self) -> str | None:
        """The same for the service's option of that name, where the dialect says so (protocol C.2)."""
        return self._instructions or None if self._dialect.system_prompt else None

    @property
    def device_tools(self) -> tuple[dict[str, str], ...]:
        """Entries for the request's own list of tools, where the dialect says so (protocol C.2)."""
        if not self._dialect.device_tools or not self.active:
            return ()
        return tuple({**self._data.device_tool, "name": self.names.written(spec.name)} for spec in self._offered())

    @property
    def example(self) -> tuple[ExampleTurn, ...]:
        """A made-up exchange to put before the history."""
        if not self.active:
            return ()
        turns = []
        for number, turn in enumerate(self._dialect.example):
            text = turn.text
            if turn.role == "tool":
                text = self.result_text(f"example_{number - 1}", turn.text)
            elif turn.call is not None and turn.name is not None:
                call = ToolCall(id=f"example_{number}", name=turn.name, arguments=json.dumps(turn.call))
                text = f"{text}\n\n{self.calls_text([call])}".lstrip()
            turns.append(ExampleTurn(role=turn.role, text=text))
        return tuple(turns)

    @cached_property
    def _instructions(self) -> str:
        if not self.active:
            return ""
        texts, rules = self._data.texts, []
        if self._choice.mode == "required":
            names = ", ".join(map(self.names.written, self._choice.names))
            rules.append(Template(texts.named).substitute(names=names) if names else texts.required)
        if not self._parallel:
            rules.append(texts.single)
        rule_text = "".join(f"\n{rule}" for rule in rules) + ("\n" if rules else "")
        return Template(self._dialect.instructions).substitute(rules=rule_text, tools=self._described())

    def _offered(self) -> Iterable[ToolSpec]:
        return (spec for spec in self._specs if not self._choice.names or spec.name in self._choice.names)

    def _described(self) -> str:
        """Every tool; descriptions are cut in halves until they fit the budget."""
        tools = []
        for spec in self._offered():
            view = View(spec.parameters)
            members = {key: view.member(key) for key in dict.fromkeys((*view.required, *view.properties))}
            head = _head(self.names.written(spec.name), members, view.required)
            tools.append((head, spec.description.strip(), _remarks(members)))
        text = ""
        for limit_chars in _LIMITS:
            text = "\n".join(_entry(head, description, remarks, limit_chars) for head, description, remarks in tools)
            if len(text) <= self._data.budget_chars:
                break
        return text

    # --- the history ----------------------------------------------------------------------------------------------

    def calls_text(self, calls: Sequence[ToolCall]) -> str:
        """Calls that the assistant made in one turn, in the dialect's own spelling."""
        if not calls:
            return ""
        dialect = self._dialect
        written = (
            Template(dialect.call).substitute(
                name=self.names.written(call.name), arguments=self._arguments_text(call.arguments)
            )
            for call in calls
        )
        return f"{dialect.before}{dialect.between.join(written)}{dialect.after}"

    def result_text(self, call_id: str, text: str, *, failed: bool = False, attachments: int = 0) -> str:
        """What a tool returned, under its header. `attachments`: images and files that are sent beside it."""
        texts = self._data.texts
        lines = [Template(texts.failed_result if failed else texts.result).substitute(id=call_id)]
        if text:
            lines.append(text)
        if attachments:
            lines.append(Template(texts.attachment).substitute(count=_count(attachments)))
        return "\n".join(lines)

    def repair_text(self, outcome: Outcome) -> str:
        """What to tell the model when its calls could not be used; the next message in the same chat."""
        texts = self._data.texts
        sentences = {
            "unknown_tool": texts.unknown_tool,
            "not_allowed": texts.not_allowed,
            "malformed": texts.malformed,
        }
        problems = [Template(sentences[one.reason]).substitute(name=one.name) for one in outcome.refused]
        if outcome.missing and not problems:
            problems.append(texts.no_call)
        names = ", ".join(self.names.written(spec.name) for spec in self._offered())
        return Template(texts.repair).substitute(problems=" ".join(dict.fromkeys(problems)), names=names)

    def _arguments_text(self, arguments: str) -> str:
        found = _object(arguments)
        if self._dialect.parameter is None:
            return json.dumps(found, ensure_ascii=False)
        parameter = Template(self._dialect.parameter)
        return "".join(parameter.substitute(key=key, value=self._value_text(value)) for key, value in found.items())

    def _value_text(self, value: Any) -> str:
        """An argument between tags, escaped when the parser could take it for something else."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        patterns = (self._markup.boundary, self._markup.parameter, self._markup.parameter_end)
        if any(pattern.search(text) for pattern in patterns) or (
            ENTITY.search(text) and not ENTITY.sub("", text).count("&") and "<" not in text
        ):
            return text.replace("&", "&amp;").replace("<", "&lt;")
        return text


def _object(arguments: str) -> dict[str, Any]:
    found = parsed(arguments)
    return found if isinstance(found, dict) else {}


def _head(name: str, members: Mapping[str, View], required: Sequence[str]) -> str:
    """`- read(path: string, limit?: integer)`."""
    fields = (f"{key}{'' if key in required else '?'}: {signature(view, 1)}" for key, view in members.items())
    return f"- {name}({', '.join(fields)})"


def _remarks(members: Mapping[str, View]) -> list[tuple[str, str]]:
    """Descriptions of arguments, each on one line."""
    remarks = ((key, view.schema.get("description")) for key, view in members.items())
    return [(key, " ".join(remark.split())) for key, remark in remarks if isinstance(remark, str)]


def _entry(head: str, description: str, remarks: list[tuple[str, str]], limit_chars: int | None) -> str:
    """A tool with what is said of it, indented; an argument's remark gets a quarter of the tool's space."""
    remark_chars = None if limit_chars is None else limit_chars // 4
    lines = [head, *filter(None, [_cut(description, limit_chars)])]
    lines += [f"{key}: {text}" for key, remark in remarks if (text := _cut(remark, remark_chars))]
    return "\n".join(lines).replace("\n", "\n  ")


def _cut(text: str, limit_chars: int | None) -> str:
    if limit_chars is None or len(text) <= limit_chars:
        return text
    head = text[:limit_chars].rsplit(None, 1)[0] if limit_chars else ""
    return f"{head}…" if head else ""


def _count(number: int) -> str:
    return "1 file or image" if number == 1 else f"{number} files or images"
