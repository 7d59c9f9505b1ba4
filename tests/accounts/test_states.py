"""What each complaint of the service (protocol C.11, B.6) does to the account that met it: what state, how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from kimi_provider import errors
from kimi_provider.accounts import Account, Pool
from kimi_provider.errors import KimiError
from kimi_provider.protocols.failures import classify

from .fakes import UPSTREAM
from .test_pool import Clock, pool_of

pytestmark = pytest.mark.anyio

RETRY = UPSTREAM.retry
#: A model, another one of the same scenario, and one of another scenario.
HERE, BESIDE, ELSEWHERE = "SCENARIO_OK_COMPUTER/k3-agent", "SCENARIO_OK_COMPUTER/k2d6-agent", "SCENARIO_CHAT/k2d6-chat"

MODEL, SCENARIO, ACCOUNT = {HERE}, {HERE, BESIDE}, {HERE, BESIDE, ELSEWHERE}


@dataclass(frozen=True, kw_only=True)
class State:
    """`reach`: the models that rest. `obeyed`: a lone account is not asked earlier either."""

    error: type[KimiError]
    seconds: float
    reach: set[str]
    obeyed: bool = False


def told(reason: str = "", *, code: str = "resource_exhausted", message: str = "", **debug: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "details": {"details": [{"debug": {"reason": reason, **debug}}]}}


LIMITED = State(error=errors.RateLimited, seconds=RETRY.rate_limited_s, reach=SCENARIO, obeyed=True)
QUOTA = State(error=errors.QuotaExhausted, seconds=RETRY.quota_s, reach=SCENARIO, obeyed=True)
STREAMS = State(error=errors.TooManyStreams, seconds=RETRY.concurrency_s, reach=ACCOUNT)
PLAN = State(error=errors.MembershipRequired, seconds=RETRY.plan_s, reach=MODEL)
REFUSED = State(error=errors.PermissionRefused, seconds=RETRY.rate_limited_s, reach=MODEL)
MUTED = State(error=errors.AccountMuted, seconds=RETRY.muted_s, reach=ACCOUNT, obeyed=True)
BUSY = State(error=errors.Overloaded, seconds=RETRY.overloaded_s, reach=SCENARIO)
AWAY = State(error=errors.Unavailable, seconds=RETRY.overloaded_s, reach=ACCOUNT)
FAILED = State(error=errors.UpstreamError, seconds=RETRY.overloaded_s, reach=SCENARIO)
LATE = State(error=errors.UpstreamTimeout, seconds=RETRY.overloaded_s, reach=ACCOUNT)
TOKEN = State(error=errors.CredentialError, seconds=RETRY.rate_limited_s, reach=ACCOUNT)

TABLE: list[tuple[dict[str, Any], State | None]] = [
    (told("RATE_LIMITED"), LIMITED),
    (told("MODEL_RATE_LIMIT"), LIMITED),
    (told("REASON_NOBODY_KNOWS"), LIMITED),
    (told("REASON_QUOTA_EXCEEDED"), QUOTA),
    (told(message="your quota of today is used up"), QUOTA),
    (told("REASON_X", message="too many concurrent requests"), STREAMS),
    (told(paywall={"plan": "x"}), PLAN),
    (told("REASON_QUOTA_EXCEEDED", paywall={"plan": "x"}), PLAN),
    (told(code="permission_denied", message="not for you"), REFUSED),
    (told(code="permission_denied", message="you are muted"), MUTED),
    (told("REASON_SERVER_OVERLOADED_FOR_FREE_USER"), BUSY),
    (told("REASON_COMPLETION_OVERLOADED", code=""), BUSY),
    (told(code="unavailable"), AWAY),
    (told(code="deadline_exceeded"), LATE),
    (told(code="internal"), FAILED),
    (told(code="unknown"), FAILED),
    (told(code="unimplemented"), FAILED),
    (told(code="unauthenticated"), TOKEN),
    (told(code="resource_exhausted", needUpgrade=True, source="membership_quota_notice"), QUOTA),
    # The older protocol's own words.
    (told("auth.token.invalid", code=""), TOKEN),
    (told("chat.user_stream_pushing", code=""), STREAMS),
    (told("openai.completion.stream", code=""), BUSY),
    # Never the account's fault.
    (told("REASON_CONTENT_FILTERED", code=""), None),
    (told(code="invalid_argument", message="content_filter"), None),
    (told(code="invalid_argument"), None),
    (told(code="invalid_argument", message="the message is too long"), None),
    (told(code="not_found"), None),
    (told("openai.completion.token_length_too_long", code=""), None),
    (told("REASON_NOBODY_KNOWS", code="") | {"severity": "SEVERITY_BLOCK_RETRACT"}, None),
]


def met(complaint: dict[str, Any], **more: Any) -> KimiError:
    return classify(**complaint, upstream=UPSTREAM, account="user-0", **more)


async def used(pool: Pool, scope: str, only: Account | None = None) -> Account:
    async with pool.lease(timeout_s=0, scope=scope, only=only) as lease:
        return lease.account


@pytest.mark.parametrize(("complaint", "state"), TABLE)
async def test_each_failure_puts_the_right_thing_aside_for_the_right_time(
    complaint: dict[str, Any], state: State | None
) -> None:
    clock = Clock()
    pool = pool_of(2, clock=clock)
    bad, other = pool.accounts
    pool.report(bad, met(complaint), scope=HERE)
    assert bad.dead is None
    if state is None:
        assert not any(pool.cooling(bad, model) for model in ACCOUNT)
        assert {await used(pool, HERE) for _ in range(2)} == {bad, other}
        return
    found = pool.cooling(bad, HERE)
    assert type(found) is state.error
    assert found.retry_after_s == state.seconds
    assert {model for model in ACCOUNT if pool.cooling(bad, model)} == state.reach
    assert pool.cooling(other, HERE) is None
    assert {await used(pool, HERE) for _ in range(3)} == {other}
    if state.obeyed:
        with pytest.raises(state.error) as caught:
            await used(pool, HERE, only=bad)
        assert caught.value.retry_after_s == state.seconds
    else:
        assert await used(pool, HERE, only=bad) is bad
    clock.now += state.seconds - 1
    assert pool.cooling(bad, HERE) is not None
    clock.now += 1
    assert pool.cooling(bad, HERE) is None
    assert {await used(pool, HERE) for _ in range(2)} == {bad, other}


def test_every_class_of_the_table_of_errors_is_among_them() -> None:
    known = UPSTREAM.errors
    classes = {*known.reasons.values(), *known.codes.values(), *(one.error_class for one in known.patterns)}
    seen = {met(complaint).code for complaint, _ in TABLE} | {errors.AccountSuspended.code}  # of which below
    assert {*classes, known.retract_class} - seen == set()


@pytest.mark.parametrize("complaint", [told("RATE_LIMITED"), told("REASON_QUOTA_EXCEEDED"), told("x", message="muted")])
async def test_the_services_own_retry_after_counts(complaint: dict[str, Any]) -> None:
    clock = Clock()
    pool = pool_of(1, clock=clock)
    error = met(complaint, retry_after_s=7)
    pool.report(pool.accounts[0], error, scope=HERE)
    found = pool.cooling(pool.accounts[0], HERE)
    assert found is not None
    assert found.retry_after_s == 7


@pytest.mark.parametrize(
    "complaint", [told(code="permission_denied", message="account banned"), told("auth.account_abnormal", code="")]
)
async def test_a_banned_account_stops_at_once(complaint: dict[str, Any]) -> None:
    pool = pool_of(2)
    bad, other = pool.accounts
    pool.report(bad, met(complaint), scope=HERE)
    assert {await used(pool, scope) for scope in (HERE, ELSEWHERE) for _ in range(3)} == {other}
    with pytest.raises(errors.AccountSuspended):
        await used(pool, HERE, only=bad)
