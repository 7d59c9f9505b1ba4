"""What the service calls an error -> ours (protocol B.6, C.11)."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_provider import errors
from kimi_provider.protocols.failures import _MEANINGS, classify, from_wire, shown

from .frames import UPSTREAM


def wire(**error: Any) -> errors.KimiError:
    return from_wire(error, upstream=UPSTREAM, account="acct")


def detail(**debug: Any) -> list[dict[str, Any]]:
    return [{"type": "x", "value": "y"}, {"debug": debug}]


FULL = "resource_exhausted"
TABLE: list[tuple[dict[str, Any], type[errors.KimiError]]] = [
    # codes
    ({"code": "unauthenticated", "message": "invalid token"}, errors.CredentialError),
    ({"code": "permission_denied"}, errors.PermissionRefused),
    ({"code": "permission_denied", "message": "account banned"}, errors.AccountSuspended),
    ({"code": "invalid_argument", "message": "protocol error"}, errors.BadRequest),
    ({"code": "invalid_argument", "message": "context length exceeded"}, errors.ContextTooLong),
    ({"code": "not_found"}, errors.ChatNotFound),
    ({"code": FULL, "message": "slow down"}, errors.RateLimited),
    ({"code": "unavailable"}, errors.Unavailable),
    ({"code": "unavailable", "message": "server busy"}, errors.Overloaded),
    ({"code": "deadline_exceeded"}, errors.UpstreamTimeout),
    ({"code": "unimplemented"}, errors.UpstreamError),
    ({"code": "internal"}, errors.UpstreamError),
    ({"code": "unknown"}, errors.UpstreamError),
    ({"code": "something_new"}, errors.UpstreamError),
    ({}, errors.UpstreamError),
    # one code, many meanings, in the order of C.11
    (
        {"code": FULL, "message": "quota", "details": detail(paywall={"minMembershipLevel": "x"})},
        errors.MembershipRequired,
    ),
    ({"code": FULL, "message": "quota", "details": detail(reason="REASON_COMPLETION_OVERLOADED")}, errors.Overloaded),
    ({"code": FULL, "message": "overloaded: concurrent quota"}, errors.QuotaExhausted),
    ({"code": FULL, "message": "overloaded: too many concurrent"}, errors.Overloaded),
    ({"code": FULL, "message": "too many concurrent requests"}, errors.TooManyStreams),
    ({"code": FULL, "details": detail(reason="REASON_SERVER_OVERLOADED_FOR_FREE_USER")}, errors.Overloaded),
    ({"code": FULL, "details": detail(reason="REASON_QUOTA_EXCEEDED")}, errors.QuotaExhausted),
    ({"code": FULL, "details": detail(reason="REASON_NEW_QUOTA")}, errors.QuotaExhausted),
    ({"code": FULL, "details": detail(needUpgrade=True, source="membership_quota_notice")}, errors.QuotaExhausted),
    ({"code": FULL, "details": detail(localizedMessage={"message": "server busy"})}, errors.Overloaded),
    ({"code": FULL, "debug": {"reason": "MODEL_RATE_LIMIT"}}, errors.RateLimited),
    ({"code": FULL, "debug": {"paywall": {"x": 1}}}, errors.MembershipRequired),
    ({"code": FULL, "debug": {"paywall": {}}}, errors.RateLimited),
    # exception blocks: a reason, no code
    ({"reason": "REASON_COMPLETION_OVERLOADED", "severity": "SEVERITY_BLOCK_RETRACT"}, errors.Overloaded),
    ({"reason": "REASON_CONTENT_FILTERED"}, errors.ContentFiltered),
    ({"reason": "REASON_NEW", "severity": "SEVERITY_BLOCK_RETRACT"}, errors.ContentFiltered),
    ({"reason": "REASON_TOKEN_LENGTH", "severity": "SEVERITY_BLOCK_RETRACT"}, errors.ContextTooLong),
    ({"reason": "REASON_NEW"}, errors.UpstreamError),
]


@pytest.mark.parametrize(("error", "expected"), TABLE)
def test_classes(error: dict[str, Any], expected: type[errors.KimiError]) -> None:
    failure = wire(**error)
    assert type(failure) is expected
    assert failure.account == "acct"


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [
        ("auth.token.invalid", errors.CredentialError),
        ("auth.account_abnormal", errors.AccountSuspended),
        ("chat.user_stream_pushing", errors.TooManyStreams),
        ("openai.completion.stream", errors.Overloaded),
        ("openai.completion.token_length_too_long", errors.ContextTooLong),
        ("new.kind", errors.UpstreamError),
    ],
)
def test_the_older_protocols_types_are_reasons(error_type: str, expected: type[errors.KimiError]) -> None:
    failure = classify(reason=error_type, message="m", upstream=UPSTREAM, account=None)
    assert type(failure) is expected


def test_pauses() -> None:
    retry = UPSTREAM.retry
    assert wire(code=FULL, message="overloaded").retry_after_s == retry.overloaded_s
    assert wire(code=FULL, message="concurrent").retry_after_s == retry.concurrency_s
    assert wire(code=FULL, message="quota").retry_after_s == retry.quota_s
    assert wire(code=FULL).retry_after_s == retry.rate_limited_s
    assert wire(code="internal").retry_after_s is None
    asked = classify(code=FULL, upstream=UPSTREAM, account=None, retry_after_s=0.0)
    assert asked.retry_after_s == 0.0


def test_texts() -> None:
    assert wire(code=FULL, message="slow\r\n\x1b[31m down").message == "Kimi asks to slow down: slow [31m down"
    assert wire(code=FULL).message == "Kimi asks to slow down (resource_exhausted)"
    assert wire(code="internal", details=[{"debug": {"secret": "s3cret", "stack": "at x"}}]).message == (
        "Kimi failed on its side (internal)"
    )
    localized = detail(reason="R", localizedMessage={"locale": "en-US", "message": "Try later."})
    assert wire(code="unavailable", message="raw", details=localized).message == "Kimi is not available: Try later."
    assert from_wire("plain words", upstream=UPSTREAM, account=None).message == "Kimi failed on its side: plain words"


def test_violations_name_the_field() -> None:
    violations = [{"field": {"elements": [{"fieldName": "message"}, {"fieldName": "id"}, 5]}, "message": "is empty"}]
    assert wire(code="invalid_argument", details=detail(violations=violations)).message == (
        "Kimi refused the request as invalid (message.id: is empty) (invalid_argument)"
    )


@pytest.mark.parametrize(
    "message", ["x" * 301, "eyJhbGciOiJIUzUxMiJ9.e30.x", "see https://a.example/?token=1", "Bearer x"]
)
def test_what_is_not_shown(message: str) -> None:
    assert shown(message) == ""
    assert message not in wire(code="internal", message=message).message


@pytest.mark.parametrize("odd", [None, 5, True, "x", [], {}, ["x"], {"x": 1}, [None, {"debug": 5}, {"debug": {}}]])
@pytest.mark.parametrize(
    "field", ["code", "reason", "message", "details", "severity", "debug", "localizedMessage", "violations", "source"]
)
def test_values_of_any_type(field: str, odd: object) -> None:
    assert isinstance(wire(**{field: odd}), errors.KimiError)
    assert isinstance(wire(details=[{"debug": {field: odd}}]), errors.KimiError)
    assert isinstance(wire(debug={"violations": [{"field": odd, "message": odd}]}), errors.KimiError)
    assert isinstance(wire(debug={"violations": [{"field": {"elements": odd}}]}), errors.KimiError)
    assert isinstance(from_wire(odd, upstream=UPSTREAM, account=None), errors.KimiError)


def test_every_class_the_table_names_exists() -> None:
    table = UPSTREAM.errors
    named = {
        *table.reasons.values(),
        *table.codes.values(),
        *(p.error_class for p in table.patterns),
        table.retract_class,
    }
    assert named <= _MEANINGS.keys()
