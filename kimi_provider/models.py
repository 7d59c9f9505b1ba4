"""The table of models: every name a caller may use, and what it asks the service for (protocol D).

Rows, other names, suffixes, agent ids and retired names are data of `upstream.yaml`; what is here only looks up. Knows
neither protocols nor accounts. A name leads to one row or to ModelNotFound, which says what to use instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import BadRequest, ModelNotFound

#: Callers' words for no thinking at all.
_OFF = ("none", "minimal")


class Row(BaseModel):
    """Any part of `upstream.yaml`: unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def compilable(pattern: str) -> str:
    """`pattern`, when it is a regular expression. Raises ValueError."""
    try:
        re.compile(pattern, re.IGNORECASE)
    except re.error as exc:
        raise ValueError(f"not a regular expression: {exc}") from None
    return pattern


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much thinking is asked of the service: its switch and its own value (`REASONING_EFFORT_LOW`) or None.

    `ignored` and `emulated` name the caller's parameters without effect, and those that get the nearest there is.
    """

    thinking: bool
    value: str | None
    ignored: tuple[str, ...] = ()
    emulated: tuple[str, ...] = ()


class ModelSpec(Row):
    """One way to ask the service: the row of a model name (protocol D.2).

    `efforts` maps a caller's word to the service's value, and `exact_efforts` are those words that the service has
    itself; `effort_on` and `effort_off` are the words used when only thinking on or off was asked. `thinking_always`
    models can't switch thinking off. `protocol` is the generation to prefer while KIMI_PROTOCOL is auto. `silent`: text
    alone, without citation marks, sources or progress; `show_progress`: searches and native tools are told as thinking
    even while the model does not think. `dialect`: how client tools are asked for.
    """

    title: str
    scenario: str
    protocol: Literal["connect", "rest"] | None = None
    model: str | None = None
    kimiplus_id: str | None = None
    agent_mode: str | None = None
    thinking: bool = False
    thinking_always: bool = False
    search: bool = False
    silent: bool = False
    show_progress: bool = False
    enable_plugin: bool = False
    context_length: str | None = None
    context_tokens: int = Field(gt=0)
    tools: tuple[dict[str, Any], ...] = ()
    dialect: str | None = None
    efforts: dict[str, str] = Field(default_factory=dict)
    exact_efforts: frozenset[str] = frozenset()
    effort_on: str | None = None
    effort_off: str | None = None

    @property
    def scope(self) -> str:
        """Names what an account may be refused: `SCENARIO_OK_COMPUTER/k3-agent`, the scenario and the model in it."""
        return "/".join(filter(None, (self.scenario, self.model, self.kimiplus_id, self.agent_mode)))

    def effort_for(self, effort: str | None, thinking: bool | None) -> Effort:
        """What to send for the caller's words; None leaves the row's default. Raises BadRequest for an unknown word."""
        if effort is None:
            thinks = self.thinking_always or (self.thinking if thinking is None else thinking)
            word = self.effort_on if thinks else self.effort_off
            return Effort(
                thinking=thinks,
                value=self.efforts.get(word or ""),
                ignored=("thinking",) if thinks and thinking is False else (),
            )
        if self.efforts and effort not in self.efforts:
            raise BadRequest(f"Unknown reasoning effort '{effort[:40]}'. Choose one of: {', '.join(self.efforts)}.")
        value = self.efforts.get(effort)
        refused = self.thinking_always and (effort in _OFF or value is None)
        nearest = not refused and effort not in self.exact_efforts
        return Effort(
            thinking=self.thinking_always or effort not in _OFF,
            value=value,
            ignored=("reasoning_effort",) if refused else (),
            emulated=("reasoning_effort",) if nearest else (),
        )


def _of_a_row(values: dict[str, Any]) -> dict[str, Any]:
    """Single values of a row, checked as a whole row's are."""
    rest = {"title": "", "scenario": "", "context_tokens": 1}
    try:
        row = ModelSpec.model_validate({**rest, **values})
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return {name: getattr(row, name) for name in values}


#: Fields of `ModelSpec` with their values.
RowValues = Annotated[dict[str, Any], AfterValidator(_of_a_row)]


