"""What a caller is told when we answer instead of the gateway: in the format of the API it called, with the status that
its kind of client handles best.

Pure. Measured: Claude Code and the SDKs retry a 503 unless `x-should-retry: false` comes with it; Codex reconnects for
25 s on a 503, Gemini CLI retries for more than a minute, and both show a 400 at once; on a refused WebSocket Codex
falls back at once only after a 426. Claude Code calls an `overloaded_error` an outage of Anthropic, so that type is
never used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from .routes import Dialect

SERVED_BY = "x-kimi-served-by"


class Failure(Enum):
    """Why we answer: status, then the error's type in OpenAI's, Anthropic's and Google's words."""

    GATEWAY_DOWN = (503, "server_error", "api_error", "UNAVAILABLE")
    BROKEN = (500, "server_error", "api_error", "INTERNAL")
    TOO_LARGE = (413, "invalid_request_error", "request_too_large", "INVALID_ARGUMENT")
    ENCODING_UNKNOWN = (415, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT")
    BODY_BROKEN = (400, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT")
    MODEL_UNKNOWN = (404, "invalid_request_error", "not_found_error", "NOT_FOUND")
    REFUSED = (403, "invalid_request_error", "permission_error", "PERMISSION_DENIED")
    WEBSOCKET = (426, "invalid_request_error", "invalid_request_error", "FAILED_PRECONDITION")

    @property
    def status(self) -> int:
        """The HTTP status for clients that can be told not to retry."""
        return self.value[0]


class Refused(Exception):
    """The call goes nowhere; `failure` and the text are for its caller."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks: its API, and whether it repeats what ends with 5xx, whatever the headers say."""

    dialect: Dialect
    stubborn: bool = False

    @classmethod
    def of(cls, dialect: Dialect, *, originator: bytes, user_agent: bytes) -> Caller:
        """From two request headers; Codex names itself in both, Gemini CLI in the second."""
        stubborn = originator.startswith(b"codex") or user_agent.startswith((b"codex", b"GeminiCLI"))
        return cls(dialect=dialect, stubborn=stubborn)

    def told(self, failure: Failure, message: str) -> Reply:
        """The answer that makes this caller show `message` and stop."""
        status = failure.status
        if self.stubborn and status >= 500:
            status = 400
        headers = {"content-type": "application/json", "x-should-retry": "false", SERVED_BY: "kimi-mitm"}
        if status == 503:
            headers["retry-after"] = "5"
        if failure is Failure.WEBSOCKET:
            headers |= {"upgrade": "HTTP/1.1"}
        return Reply(status=status, headers=headers, body=json.dumps(self._error(failure, status, message)).encode())

    def _error(self, failure: Failure, status: int, message: str) -> dict[str, object]:
        _, openai, anthropic, google = failure.value
        message = f"kimi-mitm: {message}"
        match self.dialect:
            case "anthropic":
                return {"type": "error", "error": {"type": anthropic, "message": message}}
            case "gemini":
                return {"error": {"code": status, "message": message, "status": google}}
            case _:
                code = f"kimi_mitm_{failure.name.lower()}"
                return {"error": {"message": message, "type": openai, "param": None, "code": code}}
