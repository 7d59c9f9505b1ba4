"""What the simulated service does wrong, and what callers are told: the status and our stable code, by protocol.

Each API's own word for a status is its surface's to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .world import PROTOCOLS, SUSPENDED


@dataclass(frozen=True, kw_only=True)
class Failure:
    scenario: str
    status: int
    code: str
    protocols: tuple[str, ...] = PROTOCOLS
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str = "kimi"


CONNECT, REST = (("connect",), ("rest",))


def _row(scenario: str, status: int, code: str, protocols: tuple[str, ...] = PROTOCOLS, **more: Any) -> Failure:
    return Failure(scenario=scenario, status=status, code=code, protocols=protocols, **more)


#: Nothing of an answer has been seen: a real status.
BEFORE_THE_FIRST_EVENT = (
    _row("auth_http", 401, "credential_rejected"),
    _row("auth_trailer", 401, "credential_rejected"),
    _row("violations", 400, "invalid_request", CONNECT),
    _row("protocol_error", 400, "invalid_request", CONNECT),
    _row("context_too_long", 400, "context_length_exceeded"),
    _row("moderated_before_text", 400, "content_filter", CONNECT),
    # Which error REST has for it is not known (protocol G.2); this is the nearest.
    _row("moderated_before_text", 403, "permission_refused", REST),
    _row("paywall", 403, "membership_required", CONNECT),
    _row("permission_denied", 403, "permission_refused"),
    _row("account_abnormal", 403, "account_suspended", model=SUSPENDED),
    _row("not_found", 404, "chat_not_found", CONNECT),
    # REST opens a chat first: that one unknown means that the call is gone (protocol B.1).
    _row("not_found", 502, "upstream_error", REST),
    _row("concurrency", 429, "too_many_streams"),
    _row("quota", 429, "quota_exhausted", CONNECT),
    _row("rate_limited", 429, "rate_limited", params={"retry_after_s": 0}),
    _row("internal", 502, "upstream_error", CONNECT),
    _row("internal", 503, "overloaded", REST),  # one error_type for both (protocol B.6)
    _row("unknown_error", 502, "upstream_error", CONNECT),
    _row("error_frame", 502, "upstream_error", CONNECT),
    _row("event_exception", 503, "overloaded", CONNECT),
    _row("html_page", 503, "unavailable"),
    _row("html_200", 502, "upstream_protocol"),
    _row("redirect", 502, "upstream_error"),
    _row("empty_200", 502, "upstream_protocol"),
    _row("close_before_anything", 502, "upstream_protocol"),
    _row("close_before_text", 502, "upstream_protocol"),
    _row("no_envelopes", 502, "upstream_protocol"),
    _row("overloaded_before_text", 503, "overloaded"),
    _row("overloaded_trailer", 503, "overloaded"),
    _row("unavailable", 503, "unavailable", CONNECT),
    _row("unavailable", 503, "overloaded", REST),
    _row("deadline_exceeded", 504, "timeout", CONNECT),
)

#: Text has been seen: the stream ends as an error. The status is that of the same answer asked for whole.
IN_MID_STREAM = (
    _row("overloaded_after_text", 503, "overloaded"),
    _row("done_then_error", 502, "upstream_error", CONNECT),
    _row("done_then_error", 503, "overloaded", REST),
    _row("moderated", 403, "permission_refused", REST),
    _row("close_mid_text", 502, "upstream_protocol"),
    _row("close_mid_text", 502, "upstream_protocol", params={"abort": 1}),
    _row("close_after_completed", 502, "upstream_protocol", REST),  # a title ends nothing
    _row("truncated_frame", 502, "upstream_protocol"),
    _row("oversized_header", 502, "upstream_protocol", CONNECT),
)


def of(table: Iterable[Failure], protocol: str) -> list[Failure]:
    """Those that one protocol has and the pool's account survives."""
    return [one for one in table if protocol in one.protocols and one.model != SUSPENDED]
