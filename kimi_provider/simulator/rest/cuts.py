"""Legacy answers that break off or never were server-sent events, under the names of the Connect table."""

from __future__ import annotations

from ..playing import Abort, HttpAnswer, Script
from ..scenario.cuts import HTTP_TABLE
from ..scenario.row import Params, Scenario
from .refusals import EVENT_STREAM
from .turn import RestTurn


def _end(params: Params) -> Script:
    if params.count("abort"):
        yield Abort()


def _close_after_done(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.event("done")
    yield from _end(params)


def _close_after_completed(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.event("rename", text="All there")
    yield from _end(params)


def _close_mid_text(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Only the first ")
    yield turn.text("half of")
    yield from _end(params)


def _close_before_text(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield from _end(params)


def _close_before_anything(turn: RestTurn, params: Params) -> Script:
    yield from _end(params)


def _done_then_error(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Almost ")
    yield turn.event("done")
    yield turn.error("openai.completion.stream", "internal error")


def _truncated_frame(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Whole. ")
    yield turn.text("Cut in the middle of this event")[: -params.count("missing")]
    yield from _end(params)


def _garbage(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield b'data: {"event":"cmpl","text":\n\n'
    yield turn.text("After garbage.")
    if params.count("in_trailer"):
        yield b"data: \xff\xfe not json\n\n"
    else:
        yield from turn.closing()


def _no_envelopes(turn: RestTurn, params: Params) -> Script:
    yield b"this body never was an event stream; " * 20


def _empty_200(turn: RestTurn, params: Params) -> Script:
    yield HttpAnswer(status=200, media_type=EVENT_STREAM)


_ABORT = {"abort": 0}

TABLE: tuple[Scenario[RestTurn], ...] = (
    Scenario(
        name="close_after_done",
        description="no all_done after done; abort=1 breaks the connection",
        play=_close_after_done,
        params=_ABORT,
    ),
    Scenario(
        name="close_after_completed",
        description="neither done nor all_done after the title",
        play=_close_after_completed,
        params=_ABORT,
    ),
    Scenario(name="close_mid_text", description="ends in the answer", play=_close_mid_text, params=_ABORT),
    Scenario(name="close_before_text", description="ends after the opening", play=_close_before_text, params=_ABORT),
    Scenario(name="close_before_anything", description="headers only", play=_close_before_anything, params=_ABORT),
    Scenario(name="done_then_error", description="done, then an error event", play=_done_then_error),
    Scenario(
        name="truncated_frame",
        description="the last event lacks bytes",
        play=_truncated_frame,
        params={"missing": 12, "abort": 0},
    ),
    Scenario(
        name="garbage",
        description="unparseable JSON in an event, or in place of the last one",
        play=_garbage,
        params={"in_trailer": 0},
    ),
    Scenario(name="no_envelopes", description="plain words in place of events", play=_no_envelopes),
    Scenario(name="empty_200", description="status 200 with an empty body", play=_empty_200),
    *HTTP_TABLE,
)
