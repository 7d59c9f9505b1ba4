"""How the service says no (protocol C.11): a code, a message, details, carried by an HTTP status or by a trailer.

One exception for every strict check of the simulator. What carries it belongs to the refusal, because the service
answers HTTP 200 with a trailer for some mistakes and a real status for others (protocol C.12, frames 48, 53, 54).
"""

from __future__ import annotations

from typing import Any, Literal

import orjson
from starlette.responses import Response

from .envelopes import trailer

Carrier = Literal["http", "trailer"]

STATUS_OF_CODE = {
    "canceled": 499,
    "invalid_argument": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "resource_exhausted": 429,
    "internal": 500,
    "unknown": 500,
    "unimplemented": 501,
    "unavailable": 503,
    "deadline_exceeded": 504,
}
STREAM_TYPE = "application/connect+json"
UNARY_TYPE = "application/json"


class Refusal(Exception):
    """A request the service would not serve."""

    def __init__(
        self, code: str, text: str, *, debug: dict[str, Any] | None = None, type_: str = "", carrier: Carrier = "http"
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.carrier = carrier
        self.error = connect_error(code, text, debug=debug, type_=type_)

    def response(self) -> Response:
        """The answer on the wire."""
        if self.carrier == "trailer":
            return Response(trailer(self.error), media_type=STREAM_TYPE)
        return Response(orjson.dumps(self.error), STATUS_OF_CODE[self.code], media_type=UNARY_TYPE)


def connect_error(code: str, text: str, *, debug: dict[str, Any] | None = None, type_: str = "") -> dict[str, Any]:
    """The error object of Connect JSON: `{code, message, details?}`; reasons sit in `details[].debug`."""
    error: dict[str, Any] = {"code": code, "message": text}
    if debug is not None:
        error["details"] = [{"type": type_, "debug": debug} if type_ else {"debug": debug}]
    return error


def violation(path: str, problem: str) -> Refusal:
    """A field the service refuses, named by its dotted path in snake case (protocol C.12, frame 54)."""
    elements = [{"fieldName": name} for name in path.split(".")]
    return Refusal(
        "invalid_argument",
        "validation failed",
        debug={"violations": [{"field": {"elements": elements}, "message": problem}]},
        type_="buf.validate.Violations",
    )


def unauthenticated(text: str = "invalid token") -> Refusal:
    """Frame 48."""
    return Refusal("unauthenticated", text)


def paywall(level: str) -> Refusal:
    """Frame 43: the plan of the account doesn't include this."""
    return Refusal(
        "resource_exhausted",
        "membership required",
        debug={"paywall": {"minMembershipLevel": level}},
        carrier="trailer",
    )


def too_many_streams() -> Refusal:
    """Frame 41."""
    return Refusal("resource_exhausted", "too many concurrent requests", carrier="trailer")
