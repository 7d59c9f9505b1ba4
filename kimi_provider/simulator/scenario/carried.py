"""Errors that travel in one of two ways, on either protocol: with a status of their own, or at the end of a stream.

`carrier` says which: `http` (no stream) or `trailer` (HTTP 200). `after` puts an opening and text before a trailer.
"""

from __future__ import annotations

from collections.abc import Callable

from ..playing import HttpAnswer, Script
from .row import Params, Scenario, TurnT
from .speaker import Speaker


def carried(turn: Speaker, params: Params, *, whole: Callable[[], HttpAnswer], last: Callable[[], bytes]) -> Script:
    """The error: the `whole` answer, or the `last` frame of one."""
    if params.text("carrier") == "http":
        yield whole()
        return
    if params.text("after"):
        yield from turn.opening()
        yield turn.text(params.text("after"))
    yield last()


def carried_row(name: str, description: str, carrier: str, play: Callable[[TurnT, Params], Script]) -> Scenario[TurnT]:
    """A row for such an error; `carrier` is the default."""
    return Scenario(
        name=name,
        description=description,
        play=play,
        params={"carrier": carrier, "after": ""},
        choices={"carrier": ("trailer", "http")},
    )
