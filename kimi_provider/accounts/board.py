"""What this process knows of its accounts, in one place for the pool and its part in the fleet.

One lock guards it all. A `Load` counts streams: those that run here, those that this process may run (`held`), and
those of other processes. Without an account store, and while it can't be reached, a process counts for itself.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import KimiError, PermissionRefused
from .account import Account
from .cooldowns import Cooldown, Cooldowns


@dataclass(slots=True)
class Load:
    """Streams of one account, and what puts it aside."""

    running: int = 0
    last_used: int = 0
    cooldowns: Cooldowns = field(default_factory=Cooldowns)
    #: Its owner pauses it; the store says that the service has stopped it.
    paused: bool = False
    stopped: bool = False
    #: Nobody else counts: the limit is kept by this process alone.
    alone: bool = True
    #: Streams that the fleet lets this process run, and under which limit it said so.
    held: int = 0
    held_under: int = 0
    #: Of other processes, as far as known; how many of them wait for one.
    elsewhere: int = 0
    others_waiting: int = 0
    #: The fleet has none left for the last wish.
    refused: bool = False
    #: Since when (monotonic seconds) some of `held` do nothing.
    idle_since: float = 0.0

    def has_room(self, limit: int, planned: int) -> bool:
        """Whether one more stream could run beside those that run or are planned."""
        if self.alone:  # of a fleet out of sight each process may run one at least
            return self.running + planned < max(1, limit - self.elsewhere)
        return not self.refused and self.running + planned + self.elsewhere < limit

    def in_hand(self, limit: int, planned: int) -> bool:
        """Whether it could without asking the fleet."""
        return self.alone or (self.running + planned < self.held and limit >= self.held_under)


class Board:
    """Accounts and their loads. `lock` may be followed by an account's lock, never the other way round.

    The lock is reentrant, because the garbage collector may unwind an abandoned caller (who gives back its slot) while
    this very thread is in here.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        #: Accounts that answer calls without a credential of their own.
        self.shared: list[Account] = []
        self.by_id: weakref.WeakValueDictionary[str, Account] = weakref.WeakValueDictionary()
        self._loads: weakref.WeakKeyDictionary[Account, Load] = weakref.WeakKeyDictionary()
        #: For loads that are made later.
        self.alone = True

    def load(self, account: Account) -> Load:
        """That of `account`."""
        load = self._loads.get(account)
        if load is None:
            load = self._loads[account] = Load(alone=self.alone)
        return load

    def loads(self) -> list[tuple[Account, Load]]:
        """All that were asked for."""
        return list(self._loads.items())

    def stand_alone(self, alone: bool) -> None:
        """Count for this process only, or as part of the fleet."""
        self.alone = alone
        for load in self._loads.values():
            load.alone, load.refused = alone, False

    def cooling(self, account: Account, scope: str, now: float) -> Cooldown | None:
        """What puts `account` aside for `scope` now."""
        return self.load(account).cooldowns.now(scope, now)

    def usable(self, accounts: Iterable[Account]) -> list[Account]:
        """Those that are neither dead nor paused."""
        return [account for account in accounts if account.dead is None and not self.load(account).paused]

    def why_unusable(self, accounts: Iterable[Account]) -> KimiError | None:
        """The error of the first that is dead or paused."""
        for account in accounts:
            if account.dead is not None:
                return account.dead
            if self.load(account).paused:
                return PermissionRefused(
                    "This account is paused by its owner",
                    account=account.short_id,
                    cure="Resume it: kimi-provider accounts enable " + account.short_id,
                )
        return None
