"""What accounts met, and for how long that puts them aside.

Quota, rate limits and being muted are obeyed to the second, even by the only account: asking earlier can only make it
worse. Overload, unavailability, foreign streams, plans and refused permissions merely make others preferable: a lone
account is tried again at once, because the next answer may well come. A refused token counts as that, too: whether a
credential is dead for good is the TokenKeeper's to say. What is the caller's fault, refused content included, or what
the model wrote, never counts.

An error is remembered for what it is about, its scope: all of the account (""), a scenario (`SCENARIO_OK_COMPUTER`:
quota, rate limits and overload are the service's per scenario), or one model in it (`SCENARIO_OK_COMPUTER/k3-agent`:
what the plan or the service does not allow). So an empty K3 quota doesn't stop plain chat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import (
    AccountMuted,
    BadRequest,
    CredentialError,
    CredentialMissing,
    KimiError,
    MembershipRequired,
    Overloaded,
    PermissionRefused,
    QuotaExhausted,
    RateLimited,
    TooManyStreams,
    Unavailable,
    UnusableAnswer,
    UpstreamError,
    UpstreamTimeout,
    again,
)
from ..upstream import Retry


@dataclass(frozen=True, kw_only=True, slots=True)
class Cooldown:
    """Why and until when (monotonic seconds) an account is put aside for `scope`. `hard` is obeyed, the others are a
    preference.
    """

    error: KimiError
    scope: str
    until: float
    hard: bool

    def remaining(self, now: float) -> KimiError:
        """The error to raise, with the seconds left."""
        error = again(self.error)
        error.retry_after_s = max(0.0, self.until - now)
        return error


def cooldown_of(error: KimiError, scope: str, now: float, retry: Retry) -> Cooldown | None:
    """What `error`, met with the model of `scope`, means for the account; None when it is not its fault."""
    if isinstance(error, BadRequest | CredentialMissing | UnusableAnswer):
        return None
    pause_s = _pause_s(error, retry)
    if pause_s is None:
        return None
    if isinstance(error, AccountMuted | TooManyStreams | Unavailable | UpstreamTimeout | CredentialError):
        scope = ""
    elif not isinstance(error, PermissionRefused):
        scope = _scenario(scope)
    return Cooldown(
        error=again(error),
        scope=scope,
        until=now + pause_s,
        hard=isinstance(error, AccountMuted | RateLimited) and not isinstance(error, TooManyStreams),
    )


def _pause_s(error: KimiError, retry: Retry) -> float | None:
    if error.retry_after_s is not None and error.retry_after_s > 0:
        return error.retry_after_s
    if isinstance(error, AccountMuted):
        return retry.muted_s
    if isinstance(error, MembershipRequired):
        return retry.plan_s
    if isinstance(error, QuotaExhausted):
        return retry.quota_s
    if isinstance(error, TooManyStreams):
        return retry.concurrency_s
    if isinstance(error, RateLimited | PermissionRefused | CredentialError):
        return retry.rate_limited_s
    return retry.overloaded_s if isinstance(error, Overloaded | Unavailable | UpstreamError | UpstreamTimeout) else None


def _scenario(scope: str) -> str:
    return scope.partition("/")[0]


class Cooldowns:
    """Those of one account, at most one for each scope."""

    def __init__(self) -> None:
        self._by_scope: dict[str, Cooldown] = {}

    def put(self, cooldown: Cooldown) -> None:
        """The latest word for its scope counts."""
        self._by_scope[cooldown.scope] = cooldown

    def clear(self) -> None:
        """Forget them all."""
        self._by_scope.clear()

    def now(self, scope: str, now: float) -> Cooldown | None:
        """What counts for the model of `scope`."""
        for name in [name for name, entry in self._by_scope.items() if entry.until <= now]:
            del self._by_scope[name]
        found = [self._by_scope[name] for name in {"", _scenario(scope), scope} if name in self._by_scope]
        return max(found, key=lambda entry: (entry.hard, entry.until), default=None)

    def get(self, scope: str) -> Cooldown | None:
        """That of exactly `scope`, ended or not."""
        return self._by_scope.get(scope)

    def __iter__(self) -> Iterator[Cooldown]:
        return iter(tuple(self._by_scope.values()))
