"""Several pools on one account store: limits, news and outages are those of the whole fleet."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from kimi_provider.accounts import Account, Credential, Pool, ledger
from kimi_provider.errors import (
    AccountSuspended,
    CredentialError,
    CredentialMissing,
    Overloaded,
    PermissionRefused,
    QuotaExhausted,
    TooManyStreams,
    Unavailable,
)
from kimi_provider.settings import Settings
from kimi_provider.store import Store, Transaction, Usage, open_store, streams, tables

from .fakes import UPSTREAM, jwt, refresh, settings_for, until
from .test_fleet_tokens import Outage

pytestmark = pytest.mark.anyio


class Pools:
    """Each pool plays one process of the fleet."""

    def __init__(self, state_url: str) -> None:
        self.url = state_url
        store = open_store(settings_for(kimi_state_url=state_url))
        assert store is not None
        self.store: Store = store
        self._open: list[Pool] = []

    def open(self, *users: str, max_streams: int = 2, **more: Any) -> Pool:
        credentials = [Credential.of(refresh=refresh(user)) for user in users]
        settings = settings_for(kimi_state_url=self.url, kimi_max_streams=max_streams, **more)
        pool = Pool(settings, UPSTREAM, credentials, store=self.store)
        self._open.append(pool)
        return pool

    def change(self, how: Callable[[Transaction], object]) -> None:
        with self.store.write() as rows:
            how(rows)

    def held(self) -> int:
        with self.store.read() as rows:
            return sum(one.held for one in rows.streams("").counts()) + sum(
                one.elsewhere for one in rows.streams("").counts()
            )

    def close(self) -> None:
        for pool in self._open:
            pool.close()
        self.store.close()


@pytest.fixture
async def pools(state_url: str) -> AsyncIterator[Pools]:
    pools = Pools(state_url)
    yield pools
    await asyncio.to_thread(pools.close)


async def used(pool: Pool, timeout_s: float = 0, **how: Any) -> str:
    async with pool.lease(timeout_s=timeout_s, **how) as lease:
        return lease.account.id


def account(pool: Pool, id_: str) -> Account:
    return next(one for one in pool.accounts if one.id == id_)


# --- limits ---


async def test_the_limit_holds_across_pools(pools: Pools) -> None:
    several = [pools.open("ada", "bob"), pools.open(), pools.open()]
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def call(pool: Pool, number: int) -> None:
        async with pool.lease(timeout_s=90) as lease:
            running[lease.account.id] += 1
            most[lease.account.id] = max(most[lease.account.id], running[lease.account.id])
            await asyncio.sleep(0.003 * (number % 4))
            running[lease.account.id] -= 1

    await asyncio.gather(*(call(pool, number) for pool in several for number in range(25)))
    assert most == {"ada": 2, "bob": 2}


async def test_a_caller_that_may_not_wait_still_gets_what_is_free_and_hears_at_once_what_is_not(pools: Pools) -> None:
    one, other = pools.open("ada"), pools.open()
    async with one.lease(timeout_s=0), other.lease(timeout_s=0):
        with pytest.raises(TooManyStreams, match="2 answers are running on the account"):
            await used(one)
        with pytest.raises(TooManyStreams):
            await used(other)
    assert await used(other, timeout_s=30) == "ada"


async def test_a_busy_process_lets_others_have_their_turn(pools: Pools) -> None:
    busy, other = pools.open("ada", max_streams=1), pools.open(max_streams=1)
    stopping = False

    async def keep_busy() -> None:
        while not stopping:
            async with busy.lease(timeout_s=60):
                await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(keep_busy()) for _ in range(3)]
    await until(lambda: busy.running(busy.accounts[0]))
    for _ in range(3):
        assert await used(other, timeout_s=60) == "ada"
    stopping = True
    await asyncio.gather(*tasks)


async def test_a_stricter_limit_counts_the_streams_of_others(pools: Pools) -> None:
    one, other = pools.open("ada"), pools.open()
    async with one.lease(timeout_s=0), one.lease(timeout_s=0):
        pass
    async with one.lease(timeout_s=0):
        with pytest.raises(TooManyStreams):
            await used(other, limit=1)
        assert await used(other, limit=2, timeout_s=30) == "ada"
    assert await used(other, limit=1, timeout_s=30) == "ada"


async def test_streams_that_do_nothing_are_given_back_soon(pools: Pools) -> None:
    pool = pools.open("ada")
    async with pool.lease(timeout_s=0), pool.lease(timeout_s=0):
        assert pools.held() == 2
    await until(lambda: pools.held() == 0)


async def test_a_pool_that_ends_gives_everything_back_at_once(pools: Pools) -> None:
    one, other = pools.open("ada"), pools.open()
    async with one.lease(timeout_s=0), one.lease(timeout_s=0):
        await asyncio.to_thread(one.close)
        async with other.lease(timeout_s=0), other.lease(timeout_s=0):
            pass


async def test_a_pool_that_nobody_holds_ends_its_thread(state_url: str) -> None:
    pools = Pools(state_url)
    pool = Pool(
        settings_for(kimi_state_url=state_url), UPSTREAM, [Credential.of(refresh=refresh("ada"))], store=pools.store
    )
    assert await used(pool) == "ada"
    thread = pool._fleet._thread
    assert thread is not None
    del pool
    gc.collect()
    await until(lambda: not thread.is_alive())
    assert pools.held() == 0
    pools.close()


async def test_what_a_dead_process_held_is_free_after_45_s(pools: Pools) -> None:
    pool = pools.open("ada")
    with pools.store.write() as rows:  # another process, which never says a word again
        rows.streams("dead").take(streams.StreamWish(account_id="ada", held=2, limit=2))
        row = rows._connection.execute(tables.streams.select().where(tables.streams.c.owner == "dead")).one()
        assert row.expires_at - rows.now == pytest.approx(45, abs=0.5)
    with pytest.raises(TooManyStreams):
        await used(pool)
    pools.change(lambda rows: rows._connection.execute(update(tables.streams).values(expires_at=rows.now)))
    assert await used(pool, timeout_s=30) == "ada"


async def test_what_a_living_process_holds_is_renewed(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (streams.LIFE_S, streams.RENEW_S) == (45, 15)
    pool = pools.open("ada")
    monkeypatch.setattr(ledger, "RENEW_S", 0.2)

    def ends_at() -> float:
        with pools.store.read() as rows:
            return float(rows._connection.execute(tables.streams.select()).one().expires_at)

    async with pool.lease(timeout_s=0):
        first = ends_at()
        await until(lambda: ends_at() > first + 0.3)


# --- news ---


async def test_accounts_outlive_the_process_and_need_no_token_then(pools: Pools) -> None:
    await asyncio.to_thread(pools.open("ada", "bob").close)
    again = Pool.from_settings(settings_for(kimi_state_url=pools.url), UPSTREAM)
    assert [one.id for one in again.accounts] == ["ada", "bob"]
    assert again.accounts[0].credential.refresh is not None
    again.close()


async def test_an_account_added_on_one_serves_on_the_other(pools: Pools) -> None:
    one, other = pools.open(), pools.open()
    with pytest.raises(CredentialMissing):
        await used(other)
    one.add(Credential.of(refresh=refresh("ada")))
    await until(lambda: other.accounts)
    assert await used(other) == "ada"
    pools.change(lambda rows: rows.accounts.remove("ada"))
    gone = account(other, "ada")
    await until(lambda: not other.accounts and not one.accounts)
    assert isinstance(gone.dead, CredentialError)


async def test_a_deployments_own_account_is_kept_but_not_shared(pools: Pools) -> None:
    one, other = pools.open("ada"), pools.open()
    own = one.account_for(refresh("own"))
    assert await used(one, only=own) == "own"
    with pools.store.read() as rows:
        assert {row.id: row.shared for row in rows.accounts.all()} == {"ada": True, "own": False}
    other.add(Credential.of(refresh=refresh("bob")))
    await until(lambda: len(one.accounts) == 2)
    assert [row.id for row in one.accounts] == ["ada", "bob"]


async def test_a_pause_reaches_everybody_and_ends(pools: Pools) -> None:
    one, other = pools.open("ada"), pools.open()
    pools.change(lambda rows: rows.accounts.pause("ada", paused=True))
    for pool in (one, other):
        await until(lambda pool=pool: not pool.has_other(frozenset()))
        with pytest.raises(PermissionRefused, match="paused by its owner"):
            await used(pool)
    pools.change(lambda rows: rows.accounts.pause("ada", paused=False))
    await until(lambda: other.has_other(frozenset()))
    assert await used(other) == "ada"


async def test_what_one_met_puts_the_account_aside_for_all(pools: Pools) -> None:
    one, other = pools.open("ada", "bob"), pools.open()
    ada = account(one, "ada")
    one.report(ada, QuotaExhausted("used up", retry_after_s=100), scope="SCENARIO_CHAT")
    one.report(ada, Overloaded("busy", retry_after_s=50), scope="SCENARIO_K2D5")
    theirs = account(other, "ada")
    await until(lambda: other.cooling(theirs, "SCENARIO_CHAT") and other.cooling(theirs, "SCENARIO_K2D5"))
    met = other.cooling(theirs, "SCENARIO_CHAT")
    assert isinstance(met, QuotaExhausted)
    assert met.retry_after_s is not None
    assert 60 < met.retry_after_s <= 100
    assert isinstance(other.cooling(theirs, "SCENARIO_K2D5"), Overloaded)
    assert other.cooling(theirs, "SCENARIO_OTHER") is None
    with pytest.raises(QuotaExhausted):
        await used(other, only=theirs, scope="SCENARIO_CHAT")
    late = pools.open()
    assert isinstance(late.cooling(account(late, "ada"), "SCENARIO_CHAT"), QuotaExhausted)


async def test_a_banned_account_stops_everywhere_until_a_new_login(pools: Pools) -> None:
    one, other = pools.open("ada"), pools.open()
    one.report(account(one, "ada"), AccountSuspended("flagged", account="ada"))
    with pytest.raises(AccountSuspended):
        await used(one)
    await until(lambda: account(other, "ada").dead)
    with pytest.raises(AccountSuspended, match="flagged"):
        await used(other)
    late = pools.open()
    assert isinstance(account(late, "ada").dead, AccountSuspended)
    one.add(Credential.of(refresh=refresh("ada", iat=time.time() + 60)))
    for pool in (one, other, late):
        await until(lambda pool=pool: account(pool, "ada").dead is None)
        assert await used(pool, timeout_s=30) == "ada"


async def test_what_the_simulator_left_behind_never_joins_real_accounts(pools: Pools) -> None:
    settings = settings_for(kimi_state_url=pools.url)
    simulated = Credential.of(refresh=jwt(sub="sim", typ="refresh", iat=1e9, exp=9e9, simulator=True))
    Pool(settings, UPSTREAM, [simulated], store=pools.store).close()
    real = Settings.without_file(kimi_state_url=pools.url)
    pool = Pool(real, UPSTREAM, [Credential.of(refresh=refresh("ada"))], store=pools.store)
    assert [one.id for one in pool.accounts] == ["ada"]
    pool.add(Credential.of(refresh=jwt(sub="sim-2", typ="refresh", iat=1e9, exp=9e9, simulator=True)))
    with pools.store.read() as rows:
        assert {row.id for row in rows.accounts.all()} == {"ada", "sim"}
    pool.close()


async def test_answers_and_failures_are_counted(pools: Pools) -> None:
    pool = pools.open("ada")
    for _ in range(3):
        async with pool.lease(timeout_s=0, model="kimi-k2") as lease:
            lease.count(prompt_tokens=10, completion_tokens=4)
    async with pool.lease(timeout_s=0, model="kimi-k2") as lease:
        lease.report(Overloaded("busy"))
    wanted = Usage(account_id="ada", model="kimi-k2", answers=3, failures=1, prompt_tokens=30, completion_tokens=12)

    def counted() -> bool:
        with pools.store.read() as rows:
            return rows.usage.since(1) == [wanted]

    await until(counted)


async def test_the_first_answer_of_a_day_sweeps_out_what_is_too_old(pools: Pools) -> None:
    pool = pools.open("ada")
    counts = {"answers": 1, "failures": 0, "prompt_tokens": 0, "completion_tokens": 0}

    def old(rows: Transaction) -> None:
        rows._connection.execute(tables.usage.insert().values(account_id="ada", model="m", day="2020-02-02", **counts))
        rows._connection.execute(tables.audit.insert().values(at=1e9, account_id="ada", event="added", detail=""))

    def left(rows: Transaction) -> tuple[list[str], bool]:
        days = rows._connection.scalars(select(tables.usage.c.day))
        return [day for day in days if day < "2026"], any(entry.at == 1e9 for entry in rows.audit.last(50))

    def swept() -> bool:
        with pools.store.read() as rows:
            return left(rows) == ([], False)

    pools.change(old)
    pool.count(pool.accounts[0], "kimi", prompt_tokens=1, completion_tokens=1)
    await until(swept)


# --- a store that goes away ---


async def test_while_the_store_is_away_calls_go_on_and_news_is_told_later(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pools.open("ada"), pools.open()
    assert await used(one) == "ada"
    outage = Outage(pools.store, monkeypatch)
    outage.down = True
    for pool in (one, other):
        async with pool.lease(timeout_s=30), pool.lease(timeout_s=30):
            with pytest.raises(TooManyStreams):
                await used(pool)
    one.report(account(one, "ada"), QuotaExhausted("used up", retry_after_s=100))
    with pytest.raises(Unavailable):
        one.add(Credential.of(refresh=refresh("bob")))
    outage.down = False
    await until(lambda: other.cooling(account(other, "ada")))


async def test_a_stream_that_began_while_the_store_was_away_counts_when_it_is_back(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pools.open("ada"), pools.open()
    outage = Outage(pools.store, monkeypatch)
    outage.down = True
    async with one.lease(timeout_s=30), one.lease(timeout_s=30):
        outage.down = False
        await until(lambda: pools.held() == 2)
        with pytest.raises(TooManyStreams):
            await used(other)
    assert await used(other, timeout_s=30) == "ada"


async def test_processes_that_start_and_write_at_the_same_moment_do_not_hinder_each_other(pools: Pools) -> None:
    def start(number: int) -> Pool:
        settings = settings_for(kimi_state_url=pools.url)
        credentials = [Credential.of(refresh=refresh(user)) for user in (f"user-{number}", "ada", "bob")]
        return Pool(settings, UPSTREAM, credentials, store=pools.store)

    started = await asyncio.gather(*(asyncio.to_thread(start, number) for number in range(6)))
    for round_ in range(3):
        for pool in started:
            ada = account(pool, "ada")
            pool.report(ada, Overloaded("busy", retry_after_s=5), scope=f"SCENARIO_{round_}", model="kimi")
            pool.count(ada, "kimi", prompt_tokens=1, completion_tokens=1)
        await asyncio.sleep(0.3)

    def counted() -> bool:
        with pools.store.read() as rows:
            (ada,) = [one for one in rows.usage.since(1) if one.account_id == "ada"]
            return (ada.answers, ada.failures) == (18, 18) and len(rows.accounts.cooling()) == 3

    assert not any(pool._board.alone for pool in started)
    await asyncio.to_thread(lambda: [pool.close() for pool in started])
    assert counted()
