"""Legacy answers that break off at a point the Connect protocol does not have."""

from __future__ import annotations

from ..playing import Script
from ..scenario.cuts import ABORT, SHARED, end
from ..scenario.row import Params, Scenario
from .turn import RestTurn


def _close_after_done(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.done()
    yield from end(params)


def _close_after_completed(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.event("rename", text="All there")
    yield from end(params)


TABLE: tuple[Scenario[RestTurn], ...] = (
    Scenario(
        name="close_after_done",
        description="no all_done after done; abort=1 breaks the connection",
        play=_close_after_done,
        params=ABORT,
    ),
    Scenario(
        name="close_after_completed",
        description="neither done nor all_done after the title",
        play=_close_after_completed,
        params=ABORT,
    ),
    *SHARED,
)
