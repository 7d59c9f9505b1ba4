from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from kimi_provider.accounts import Account, Credential, Pool
from kimi_provider.errors import (
    AccountSuspended,
    BadRequest,
    ContentFiltered,
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
    UpstreamTimeout,
)

from .fakes import UPSTREAM, access, jwt, refresh, settings_for

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pool_of(count: int, *, clock: Clock | None = None, max_streams: int = 2, **more: object) -> Pool:
    credentials = [Credential.of(refresh=refresh(f"user-{number}")) for number in range(count)]
    settings = settings_for(kimi_max_streams=max_streams, **more)
    return Pool(settings, UPSTREAM, credentials, **({"clock": clock} if clock else {}))


async def used(pool: Pool, **how: object) -> str:
    async with pool.lease(timeout_s=0, **how) as lease:
        return lease.account.id


# --- which accounts ---


async def test_no_account_names_what_was_looked_for() -> None:
    pool = Pool.from_settings(settings_for(), UPSTREAM)
    for ask in (pool.lease, pool.next_account):
        with pytest.raises(CredentialMissing, match=r"KIMI_TOKEN.*api_key"):
            ask()


async def test_several_tokens_rotate() -> None:
    settings = settings_for(kimi_token=",".join(refresh(f"user-{n}") for n in range(3)))
    pool = Pool.from_settings(settings, UPSTREAM)
    assert [await used(pool) for _ in range(6)] == ["user-0", "user-1", "user-2"] * 2


async def test_the_least_loaded_is_next() -> None:
    pool = pool_of(2)
    async with pool.lease() as one, pool.lease() as two, pool.lease(only=one.account):
        assert one.account is not two.account
        assert await used(pool) == two.account.id


async def test_only_and_exclude() -> None:
    pool = pool_of(2)
    first, second = pool.accounts
    assert await used(pool, only=second, exclude={second.id}) == second.id
    assert [await used(pool, exclude={first.id}) for _ in range(2)] == [second.id] * 2
    with pytest.raises(Unavailable, match="has been tried"):
        await used(pool, exclude={first.id, second.id})
    assert pool.has_other({first.id})
    assert not pool.has_other({first.id, second.id})


async def test_a_deployments_own_credential_joins_no_rotation_but_shares_its_limits() -> None:
    pool = pool_of(1)
    own = pool.account_for(f"Bearer {refresh('own')}")
    assert pool.account_for(f"Bearer {refresh('own', iat=5)}") is own
    assert own not in pool.accounts
    assert [await used(pool) for _ in range(2)] == ["user-0"] * 2
    assert pool.account_for(access("user-0")) is pool.accounts[0]


async def test_credentials_of_deployments_are_cached_by_digest() -> None:
    pool, text = pool_of(0), refresh("own")
    assert pool.account_for(text) is pool.account_for(text)
    assert text not in repr(vars(pool))


def test_several_accounts_in_one_api_key_are_refused_without_repeating_them() -> None:
    with pytest.raises(BadRequest, match="2 accounts") as caught:
        pool_of(0).account_for(f"{refresh('a')},{refresh('b')}")
    assert "eyJ" not in str(caught.value)


# --- limits and order ---


async def test_first_come_first_served() -> None:
    pool, order = pool_of(1, max_streams=1), []

    async def call(number: int) -> None:
        async with pool.lease(timeout_s=5):
            order.append(number)
            await asyncio.sleep(0)

    async with pool.lease():
        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(call(number)))
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == list(range(20))


async def test_a_stricter_caller_is_not_overtaken() -> None:
    pool, order = pool_of(1), []

    async def call(name: str, limit: int) -> None:
        async with pool.lease(timeout_s=5, limit=limit):
            order.append(name)

    async with pool.lease():
        tasks = [asyncio.create_task(call("one stream at most", 1))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(call("two", 2)))
        await asyncio.sleep(0.01)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["one stream at most", "two"]


def test_the_limit_holds_across_threads_and_loops() -> None:
    pool = pool_of(2, max_streams=3)
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock, served = threading.Lock(), []

    async def call(number: int) -> None:
        async with pool.lease(timeout_s=10) as lease:
            with lock:
                running[lease.account.id] += 1
                most[lease.account.id] = max(most[lease.account.id], running[lease.account.id])
            await asyncio.sleep(0.001 * (number % 3))
            with lock:
                running[lease.account.id] -= 1
                served.append(number)

    async def calls() -> None:
        await asyncio.gather(*(call(number) for number in range(100)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: asyncio.run(calls()), range(4)))
    assert len(served) == 400
    assert most == {"user-0": 3, "user-1": 3}
    assert [pool.running(account) for account in pool.accounts] == [0, 0]


