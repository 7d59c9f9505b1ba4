"""What the service calls an error, as ours (protocol B.6, C.11).

Law: the table decides (`errors` of upstream.yaml), this module only fixes the order: paywall, known reason, patterns
(quota, overload, concurrency, ...), withdrawn block, code. Every shape is taken as it comes: a value of a wrong type
counts as absent. Of the service's words only its own short message reaches the error's text, cleaned; details never.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..errors import (
    AccountMuted,
    AccountSuspended,
    BadRequest,
    ChatNotFound,
    ContentFiltered,
    ContextTooLong,
    CredentialError,
    KimiError,
    MembershipRequired,
    ModelNotFound,
    NotFound,
    Overloaded,
    PermissionRefused,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    TooManyStreams,
    Unavailable,
    UnusableAnswer,
    UpstreamError,
    UpstreamTimeout,
)
from ..upstream import Retry, Upstream

MAX_MESSAGE_CHARS: Final = 300
#: A hostile message of megabytes must not keep the patterns busy.
MAX_SEARCHED_CHARS: Final = 4000

#: Stable code (values of upstream.yaml) -> class and the sentence that opens its text.
_MEANINGS: Final[dict[str, tuple[type[KimiError], str]]] = {
    cls.code: (cls, text)
    for cls, text in (
        (BadRequest, "Kimi refused the request as invalid"),
        (ContextTooLong, "The conversation is too long for Kimi"),
        (ContentFiltered, "Kimi withdrew or refused this answer"),
        (CredentialError, "Kimi rejected the credential"),
        (PermissionRefused, "Kimi does not allow this for the account"),
        (MembershipRequired, "The account's Kimi plan does not include this"),
        (AccountMuted, "Kimi lets the account not chat for a while"),
        (AccountSuspended, "Kimi has flagged the account"),
        (NotFound, "Kimi does not know what was asked for"),
        (ChatNotFound, "Kimi does not know the chat"),
        (ModelNotFound, "Kimi does not know the model"),
        (RateLimited, "Kimi asks to slow down"),
        (TooManyStreams, "Other answers of the account are still running"),
        (QuotaExhausted, "The account's Kimi quota is used up"),
        (UpstreamError, "Kimi failed on its side"),
        (ProtocolError, "Kimi sent something unusable"),
        (UnusableAnswer, "Kimi wrote something else than was asked for"),
        (Overloaded, "Kimi is overloaded"),
        (Unavailable, "Kimi is not available"),
        (UpstreamTimeout, "Kimi took too long"),
    )
}

#: A credential or an address with a query: a message with one is not shown (design of `errors`).
_UNSAFE: Final = re.compile(r"eyJ[\w-]{8}|://\S*\?|bearer ", re.IGNORECASE)


def from_wire(error: object, *, upstream: Upstream, account: str | None) -> KimiError:
    """The error of any Connect carrier: `{code, message, details[].debug{reason, ...}}` of an HTTP body, a trailer or
    a frame, `{reason, localizedMessage, severity}` of an exception block. Never raises.
    """
    if not isinstance(error, dict):
        error = {"message": error}
    return classify(
        code=error.get("code"),
        reason=error.get("reason"),
        message=error.get("message"),
        details=error,
        severity=error.get("severity"),
        upstream=upstream,
        account=account,
    )


def classify(
    *,
    code: object = "",
    reason: object = "",
    message: object = "",
    details: object = None,
    severity: object = "",
    upstream: Upstream,
    account: str | None,
    retry_after_s: float | None = None,
) -> KimiError:
    """The KimiError for what the service said; never raises.

    `code` is a Connect code (empty for an exception block), `reason` its reason or REST's `error_type`. `details` is
    searched for `debug` objects: a list of details, or the whole error with `details` and `debug` in it.
    `retry_after_s` is what the service itself asked for; without it the table's value is used.
    """
    debugs = list(_debugs(details))
    code, reason, severity = _text(code), _text(reason), _text(severity)
    reason = reason or next((r for debug in debugs if (r := _text(debug.get("reason")))), "")
    localized = next((t for debug in debugs if (t := _localized(debug))), "")
    spoken = " ".join(filter(None, (reason, _text(message), localized, *(_text(d.get("source")) for d in debugs))))
    paywall = any(debug.get("paywall") for debug in debugs)
    meaning = _meaning(code, reason, spoken[:MAX_SEARCHED_CHARS], severity, paywall, upstream)

    cls, text = _MEANINGS.get(meaning, _MEANINGS[UpstreamError.code])
    if field := next(filter(None, map(_violation, debugs)), ""):
        text = f"{text} ({field})"
    if words := shown(localized or message):
        text = f"{text}: {words}"
    elif reason_words := shown(reason or code):
        text = f"{text} ({reason_words})"
    pause_s = _pause_s(cls, upstream.retry) if retry_after_s is None else retry_after_s
    return cls(text, account=account, retry_after_s=pause_s)


def shown(message: object) -> str:
    """The service's own message as it may be shown: one line without control characters; empty when too long or
    when it could hold a credential.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in _text(message)[: MAX_MESSAGE_CHARS * 4]).split())
    return "" if len(text) > MAX_MESSAGE_CHARS or _UNSAFE.search(text) else text


def _meaning(code: str, reason: str, spoken: str, severity: str, paywall: bool, upstream: Upstream) -> str:
    table = upstream.errors
    if paywall:
        return MembershipRequired.code
    if reason in table.reasons:
        return table.reasons[reason]
    for pattern in table.patterns:
        if code in pattern.codes and pattern.regex.search(spoken):
            return pattern.error_class
    if severity in table.retract_severities:
        return table.retract_class
    return table.codes.get(code, UpstreamError.code)


def _debugs(details: object) -> Iterator[Mapping[str, Any]]:
    """Every place where reason, message and paywall were seen: the error itself, its `debug`, `details[].debug`."""
    if isinstance(details, dict):
        yield details
        if isinstance(debug := details.get("debug"), dict):
            yield debug
        details = details.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(debug := detail.get("debug"), dict):
            yield debug


def _localized(debug: Mapping[str, Any]) -> str:
    message = debug.get("localizedMessage")
    return _text(message.get("message")) if isinstance(message, dict) else ""


def _violation(debug: Mapping[str, Any]) -> str:
    """`chat_id: must not be empty` of buf.validate's violations, the first one."""
    violations = debug.get("violations")
    first = violations[0] if isinstance(violations, list) and violations else None
    if not isinstance(first, dict):
        return ""
    field = first.get("field")
    elements = field.get("elements") if isinstance(field, dict) else None
    steps = elements if isinstance(elements, list) else []
    path = ".".join(name for step in steps if isinstance(step, dict) and (name := _text(step.get("fieldName"))))
    return ": ".join(filter(None, (shown(path), shown(first.get("message")))))


def _pause_s(cls: type[KimiError], retry: Retry) -> float | None:
    pauses: dict[type[KimiError], float] = {
        Overloaded: retry.overloaded_s,
        TooManyStreams: retry.concurrency_s,
        QuotaExhausted: retry.quota_s,
        RateLimited: retry.rate_limited_s,
    }
    return pauses.get(cls)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
