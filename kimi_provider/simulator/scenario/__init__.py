"""The scenarios of the Connect protocol; those of the legacy protocol are in `rest.scenario`, chosen the same way."""

from __future__ import annotations

from ..call import read_call
from ..replaying import recorded_row
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
    recorded=recorded_row("/Chat", read_call, lambda call: call.wish),
)
