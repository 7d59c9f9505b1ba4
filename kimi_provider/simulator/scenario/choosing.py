"""How a chat call picks its scenario, whichever protocol it came by.

In this order: the last directive in the prompt, `[[scenario:NAME key=value]]` (values percent-decoded); the header
`x-sim-scenario: NAME key=value`; the queue of `POST /_sim/scenario`; else the recording, when one is played, else the
demo. An unknown name or parameter is refused with near names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import unquote

from ..playing import Script
from ..refusals import Refusal
from ..state import Simulator
from ..streams import RunningStream
from .row import Params, Scenario

HEADER = "x-sim-scenario"
_DIRECTIVE = re.compile(r"\[\[scenario:(.*?)\]\]", re.DOTALL)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen(Generic[T]):
    """A scenario with its parameters, ready to be played."""

    scenario: Scenario[T]
    params: Params

    def script(self, turn: T) -> Script:
        """The steps for one turn."""
        return self.scenario.play(turn, self.params)


class Table(Generic[T]):
    """The scenarios of one protocol; `recorded` is the one that needs a recording."""

    def __init__(self, protocol: str, rows: Iterable[Scenario[T]], *, recorded: Scenario[T]) -> None:
        self.protocol = protocol
        self.rows: Mapping[str, Scenario[T]] = {row.name: row for row in rows}
        self._recorded = recorded

    def asked_for(self, prompt: str, header: str | None) -> Chosen[T] | None:
        """What the request itself asks for; None when it asks for nothing."""
        directives = _DIRECTIVE.findall(prompt)
        words = directives[-1] if directives else header
        if words is None or not words.strip():
            return None
        name, *pairs = words.split()
        params: dict[str, object] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise _refused(f"scenario parameter {pair!r} is not key=value")
            params[key] = unquote(value)
        return self.look_up(name, params)

    def queued(self, simulator: Simulator) -> Chosen[T]:
        """What the control endpoint queued for this chat, else the demo."""
        entry = simulator.take_queued()
        if entry is not None:
            return self.look_up(entry.name, entry.params)
        return self.look_up("demo" if simulator.recording is None else self._recorded.name, {})

    def for_stream(self, simulator: Simulator, chosen: Chosen[T] | None, stream: RunningStream) -> Chosen[T]:
        """What an admitted call plays. The queue is asked only now, so a refused call takes nothing from it."""
        try:
            return chosen or self.queued(simulator)
        except Refusal:  # queued for the other protocol
            simulator.streams.leave(stream)
            raise

    def look_up(self, name: str, params: Mapping[str, object]) -> Chosen[T]:
        """The scenario of that name. Refusal (400) for an unknown name or parameter."""
        row = self._recorded if name == self._recorded.name else self.rows.get(name)
        if row is None:
            near = ", ".join(difflib.get_close_matches(name, self.rows, cutoff=0.4)) or "see /_sim/scenarios"
            raise _refused(f"unknown scenario {name!r}; near: {near} (on {self.protocol})")
        try:
            checked = row.checked(params)
        except ValueError as error:
            raise _refused(str(error)) from error
        if "of" in row.params and checked.text("of") not in self.rows:
            raise _refused(f"unknown scenario {checked.text('of')!r} in of=")
        return Chosen(row, checked)


def _refused(text: str) -> Refusal:
    return Refusal("invalid_argument", text)