class SuffixCase(Row):
    """What a suffix replaces in rows that have all values of `fits`."""

    fits: RowValues = Field(default_factory=dict)
    changes: RowValues = Field(default_factory=dict, alias="set")

    def fit(self, row: ModelSpec) -> bool:
        """Whether the case is meant for `row`."""
        return all(getattr(row, name) == value for name, value in self.fits.items())


class AgentIds(Row):
    """Names of `pattern` are ids of Kimi+ agents: `row` with that kimiplus_id (protocol B.4)."""

    pattern: Annotated[str, AfterValidator(compilable)]
    row: ModelSpec

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(self.pattern)


class LiveList(Row):
    """Around the service's own list: how long it is kept, how soon a failed call is repeated, how long anyone waits."""

    keep_s: float = Field(gt=0, allow_inf_nan=False)
    retry_s: float = Field(ge=0, allow_inf_nan=False)
    wait_s: float = Field(gt=0, allow_inf_nan=False)


class ModelTable(Row):
    """The parts of `upstream.yaml` about models."""

    defaults: dict[str, Any] = Field(default_factory=dict, exclude=True)
    models: dict[str, ModelSpec]
    agents: AgentIds
    aliases: dict[str, str]
    retired: dict[str, str]
    suffixes: dict[str, tuple[SuffixCase, ...]]
    live_models: LiveList

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Self:
        for section, names in (("aliases", self.aliases), ("retired", self.retired)):
            for name, target in names.items():
                if self._row(target) is None:
                    raise ValueError(f"{section}.{name}: there is no model '{target}'")
        return self

    def resolve(self, name: str) -> ModelSpec:
        """The row for a client-facing name, suffixes applied. Raises ModelNotFound with what to use instead."""
        base, suffixes = self._apart(name)
        row = self._row(base)
        for suffix in dict.fromkeys(suffixes):
            case = next((case for case in self.suffixes[suffix] if row is not None and case.fit(row)), None)
            row = row.model_copy(update=case.changes) if row is not None and case is not None else None
        if row is not None:
            return row
        shown = name if len(name) <= 80 else name[:77] + "..."
        if successor := self.successor(name):
            raise ModelNotFound(f"'{shown}' is retired: Kimi's web chat no longer has it", cure=f"Use {successor}.")
        near = difflib.get_close_matches(_plain(name), [*self.models, *self.aliases], n=3, cutoff=0.5)
        hint = f" Near names: {', '.join(near)}." if near else ""
        raise ModelNotFound(f"Kimi has no model '{shown}'.{hint}")

    def successor(self, name: str) -> str | None:
        """What to use instead of a retired name, with the same suffixes; None for all other names."""
        base, suffixes = self._apart(name)
        return "-".join((self.retired[base], *suffixes)) if base in self.retired else None

    def knows(self, name: str) -> bool:
        """Whether a lower-case name leads to a row without suffixes."""
        return self._row(name) is not None

    def row_name(self, name: str) -> str:
        """The name under which the table has a row, for any name without suffixes."""
        name = name.lower()
        return self.aliases.get(name, name)

    def label(self, name: str) -> str:
        """The row behind any name, for statistics: suffixes left out, one word for all agents and one for the rest."""
        row = self.row_name(self._apart(name)[0])
        return row if row in self.models else "agent" if self.knows(row) else "other"

    def with_models(self, models: Mapping[str, ModelSpec], aliases: Mapping[str, str]) -> Self:
        """The table with more rows and names; what it has already stays."""
        return self.model_copy(
            update={"models": {**models, **self.models}, "aliases": {**aliases, **self.aliases}},
        )

    def _apart(self, name: str) -> tuple[str, list[str]]:
        """A name as one that the table has, and the suffixes behind it; (name, []) when it has none."""
        base = wanted = _plain(name)
        suffixes: list[str] = []
        while self._row(base) is None and base not in self.retired:
            base, dash, suffix = base.rpartition("-")
            if not dash or suffix not in self.suffixes:
                return wanted, []
            suffixes.append(suffix)
        return base, suffixes[::-1]

    def _row(self, name: str) -> ModelSpec | None:
        name = self.aliases.get(name, name)
        if (row := self.models.get(name)) is None and self.agents.regex.fullmatch(name):
            return self.agents.row.model_copy(update={"kimiplus_id": name})
        return row


def _plain(name: str) -> str:
    return name.strip().lower().removeprefix("kimi/")
