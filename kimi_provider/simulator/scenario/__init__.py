"""The table of scenarios, and how a Chat call picks one.

In this order: the last directive in the prompt, `[[scenario:NAME key=value]]` (values percent-decoded); the header
`x-sim-scenario: NAME key=value`; the queue of `POST /_sim/scenario`; else the demo. An unknown name or parameter is
refused with near names. A third protocol's scenarios would be one more module with a TABLE.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from urllib.parse import unquote

from ..playing import Script
from ..refusals import Refusal
from ..state import Simulator
from ..turn import Turn
from . import answers, cuts, demo, failures, timing
from .row import Params, Scenario

__all__ = ["HEADER", "SCENARIOS", "Chosen", "asked_for", "describe", "look_up", "queued"]

HEADER = "x-sim-scenario"
_DIRECTIVE = re.compile(r"\[\[scenario:(.*?)\]\]", re.DOTALL)

SCENARIOS: Mapping[str, Scenario] = {
    row.name: row
    for row in (
        *demo.TABLE,
        *answers.TABLE,
        *failures.TABLE,
        *cuts.TABLE,
        *timing.TABLE,
        timing.split_of(lambda: SCENARIOS),
    )
}


class Chosen:
    """A scenario with its parameters, ready to be played."""

    def __init__(self, scenario: Scenario, params: Params) -> None:
        self.scenario = scenario
        self.params = params

    def script(self, turn: Turn) -> Script:
        """The steps for one turn."""
        return self.scenario.play(turn, self.params)


def asked_for(prompt: str, header: str | None) -> Chosen | None:
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
    return look_up(name, params)


def queued(simulator: Simulator) -> Chosen:
    """What the control endpoint queued for this chat, else the demo."""
    entry = simulator.take_queued()
    return look_up(entry.name, entry.params) if entry is not None else look_up("demo", {})


def look_up(name: str, params: Mapping[str, object]) -> Chosen:
    """The scenario of that name. Refusal (400) for an unknown name or parameter."""
    row = SCENARIOS.get(name)
    if row is None:
        near = ", ".join(difflib.get_close_matches(name, SCENARIOS, cutoff=0.4)) or "see /_sim/scenarios"
        raise _refused(f"unknown scenario {name!r}; near: {near}")
    try:
        checked = row.checked(params)
    except ValueError as error:
        raise _refused(str(error)) from error
    if "of" in row.params and checked.text("of") not in SCENARIOS:
        raise _refused(f"unknown scenario {checked.text('of')!r} in of=")
    return Chosen(row, checked)


def describe() -> list[dict[str, object]]:
    """The table, for `GET /_sim/scenarios`."""
    return [
        {"name": row.name, "description": row.description, "params": dict(row.params)} for row in SCENARIOS.values()
    ]


def _refused(text: str) -> Refusal:
    return Refusal("invalid_argument", text)