async def test_the_wait_ends_with_who_is_running() -> None:
    pool = pool_of(1, max_streams=2, kimi_queue_timeout_s=0.05)
    async with pool.lease(), pool.lease():
        with pytest.raises(TooManyStreams, match="2 answers are running") as caught:
            async with pool.lease():
                pass
        assert (caught.value.retry_after_s, caught.value.account) == (UPSTREAM.retry.concurrency_s, "user-0")
    assert await used(pool)


async def test_a_cancelled_waiter_takes_nothing_along() -> None:
    pool = pool_of(1, max_streams=1)

    async def call() -> None:
        async with pool.lease(timeout_s=5):
            await asyncio.sleep(0)

    for settle in (0, 1, 2, 3):
        async with pool.lease():
            gone, stays = asyncio.create_task(call()), asyncio.create_task(call())
            await asyncio.sleep(0.005)
            if settle == 0:
                gone.cancel()
        # The slot is granted to `gone` by now, in various stages of hearing of it.
        for _ in range(settle - 1):
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        async with asyncio.timeout(2):  # much less than its own: it must not have to look by itself
            await stays
        assert pool.running(pool.accounts[0]) == 0


def test_a_waiter_whose_loop_was_closed_is_passed_over() -> None:
    pool = pool_of(1, max_streams=1)

    async def call() -> None:
        async with pool.lease(timeout_s=60):
            raise AssertionError("its loop is closed")

    async def main() -> None:
        async with pool.lease():
            abandoned = call()
            dying = asyncio.new_event_loop()

            def start() -> None:
                asyncio.set_event_loop(dying)
                task = dying.create_task(abandoned)
                dying.run_until_complete(asyncio.sleep(0.01))
                dying.close()
                task._log_destroy_pending = False
                kept.append(task)

            kept: list[object] = []
            thread = threading.Thread(target=start)
            thread.start()
            await asyncio.to_thread(thread.join)
            next_ = asyncio.create_task(used_later())
            await asyncio.sleep(0.01)
        assert await next_ == "user-0"
        abandoned.close()

    async def used_later() -> str:
        async with pool.lease(timeout_s=5) as lease:
            return lease.account.id

    asyncio.run(main())
    gc.collect()
    assert pool.running(pool.accounts[0]) == 0


async def test_a_failing_body_gives_its_slot_back() -> None:
    pool = pool_of(1, max_streams=1)
    with pytest.raises(ZeroDivisionError):
        async with pool.lease():
            raise ZeroDivisionError
    assert await used(pool)


# --- what accounts met ---


async def fail(pool: Pool, error: KimiError, *, only: Account | None = None, scope: str = "") -> Account:
    async with pool.lease(only=only, timeout_s=0, scope=scope) as lease:
        lease.report(error)
        return lease.account


@pytest.mark.parametrize(
    "error", [Overloaded("x"), Unavailable("x"), TooManyStreams("x"), UpstreamTimeout("x"), PermissionRefused("x")]
)
async def test_soft_troubles_prefer_others_but_never_block_a_lone_account(error: KimiError) -> None:
    two, one = pool_of(2), pool_of(1)
    bad = await fail(two, error)
    assert bad.id not in {await used(two) for _ in range(4)}
    bad = await fail(one, error)
    assert await used(one) == bad.id
    assert one.next_account() is bad


async def test_a_cooling_account_is_used_before_anybody_waits() -> None:
    pool = pool_of(2, max_streams=1)
    bad = await fail(pool, Overloaded("x"))
    async with pool.lease(timeout_s=0) as good, pool.lease(timeout_s=0) as second:
        assert (good.account is not bad, second.account is bad) == (True, True)


@pytest.mark.parametrize(
    ("error", "expected_s"),
    [
        (RateLimited("x", retry_after_s=7), 7),
        (RateLimited("x"), UPSTREAM.retry.rate_limited_s),
        (QuotaExhausted("x"), UPSTREAM.retry.quota_s),
        (QuotaExhausted("x", retry_after_s=60), 60),
    ],
)
async def test_quota_and_rate_limits_are_obeyed_even_by_a_lone_account(error: KimiError, expected_s: float) -> None:
    clock = Clock()
    pool = pool_of(1, clock=clock)
    await fail(pool, error)
    clock.now += 1
    for ask in (lambda: used(pool), lambda: used(pool, only=pool.accounts[0])):
        with pytest.raises(type(error)) as caught:
            await ask()
        assert caught.value.retry_after_s == expected_s - 1
    with pytest.raises(type(error)):
        pool.next_account()
    assert not pool.has_other(frozenset())
    clock.now += expected_s
    assert await used(pool) == "user-0"


