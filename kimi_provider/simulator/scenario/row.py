"""What a scenario is: a name, one line of description, parameters with defaults, and a function that writes a script.

Rows are data. A parameter's default fixes its kind; unknown names and values that don't fit are refused, so a typo in
a test can't pass as the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..playing import Script

TurnT = TypeVar("TurnT", contravariant=True)
Value = str | int | float


@dataclass(frozen=True, slots=True)
class Params:
    """Checked parameters of one run."""

    values: Mapping[str, Value]

    def text(self, name: str) -> str:
        """A word."""
        return str(self.values[name])

    def count(self, name: str) -> int:
        """A whole number."""
        return int(self.values[name])

    def number(self, name: str) -> float:
        """Any number."""
        return float(self.values[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario(Generic[TurnT]):
    """One row of a table; `TurnT` is what its scripts speak through."""

    name: str
    description: str
    play: Callable[[TurnT, Params], Script]
    params: Mapping[str, Value] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The words a parameter may be, where not every word will do."""

    def checked(self, given: Mapping[str, object]) -> Params:
        """Defaults overlaid with what was given. ValueError names the parameter that doesn't fit."""
        values = dict(self.params)
        for name, value in given.items():
            if name not in values:
                known = ", ".join(values) or "none"
                raise ValueError(f"scenario {self.name!r} has no parameter {name!r}; it has: {known}")
            kind = type(values[name])
            try:
                values[name] = kind(str(value))
            except ValueError as error:
                raise ValueError(f"parameter {name!r} of {self.name!r} can't be {value!r}") from error
            if name in self.choices and values[name] not in self.choices[name]:
                words = ", ".join(self.choices[name])
                raise ValueError(f"parameter {name!r} of {self.name!r} must be one of {words}")
        return Params(values)
