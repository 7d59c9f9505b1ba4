"""What is wrong with accounts, as their owner should be told: of each the worst thing only, and whether any is left.

Judged from what the account store holds, so that every process of a fleet comes to the same result, also when no call
is made. Accounts that their owner has paused, and those whose credential can't be read here, are not judged. Tells
nobody: that is for `alerts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ..errors import Unavailable
from ..settings import Settings
from ..store import RefreshFailures, StoredAccount, TokenPair, Transaction
from ..upstream import Upstream
from .account import Account
from .credential import claims_of

_DAY_S: Final = 86_400

#: `ends_*`: the session will be over; `failing`: it can't be renewed now; `ended`: it is over, or was refused for good;
#: `stopped`: the service has flagged the account; `none_left`: no account can answer.
Trouble = Literal["ends_in_7_days", "ends_in_1_day", "failing", "ended", "stopped", "none_left"]

#: The owner is told when so much of a session is left.
AHEAD_S: Final[dict[Trouble, int]] = {"ends_in_1_day": _DAY_S, "ends_in_7_days": 7 * _DAY_S}
#: Refreshes that fail in a row, for so long at least, are told of: fewer are a hiccup of the network.
FAILING_COUNT: Final = 3
FAILING_S: Final = 60
#: An account of a deployment is judged when it has been called in these days; others were merely asked about.
IN_USE_DAYS: Final = 7
#: Judge again after this, whatever happens.
REVIEW_S: Final = 3600

#: Stands for all accounts together.
FLEET: Final = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What is the case with an account, or with all together (`FLEET`). `why` is the error's own text, if there is one;
    `left_s` is how long the session lasts, where that is known.
    """

    account_id: str
    short_id: str
    trouble: Trouble | None = None
    why: str = ""
    left_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """All findings. Nothing can be said now of `unjudged` accounts; time alone changes nothing for `valid_s`."""

    findings: tuple[Finding, ...]
    unjudged: frozenset[str]
    valid_s: float


def review(rows: Transaction, settings: Settings, upstream: Upstream) -> Review:
    """Judge all accounts of the store, inside a transaction. Raises Unavailable."""
    resting = {one.account_id: one.left_s for one in rows.accounts.cooling() if one.hard and not one.scope}
    failing = rows.tokens.failing()
    called = {one.account_id for one in rows.usage.since(IN_USE_DAYS)}
    findings: list[Finding] = []
    unjudged: set[str] = set()
    shared: list[bool] = []
    changes = [REVIEW_S, *resting.values()]
    for row in rows.accounts.all():
        if not row.shared and row.id not in called:
            continue
        pair = _pair(rows, row)
        if pair is None:
            unjudged |= {row.id, FLEET} if row.shared else {row.id}
            continue
        account = Account.stored(row.id, row.short_id, pair, set(), settings, upstream)
        if account.homeless(upstream):
            continue
        left_s, ahead = _remaining(account, rows.now)
        finding = _judged(row, pair, failing.get(row.id), left_s, ahead)
        if row.enabled:
            findings.append(finding)
        else:
            unjudged.add(row.id)
        if row.shared:
            shared.append(row.enabled and finding.trouble not in ("stopped", "ended") and row.id not in resting)
        if left_s is not None:
            changes += [left_s - mark for mark in (0, *ahead.values()) if left_s > mark]
    if not shared:
        unjudged.add(FLEET)
    elif FLEET not in unjudged:
        findings.append(Finding(account_id=FLEET, short_id="", trouble=None if any(shared) else "none_left"))
    return Review(findings=tuple(findings), unjudged=frozenset(unjudged), valid_s=max(0.0, min(changes)))


def _pair(rows: Transaction, row: StoredAccount) -> TokenPair | None:
    try:
        return rows.tokens.load(row.id)
    except Unavailable:  # sealed with a key that is not here; the newsroom has said so
        return None


def _remaining(account: Account, now: float) -> tuple[float | None, dict[Trouble, int]]:
    """How long the session lasts, and how long before its end its owner is told: a token that nothing renews (protocol
    A.1) may have less to live from the beginning.
    """
    pair = account.tokens.pair
    claims = claims_of(pair.access if pair.refresh is None else pair.refresh)
    if claims is None or claims.exp is None:
        return None, {}
    life_s = claims.life_s if pair.refresh is None else None
    return claims.exp - now, {name: mark for name, mark in AHEAD_S.items() if life_s is None or life_s > mark}


def _judged(
    row: StoredAccount,
    pair: TokenPair,
    failures: RefreshFailures | None,
    left_s: float | None,
    ahead: dict[Trouble, int],
) -> Finding:
    trouble: Trouble | None = None
    why = ""
    if row.stopped is not None:
        trouble, why = "stopped", row.stopped.message
    elif pair.refused is not None:
        trouble, why = "ended", pair.refused.message
    elif left_s is not None and left_s <= 0:
        trouble = "ended"
    elif failures is not None and failures.count >= FAILING_COUNT and failures.since_s >= FAILING_S:
        trouble, why = "failing", failures.failure.message
    elif left_s is not None:
        trouble = next((name for name, mark in ahead.items() if left_s <= mark), None)
    return Finding(account_id=row.id, short_id=row.short_id, trouble=trouble, why=why, left_s=left_s)