async def test_when_all_are_put_aside_the_soonest_speaks() -> None:
    clock = Clock()
    pool = pool_of(2, clock=clock)
    first, second = pool.accounts
    await fail(pool, QuotaExhausted("later", retry_after_s=100), only=first)
    await fail(pool, RateLimited("soon", retry_after_s=10), only=second)
    with pytest.raises(RateLimited, match="soon") as caught:
        await used(pool)
    assert caught.value.retry_after_s == 10


async def test_a_quota_of_one_scenario_leaves_the_others_alone() -> None:
    pool = pool_of(1)
    await fail(pool, QuotaExhausted("x"), scope="SCENARIO_OK_COMPUTER")
    assert await used(pool, scope="SCENARIO_CHAT")
    with pytest.raises(QuotaExhausted):
        await used(pool, scope="SCENARIO_OK_COMPUTER")


async def test_waiters_learn_at_once_that_waiting_is_useless() -> None:
    pool = pool_of(1, max_streams=1)
    async with pool.lease() as lease:
        waiting = asyncio.create_task(used_within(pool, 30))
        await asyncio.sleep(0.01)
        lease.report(QuotaExhausted("x"))
        with pytest.raises(QuotaExhausted):
            async with asyncio.timeout(20):
                await waiting


async def test_a_cool_down_that_ends_wakes_who_waits() -> None:
    pool = pool_of(2, max_streams=1)
    resting = await fail(pool, RateLimited("x", retry_after_s=0.1))
    async with pool.lease() as busy:
        assert busy.account is not resting
        assert await used_within(pool, 30) == resting.id


async def used_within(pool: Pool, timeout_s: float) -> str:
    async with pool.lease(timeout_s=timeout_s) as lease:
        return lease.account.id


async def test_a_refused_token_makes_others_preferable_and_kills_nobody() -> None:
    pool = pool_of(2)
    refused = await fail(pool, CredentialError("refused", account="u"))
    assert {await used(pool) for _ in range(3)} == {account.id for account in pool.accounts if account is not refused}
    await fail(pool, CredentialError("refused", account="u"))
    assert await used(pool)


async def test_dead_accounts_are_skipped_and_the_last_one_speaks() -> None:
    pool, error = pool_of(2), AccountSuspended("flagged", account="u")
    dead = await fail(pool, error)
    assert {await used(pool) for _ in range(3)} == {account.id for account in pool.accounts if account is not dead}
    await fail(pool, error)
    with pytest.raises(type(error)) as caught:
        await used(pool)
    assert caught.value is not error
    assert not pool.has_other(frozenset())


async def test_a_new_login_revives_a_dead_account() -> None:
    pool = pool_of(1)
    account = await fail(pool, CredentialError("gone"))
    assert pool.add(Credential.of(refresh=refresh("user-0", jti="again"))) is account
    assert await used(pool) == "user-0"


async def test_a_plan_without_the_model_counts_for_that_model_only() -> None:
    two, one = pool_of(2), pool_of(1)
    poor = await fail(two, MembershipRequired("x"), scope="SCENARIO_OK_COMPUTER")
    assert poor.id not in {await used(two, scope="SCENARIO_OK_COMPUTER") for _ in range(4)}
    assert poor.id in {await used(two, scope="SCENARIO_CHAT") for _ in range(4)}
    refused = two.cooling(poor, "SCENARIO_OK_COMPUTER")
    assert refused is not None
    assert refused.retry_after_s == pytest.approx(UPSTREAM.retry.plan_s, abs=60)
    await fail(one, MembershipRequired("x"), scope="SCENARIO_OK_COMPUTER")
    assert await used(one, scope="SCENARIO_OK_COMPUTER")


@pytest.mark.parametrize("error", [BadRequest("x"), ContentFiltered("x"), CredentialMissing("x"), UnusableAnswer("x")])
async def test_what_is_not_the_accounts_fault_changes_nothing(error: KimiError) -> None:
    pool = pool_of(2)
    bad = await fail(pool, error)
    assert pool.cooling(bad) is None
    assert {await used(pool) for _ in range(2)} == {"user-0", "user-1"}


async def test_a_simulated_login_never_becomes_part_of_a_real_account() -> None:
    pool = pool_of(1)
    simulated = pool.account_for(jwt(sub="user-0", typ="refresh", iat=1e12, simulator=True))
    assert simulated is not pool.accounts[0]
    assert (simulated.simulated, pool.accounts[0].simulated) == (True, False)
