"""Legacy answers that fail (protocol B.6), under the names and parameters of the Connect table.

`carrier` says where an error travels: `trailer` (an `error` event, HTTP 200) or `http` (JSON with a status). Only what
the legacy protocol is known to say has a row: it has no word for quota or paywall.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ..playing import HttpAnswer, Script
from ..scenario import passing
from ..scenario.carried import carried, carried_row
from ..scenario.row import Params, Scenario
from .refusals import ACCOUNT_ABNORMAL, FORBIDDEN, OVERLOADED, PUSHING, TOKEN_INVALID, TOO_LONG, body_of
from .turn import RestTurn

_TIRED = "Kimi is a bit tired, please try again later"
_EXPIRED = "the authorisation has expired"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    name: str
    description: str
    error_type: str
    text: str
    status: int
    carrier: str = "trailer"


_NAMED = (
    _Named(
        name="concurrency",
        error_type=PUSHING,
        text="another answer is still streaming",
        status=400,
        description="another stream of the account is said to run",
    ),
    _Named(
        name="auth_http",
        error_type=TOKEN_INVALID,
        text=_EXPIRED,
        status=401,
        carrier="http",
        description="HTTP 401, JSON",
    ),
    _Named(
        name="not_found",
        error_type="chat.not_found",
        text="chat not found",
        status=404,
        carrier="http",
        description="the chat is gone",
    ),
    _Named(
        name="permission_denied",
        error_type=FORBIDDEN,
        text="this conversation is disabled",
        status=403,
        carrier="http",
        description="chat.forbidden, HTTP 403",
    ),
    _Named(
        name="account_abnormal",
        error_type=ACCOUNT_ABNORMAL,
        text="account abnormal",
        status=403,
        carrier="http",
        description="flagged account, HTTP 403",
    ),
    _Named(name="unavailable", error_type=OVERLOADED, text=_TIRED, status=503, description="overloaded"),
    _Named(name="internal", error_type=OVERLOADED, text="internal error", status=500, description="transient"),
)


def _play_named(row: _Named, turn: RestTurn, params: Params) -> Script:
    return carried(
        turn,
        params,
        whole=lambda: HttpAnswer(status=row.status, body=body_of(row.error_type, row.text)),
        last=lambda: turn.error(row.error_type, row.text),
    )


def _auth_trailer(turn: RestTurn, params: Params) -> Script:
    yield HttpAnswer(status=200, body=body_of(TOKEN_INVALID, _EXPIRED))


def _overloaded(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    if params.text("after"):
        yield turn.text(params.text("after"))
    if params.values.get("done"):
        yield turn.event("done")
    yield turn.error(OVERLOADED, _TIRED)


def _moderated(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    if params.text("after"):
        yield turn.text(params.text("after"))
    yield turn.error(params.text("reason"), "Let's talk about something else.")


def _context_too_long(turn: RestTurn, params: Params) -> Script:
    text = "the conversation is too long"
    if params.text("carrier") == "http":
        yield HttpAnswer(status=400, body=body_of(params.text("reason"), text))
        return
    if params.text("carrier") == "exception":
        yield from turn.opening()
    yield turn.error(params.text("reason"), text)


TABLE: tuple[Scenario[RestTurn], ...] = (
    *(carried_row(row.name, row.description, row.carrier, functools.partial(_play_named, row)) for row in _NAMED),
    Scenario(
        name="auth_trailer",
        description="HTTP 200 with the JSON body of a 401",
        play=_auth_trailer,
        params={"carrier": "trailer", "after": ""},
    ),
    Scenario(
        name="overloaded_after_text", description="overload after text", play=_overloaded, params={"after": "Well, "}
    ),
    Scenario(name="overloaded_before_text", description="overload before text", play=_overloaded, params={"after": ""}),
    Scenario(
        name="overloaded_trailer",
        description="done first, then the overload",
        play=_overloaded,
        params={"after": "", "done": 1},
    ),
    Scenario(
        name="moderated",
        description="error after text; which type moderation has is inferred",
        play=_moderated,
        params={"after": "The first steps are", "reason": FORBIDDEN},
    ),
    Scenario(
        name="moderated_before_text",
        description="error before any text; the type is inferred",
        play=_moderated,
        params={"after": "", "reason": FORBIDDEN},
    ),
    Scenario(
        name="context_too_long",
        description="carrier trailer (bare error event), http or exception (after the opening)",
        play=_context_too_long,
        params={"carrier": "trailer", "reason": TOO_LONG},
        choices={"carrier": ("trailer", "http", "exception")},
    ),
    *passing.TABLE,
    passing.fail_times_of(lambda: TABLE),
)
