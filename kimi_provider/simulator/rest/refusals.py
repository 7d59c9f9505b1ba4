"""How the legacy protocol says no (protocol B.6): `{"error_type","message","detail"}` with a status.

The document records six error types. The others here are ours, for mistakes whose type nobody recorded:
`request.*`, `chat.not_found`, `chat.segment_not_found`, `chat.research.used_up`, `kimiplus.not_found`, `file.*`.
"""

from __future__ import annotations

import orjson
from starlette.responses import Response

from .. import refusals

TOKEN_INVALID = "auth.token.invalid"  # noqa: S105 - the name of an error
ACCOUNT_ABNORMAL = "auth.account_abnormal"
FORBIDDEN = "chat.forbidden"
PUSHING = "chat.user_stream_pushing"
OVERLOADED = "openai.completion.stream"
TOO_LONG = "openai.completion.token_length_too_long"

EVENT_STREAM = "text/event-stream"
JSON = refusals.UNARY_TYPE


def body_of(error_type: str, message: str, detail: str = "") -> bytes:
    """The JSON body."""
    return orjson.dumps({"error_type": error_type, "message": message, "detail": detail})


class RestRefusal(Exception):
    """A legacy call the service would not serve; `detail` names the field, where there is one."""

    def __init__(self, error_type: str, message: str, status: int, detail: str = "") -> None:
        super().__init__(message)
        self.error_type = error_type
        self.status = status
        self.body = body_of(error_type, message, detail)

    def response(self) -> Response:
        """The answer on the wire."""
        return Response(self.body, self.status, media_type=JSON)


def invalid(field: str, problem: str) -> RestRefusal:
    """A field the service refuses."""
    return RestRefusal("request.invalid", f"{field} {problem}", 400, field)


def translated(refusal: refusals.Refusal) -> RestRefusal:
    """What shared checks say, in the legacy words."""
    match refusal.code:
        case "unauthenticated":
            return RestRefusal(TOKEN_INVALID, "the authorisation has expired", 401)
        case "resource_exhausted":
            return RestRefusal("request.rate_limited", refusal.text, 429)
        case "internal":
            return RestRefusal(OVERLOADED, refusal.text, 500)
        case _:
            return RestRefusal("request.invalid", refusal.text, 400)
