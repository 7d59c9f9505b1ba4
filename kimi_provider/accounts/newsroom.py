"""What other processes have done to accounts, learned from the store: added, paused, stopped, removed, put aside.

`read` looks, inside a transaction and without the board's lock; `learn` changes what this process knows, under it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ..errors import Unavailable, of_code
from ..settings import Settings
from ..store import StoredAccount, StoredCooldown, Transaction
from ..upstream import Upstream
from .account import Account
from .board import Board
from .cooldowns import Cooldown
from .durable import removed

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """All accounts and cool-downs of the store at change `number`; `fetched` are those that were new here or dead."""

    number: int
    accounts: list[StoredAccount]
    cooling: list[StoredCooldown]
    fetched: dict[str, Account]


class Newsroom:
    """Keeps `board` as the store says."""

    def __init__(self, board: Board, settings: Settings, upstream: Upstream) -> None:
        self._board, self._settings, self._upstream = board, settings, upstream
        #: Accounts that the store has had, and the number of the change since when.
        self._known: dict[str, int] = {}

    def knows(self, id_: str) -> bool:
        """Whether the store has an account, as far as is known here."""
        return id_ in self._known

    def has_added(self, id_: str, number: int) -> None:
        """This process itself has added an account with change `number`."""
        self._known[id_] = number

    def read(self, rows: Transaction) -> News:
        """Look. Raises Unavailable."""
        number = rows.accounts.number()  # first: what comes later is seen the next time
        accounts = rows.accounts.all()
        fetched = {row.id: account for row in accounts if (account := self._fetched(rows, row)) is not None}
        return News(number=number, accounts=accounts, cooling=rows.accounts.cooling(), fetched=fetched)

    def _fetched(self, rows: Transaction, row: StoredAccount) -> Account | None:
        known = self._board.by_id.get(row.id)
        broken = known is not None and (known.dead is not None or known.tokens.refusal is not None)
        if not (broken or (known is None and row.shared)):
            return None
        try:
            pair = rows.tokens.load(row.id)
        except Unavailable as exc:  # sealed with a key that is not here: the others still serve
            log.warning("kimi-provider: account %s: %s", row.short_id, exc.message)
            return None
        if pair is None:
            return None
        given = set(rows.accounts.given(row.id))
        account = Account.stored(row.id, row.short_id, pair, given, self._settings, self._upstream)
        return None if account.homeless(self._upstream) else account

    def learn(self, news: News, *, untold: bool) -> None:
        """Take it over. `untold`: this process has met something that the store does not know yet."""
        for row in news.accounts:
            self._learn_account(row, news.fetched.get(row.id))
        present = {row.id for row in news.accounts}
        for id_, number in list(self._known.items()):
            if id_ not in present and number <= news.number:
                del self._known[id_]
                self._forget(id_)
        self._known |= dict.fromkeys(present - self._known.keys(), news.number)
        self._learn_cooldowns(news.cooling, untold=untold)

    def _learn_account(self, row: StoredAccount, fetched: Account | None) -> None:
        board = self._board
        account = board.by_id.get(row.id)
        if account is None:
            if fetched is None:
                return
            account = board.by_id[row.id] = fetched
        elif fetched is not None and row.stopped is None:
            account.renew_from(fetched)
        load = board.load(account)
        if row.stopped is not None:
            account.dead = account.dead or of_code(row.stopped.code)(row.stopped.message, account=row.short_id)
        elif load.stopped:
            account.dead = None
        load.stopped, load.paused = row.stopped is not None, not row.enabled
        if row.shared and account not in board.shared:
            board.shared.append(account)

    def _forget(self, id_: str) -> None:
        account = self._board.by_id.pop(id_, None)
        if account is not None:
            account.dead = removed()
            if account in self._board.shared:
                self._board.shared.remove(account)

    def _learn_cooldowns(self, rows: list[StoredCooldown], *, untold: bool) -> None:
        now, told = time.monotonic(), set()
        for row in rows:
            told.add(row.account_id)
            account = self._board.by_id.get(row.account_id)
            if account is None:
                continue
            cooldowns = self._board.load(account).cooldowns
            known = cooldowns.get(row.scope)
            # Our own comes back to us a little shorter or longer.
            if known is None or abs(known.until - now - row.left_s) > 1:
                error = of_code(row.failure.code)(row.failure.message, account=account.short_id)
                cooldowns.put(Cooldown(error=error, scope=row.scope, until=now + row.left_s, hard=row.hard))
        for account, load in self._board.loads():
            if not untold and account.id in self._known and account.id not in told:
                load.cooldowns.clear()  # a new credential has ended them
