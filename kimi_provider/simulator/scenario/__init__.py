"""The scenarios of the Connect protocol; those of the legacy protocol are in `rest.scenario`, chosen the same way."""

from __future__ import annotations

from ..turn import Turn
from . import answers, cuts, demo, failures, timing
from .choosing import Table

__all__ = ["CONNECT"]

CONNECT: Table[Turn] = Table(
    "connect",
    (
        *demo.TABLE,
        *answers.TABLE,
        *failures.TABLE,
        *cuts.TABLE,
        *timing.TABLE,
        timing.split_of(lambda: CONNECT.rows),
    ),
)
