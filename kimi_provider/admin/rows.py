"""What is shown of an account: values for the page, the API and the command alike. No secret fits into them.

Times are Unix seconds, tokens of usage are estimates. An account is in exactly one state: the first that applies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from ..accounts import Credential, TokenPair
from ..accounts.understanding import Understood
from ..errors import KimiError
from ..store import AuditEntry, StoredAccount, StoredCooldown, StreamCount, Usage
from ..upstream import Upstream

State = Literal["stopped", "paused", "refused", "expired", "cooling", "expiring", "ok"]

#: In these an account may answer.
USABLE: Final[frozenset[State]] = frozenset({"cooling", "expiring", "ok"})
#: A session that ends earlier is on its way out.
EXPIRING_S: Final = 7 * 86_400

#: Events of the audit trail that somebody may ask about.
FAILURES: Final = frozenset({"put aside", "stopped", "refresh refused", "refresh cut short"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Usage of one account over some days."""

    answers: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of(cls, account_id: str, usage: Sequence[Usage]) -> Counts:
        """Sums over all models."""
        total = sum((one for one in usage if one.account_id == account_id), Usage(account_id=account_id, model=""))
        return cls(
            answers=total.answers,
            failures=total.failures,
            prompt_tokens=total.prompt_tokens,
            completion_tokens=total.completion_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CooldownRow:
    """What puts an account aside; `scope` is a scenario of the service, a model in it (`SCENARIO_CHAT/k3`), or "" for
    all of the account.
    """

    scope: str
    code: str
    message: str
    hard: bool
    until: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureRow:
    """Something that went wrong with an account. `event` is the audit trail's word for it, "" when it still goes on;
    `pause_s` and `scope` tell for how long and for what an account was put aside.
    """

    at: float | None
    short_id: str
    code: str
    message: str
    event: str = ""
    pause_s: float | None = None
    scope: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountRow:
    """One account. `usable`: it may answer now; `shared`: it answers calls without a credential of their own."""

    id: str
    state: State
    usable: bool
    shared: bool
    enabled: bool
    understood: Understood
    streams: int = 0
    waiting: int = 0
    cooldowns: tuple[CooldownRow, ...] = ()
    last_error: FailureRow | None = None
    today: Counts = field(default_factory=Counts)
    month: Counts = field(default_factory=Counts)

    @property
    def short_id(self) -> str:
        """What people see."""
        return self.understood.short_id


Outcome = Literal["added", "updated"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What became of one credential that was given."""

    id: str
    outcome: Outcome
    understood: Understood


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """Whether the service takes the account's token now, and why not; `live` is None when it can't be told now."""

    short_id: str
    live: bool | None
    failure: KimiError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Readiness:
    """Whether a call could be answered now. `hint`: what threatens the accounts, as a sentence."""

    usable: int
    by_state: Mapping[str, int]
    hint: str | None
    retry_after_s: float | None

    @property
    def total(self) -> int:
        """Accounts that calls share."""
        return sum(self.by_state.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """What the store has noted of all accounts at time `now`."""

    now: float
    cooling: Sequence[StoredCooldown] = ()
    streams: Sequence[StreamCount] = ()
    today: Sequence[Usage] = ()
    month: Sequence[Usage] = ()
    audit: Sequence[AuditEntry] = ()


def account_row(account: StoredAccount, pair: TokenPair, notes: Notes, upstream: Upstream) -> AccountRow:
    """Put together what is known of `account`."""
    understood = Understood.of(Credential.of(refresh=pair.refresh, access=pair.access), upstream)
    # An account that was named before its user was known keeps its name.
    understood = replace(understood, short_id=account.short_id)
    cooldowns = tuple(
        CooldownRow(
            scope=one.scope,
            code=one.failure.code,
            message=one.failure.message,
            hard=one.hard,
            until=notes.now + one.left_s,
        )
        for one in notes.cooling
        if one.account_id == account.id
    )
    state = _state(account, pair, understood, cooldowns, notes.now)
    count = next((one for one in notes.streams if one.account_id == account.id), None)
    return AccountRow(
        id=account.id,
        state=state,
        usable=state in USABLE and not any(one.hard and not one.scope for one in cooldowns),
        shared=account.shared,
        enabled=account.enabled,
        understood=understood,
        streams=count.held + count.elsewhere if count else 0,
        waiting=count.others_waiting if count else 0,
        cooldowns=cooldowns,
        last_error=_last_error(account, pair, cooldowns, notes),
        today=Counts.of(account.id, notes.today),
        month=Counts.of(account.id, notes.month),
    )


def _state(
    account: StoredAccount, pair: TokenPair, understood: Understood, cooldowns: tuple[CooldownRow, ...], now: float
) -> State:
    if account.stopped is not None:
        return "stopped"
    if not account.enabled:
        return "paused"
    if pair.refused is not None:
        return "refused"
    left_s = None if understood.expires_at is None else understood.expires_at - now
    if left_s is not None and left_s <= 0:
        return "expired"
    if cooldowns:
        return "cooling"
    return "expiring" if left_s is not None and left_s < EXPIRING_S else "ok"


def _last_error(
    account: StoredAccount, pair: TokenPair, cooldowns: tuple[CooldownRow, ...], notes: Notes
) -> FailureRow | None:
    noted = next((one for one in notes.audit if one.account_id == account.id and one.event in FAILURES), None)
    at = noted.at if noted else None
    for failure in (account.stopped, pair.refused):
        if failure is not None:
            return FailureRow(at=at, short_id=account.short_id, code=failure.code, message=failure.message)
    if cooldowns:
        worst = max(cooldowns, key=lambda one: one.until)
        return FailureRow(at=at, short_id=account.short_id, code=worst.code, message=worst.message)
    return failure_row(noted, account.short_id) if noted else None


def failure_row(entry: AuditEntry, short_id: str) -> FailureRow:
    """An entry of the audit trail, whose detail begins with the code of the error."""
    code, *aside = entry.detail.split(" ") if entry.event in ("put aside", "stopped") else [""]
    pause_s, scope = None, ""
    if len(aside) >= 3:  # "rate_limited for 30 s SCENARIO_CHAT"
        pause_s, scope = float(aside[1]), " ".join(aside[3:])
    return FailureRow(
        at=entry.at,
        short_id=short_id,
        code=code,
        message=entry.detail,
        event=entry.event,
        pause_s=pause_s,
        scope=scope,
    )


def account_json(row: AccountRow, now: float) -> dict[str, Any]:
    """The shape that the API and `--json` give; stable, additions only."""
    known = row.understood
    return {
        "id": row.id,
        "short_id": row.short_id,
        "state": row.state,
        "usable": row.usable,
        "shared": row.shared,
        "enabled": row.enabled,
        **said(known, now),
        "streams": row.streams,
        "waiting": row.waiting,
        "cooldowns": [
            {"scope": one.scope, "code": one.code, "message": one.message, "hard": one.hard, "until": one.until}
            for one in row.cooldowns
        ],
        "last_error": failure_json(row.last_error) if row.last_error else None,
        "usage": {"today": counts_json(row.today), "last_30_days": counts_json(row.month)},
    }


def said(known: Understood, now: float) -> dict[str, Any]:
    """What was understood of a credential, as JSON."""
    return {
        "kind": known.kind,
        "region": known.region,
        "plan": known.plan,
        "expires_at": known.expires_at,
        "renewable": known.renewable,
        "simulated": known.simulated,
        "missing": known.missing(now) or None,
    }


def failure_json(failure: FailureRow) -> dict[str, Any]:
    """A failure, as JSON."""
    return {
        "at": failure.at,
        "account": failure.short_id,
        "event": failure.event or None,
        "code": failure.code or None,
        "message": failure.message,
    }


def counts_json(counts: Counts) -> dict[str, int]:
    """Usage, as JSON."""
    return {
        "answers": counts.answers,
        "failures": counts.failures,
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
    }
