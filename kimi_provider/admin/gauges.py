"""The accounts as gauges for Prometheus, read from the account store at each scrape: once, whatever the workers.

Only counts and times over all accounts: no label names one. What the store can't tell while it is away is left out,
and `kimi_account_store_up` says why.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final, get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..errors import Unavailable
from .roster import Roster
from .rows import USABLE, AccountRow, State

_WITHIN_DAYS: Final = (1, 7, 30)


class AccountGauges(Collector):
    """Collects in the thread that scrapes, which the store may block."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def describe(self) -> Iterable[Metric]:
        """Names without a look into the store."""
        return [_store_up(0), *_gauges([], 0)]

    def collect(self) -> Iterable[Metric]:
        """What the store has now."""
        try:
            rows = self._roster.look()
        except Unavailable:
            return [_store_up(0)]
        return [_store_up(1), *_gauges(rows, time.time())]


def _store_up(up: int) -> Metric:
    return GaugeMetricFamily("kimi_account_store_up", "Whether the account store could be read.", up)


def _gauges(rows: list[AccountRow], now: float) -> Iterable[Metric]:
    by_state = Counter(row.state for row in rows)
    states = GaugeMetricFamily("kimi_accounts", "Accounts by state, those of single deployments too.", labels=["state"])
    for state in get_args(State):
        states.add_metric([state], by_state[state])
    yield states
    yield GaugeMetricFamily(
        "kimi_accounts_usable",
        "Accounts that may answer a call without a credential of its own now.",
        sum(row.usable for row in rows if row.shared),
    )
    left_s = [row.understood.expires_at - now for row in rows if row.state in USABLE and row.understood.expires_at]
    expiring = GaugeMetricFamily(
        "kimi_accounts_expiring", "Living accounts whose login ends within so many days.", labels=["days"]
    )
    for days in _WITHIN_DAYS:
        expiring.add_metric([str(days)], sum(one <= days * 86_400 for one in left_s))
    yield expiring
    soonest = GaugeMetricFamily(
        "kimi_accounts_soonest_expiry_seconds", "Until the first login of a living account ends; none while none ends."
    )
    if left_s:
        soonest.add_metric([], min(left_s))
    yield soonest
