"""Turns that fail in ways of their own: exceptions inside a stream, overloads, refusals that end (protocol C.11).

Frames 35 to 40, 44 to 47 and 54. `after` puts text before the failure. The shapes of moderation and of a context that
is too long are inferred, so their reasons are parameters.
"""

from __future__ import annotations

from typing import Any

from .. import envelopes, refusals
from ..playing import Script
from ..refusals import Refusal, violation
from ..turn import Turn
from . import named, passing
from .row import Params, Scenario

RETRACT = "SEVERITY_BLOCK_RETRACT"
OVERLOADED = ("REASON_COMPLETION_OVERLOADED", "Busy right now, try again shortly.")
FREE_USER_OVERLOADED = "REASON_SERVER_OVERLOADED_FOR_FREE_USER"


def exception(reason: str, text: str) -> dict[str, Any]:
    """The error inside an exception (frame 35)."""
    return {"error": {"reason": reason, "localizedMessage": {"locale": "en-US", "message": text}, "severity": RETRACT}}


def _fail_in_block(turn: Turn, reason: str, text: str, *, before: str, block_id: str) -> Script:
    if before:
        yield turn.text(before, "1" if block_id == "2" else "2")
    yield turn.block("set", "block.exception", {"id": block_id, "exception": exception(reason, text)})


def _overloaded_exception(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield from _fail_in_block(turn, *OVERLOADED, before=params.text("after"), block_id="2")
    yield turn.completed()
    yield turn.done()
    yield envelopes.trailer()


def _overloaded_trailer(turn: Turn, params: Params) -> Script:
    debug = {
        "reason": FREE_USER_OVERLOADED,
        "localizedMessage": {"locale": "en-US", "message": "Many people are using this. Try later."},
    }
    yield from turn.opening()
    if params.text("after"):
        yield turn.text(params.text("after"))
    if params.count("done"):
        yield turn.done()
    yield turn.failed(Refusal("resource_exhausted", "overloaded", debug=debug))


def _moderated(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    text = "Let's talk about something else."
    yield from _fail_in_block(turn, params.text("reason"), text, before=params.text("after"), block_id="3")
    yield turn.done()
    yield envelopes.trailer()


def _context_too_long(turn: Turn, params: Params) -> Script:
    reason, text = params.text("reason"), "the conversation exceeds the context length"
    refusal = Refusal("invalid_argument", text, debug={"reason": reason})
    match params.text("carrier"):
        case "http":
            yield turn.refused(refusal)
        case "exception":
            yield from turn.opening()
            yield from _fail_in_block(turn, reason, text, before="", block_id="2")
            yield turn.completed()
            yield turn.done()
            yield envelopes.trailer()
        case _:
            yield turn.failed(refusal)


def _violations(turn: Turn, params: Params) -> Script:
    yield turn.refused(violation(params.text("field"), "must not be empty"))


def _event_exception(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    if params.text("after"):
        yield turn.text(params.text("after"))
    yield turn.event({"exception": exception(*OVERLOADED)}, op="set")
    yield turn.done()
    yield envelopes.trailer()


def _error_frame(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    if params.text("after"):
        yield turn.text(params.text("after"))
    yield envelopes.message({"error": refusals.connect_error("internal", "internal error")})
    yield envelopes.trailer()


TABLE: tuple[Scenario[Turn], ...] = (
    *named.TABLE,
    Scenario(
        name="overloaded_after_text",
        description="exception block after some text, which is withdrawn (35-38)",
        play=_overloaded_exception,
        params={"after": "Well, "},
    ),
    Scenario(
        name="overloaded_before_text",
        description="exception block before any text",
        play=_overloaded_exception,
        params={"after": ""},
    ),
    Scenario(
        name="overloaded_trailer",
        description="done first, then the overload of free users as trailer (39-40)",
        play=_overloaded_trailer,
        params={"after": "", "done": 1},
    ),
    Scenario(
        name="moderated",
        description="answer withdrawn after text (44-47); entirely inferred",
        play=_moderated,
        params={"after": "The first steps are", "reason": "REASON_CONTENT_FILTERED"},
    ),
    Scenario(
        name="moderated_before_text",
        description="answer refused before any text; inferred",
        play=_moderated,
        params={"after": "", "reason": "REASON_CONTENT_FILTERED"},
    ),
    Scenario(
        name="context_too_long",
        description="the shape is unknown: carrier trailer, http or exception",
        play=_context_too_long,
        params={"carrier": "trailer", "reason": "REASON_CONTEXT_LENGTH_EXCEEDED"},
        choices={"carrier": ("trailer", "http", "exception")},
    ),
    Scenario(
        name="violations", description="HTTP 400 naming a field (54)", play=_violations, params={"field": "chat_id"}
    ),
    Scenario(name="event_exception", description="event-level exception", play=_event_exception, params={"after": ""}),
    Scenario(
        name="error_frame",
        description="top-level error in a 0x00 frame, then a clean trailer",
        play=_error_frame,
        params={"after": ""},
    ),
    *passing.TABLE,
    passing.fail_times_of(lambda: TABLE),
)
