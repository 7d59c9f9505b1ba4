"""Errors that differ in words only, one row each (protocol C.11; frames 41 to 43, 48, 49, 53).

`carrier` says where the error travels: `trailer` (HTTP 200, the error ends the stream) or `http` (a real status, no
stream). `after` puts an opening and text before a trailer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from ..playing import Script
from ..refusals import Refusal
from ..turn import Turn
from .carried import carried, carried_row
from .row import Params


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    """A row of errors that differ in words only."""

    name: str
    description: str
    code: str
    text: str
    debug: dict[str, Any] | None = None
    carrier: str = "trailer"


_NAMED = (
    _Named(name="concurrency", code="resource_exhausted", text="too many concurrent requests", description="frame 41"),
    _Named(
        name="quota",
        code="resource_exhausted",
        text="quota used up",
        debug={"reason": "REASON_QUOTA_EXCEEDED"},
        description="frame 42; the reason's name is inferred",
    ),
    _Named(
        name="paywall",
        code="resource_exhausted",
        text="membership required",
        debug={"paywall": {"minMembershipLevel": "LEVEL_BASIC"}},
        description="frame 43",
    ),
    _Named(
        name="auth_http",
        code="unauthenticated",
        text="invalid token",
        carrier="http",
        description="HTTP 401 (frame 48)",
    ),
    _Named(
        name="auth_trailer",
        code="unauthenticated",
        text="token expired",
        description="HTTP 200, then 401's trailer (49)",
    ),
    _Named(
        name="protocol_error",
        code="invalid_argument",
        text="protocol error",
        description="trailer as for bare JSON (53)",
    ),
    _Named(name="not_found", code="not_found", text="chat not found", description="the chat is gone"),
    _Named(name="unavailable", code="unavailable", text="upstream unavailable", description="transient"),
    _Named(name="deadline_exceeded", code="deadline_exceeded", text="deadline exceeded", description="transient"),
    _Named(name="internal", code="internal", text="internal error", description="transient"),
    _Named(name="unknown_error", code="unknown", text="unknown error", description="transient, code unknown"),
    _Named(
        name="permission_denied",
        code="permission_denied",
        text="not allowed",
        carrier="http",
        description="account or feature not allowed, HTTP 403",
    ),
    _Named(
        name="account_abnormal",
        code="permission_denied",
        text="account abnormal",
        debug={"reason": "auth.account_abnormal"},
        carrier="http",
        description="flagged account; the shape on Connect is inferred",
    ),
)


def _play_named(row: _Named, turn: Turn, params: Params) -> Script:
    refusal = Refusal(row.code, row.text, debug=row.debug)
    return carried(turn, params, whole=lambda: turn.refused(refusal), last=lambda: turn.failed(refusal))


TABLE = tuple(
    carried_row(row.name, row.description, row.carrier, functools.partial(_play_named, row)) for row in _NAMED
)
