"""The table of the legacy protocol, and the questions about both tables at once.

A name that both know means the same thing on either and takes the same parameters, so one queued scenario serves
whichever protocol the next chat call speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..replaying import recorded_row
from ..scenario import CONNECT, timing
from ..scenario.choosing import Table
from . import answers, cuts, failures
from .call import read_completion
from .turn import RestTurn

REST: Table[RestTurn] = Table(
    "rest",
    (*answers.TABLE, *failures.TABLE, *cuts.TABLE, *timing.TABLE, timing.split_of(lambda: REST.rows)),
    recorded=recorded_row("/completion/stream", read_completion, lambda call: call.wish),
)
_TABLES: tuple[Table[Any], ...] = (CONNECT, REST)


def check_anywhere(name: str, params: Mapping[str, object]) -> None:
    """Refusal (400) unless some protocol knows the scenario and its parameters."""
    table: Table[Any] = REST if name in REST.rows and name not in CONNECT.rows else CONNECT
    table.look_up(name, params)


def describe_all() -> list[dict[str, object]]:
    """Both tables as one, for `GET /_sim/scenarios`: Connect's words where both know a name."""
    rows = {name: row for table in reversed(_TABLES) for name, row in table.rows.items()}
    ordered = {**dict.fromkeys(CONNECT.rows), **dict.fromkeys(REST.rows)}
    return [
        {
            "name": name,
            "description": rows[name].description,
            "params": dict(rows[name].params),
            "protocols": [table.protocol for table in _TABLES if name in table.rows],
        }
        for name in ordered
    ]
