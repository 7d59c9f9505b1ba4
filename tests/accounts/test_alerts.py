"""What an owner is told of accounts, and how often: on SQLite and on a real PostgreSQL, over real HTTP."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from kimi_provider.accounts import Account, Pool, TokenKeeper, apprise_child, parse
from kimi_provider.accounts.alert_text import worded
from kimi_provider.accounts.alerts import RETRY_S, Alerts
from kimi_provider.accounts.troubles import FLEET, Finding, review
from kimi_provider.engine import KimiEngine
from kimi_provider.errors import AccountSuspended, CredentialError, KimiError, Unavailable
from kimi_provider.events import TextDelta
from kimi_provider.request import ChatRequest, Message, TextPart
from kimi_provider.settings import Settings
from kimi_provider.store import (
    Store,
    StoredAccount,
    StoredCooldown,
    StoredFailure,
    TokenPair,
    Usage,
    open_store,
    tables,
)
from kimi_provider.wording import RECOVERIES, TROUBLE_CURES, TROUBLES
from tests.harness import Simulator, clean_environment
from tests.mailbox import SECRET, Mailbox

from .fakes import SUB, UPSTREAM, AuthServer, access, ok, refresh, settings_for
from .test_fleet_engine import KEY, Worker

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

DAY_S = 86_400
SHORT = SUB[:8]
NONE_LEFT, SOME_AGAIN = "No Kimi account can answer", "Kimi accounts can answer again"


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with Mailbox() as box:
        yield box


class World:
    """An account store and a mailbox; each `alerts()` is what another process would be."""

    def __init__(self, url: str, box: Mailbox, service: str = "http://127.0.0.1:9", **more: Any) -> None:
        self.box = box
        more.setdefault("kimi_alert_urls", box.apprise)
        self.settings = settings_for(service, kimi_state_url=url, kimi_secret_key=KEY, **more)
        store = open_store(self.settings)
        assert store is not None
        self.store: Store = store

    def alerts(self) -> Alerts:
        return Alerts.from_settings(self.settings, UPSTREAM)

    def keep(self, pair: TokenPair, sub: str = SUB, *, shared: bool = True) -> str:
        """The account as if its owner had given `pair`."""
        with self.store.write() as rows:
            rows.accounts.add(StoredAccount(id=sub, short_id=sub[:8], simulated=False, shared=shared))
            rows.tokens.save(sub, pair)
        return sub

    def change(self, what: Callable[[Any], object]) -> None:
        with self.store.write() as rows:
            what(rows)

    def let_time_pass(self, table: Any, column: str) -> None:
        """Whatever a column of time says is over."""
        with self.store.write() as rows:
            rows._connection.execute(update(table).values({column: rows.now - 3600}))


@pytest.fixture
def world(tmp_path: Path, box: Mailbox) -> Iterator[World]:
    world = World(f"sqlite:///{tmp_path}/state/accounts.db", box)
    yield world
    world.store.close()


@pytest.fixture
def fleet(state_url: str, box: Mailbox) -> Iterator[World]:
    """On each database that a fleet may share."""
    world = World(state_url, box)
    yield world
    world.store.close()


def refreshing(left_s: float, sub: str = SUB) -> TokenPair:
    """A session of 90 days with so much left."""
    return TokenPair(refresh=refresh(sub, iat=time.time() + left_s - 90 * DAY_S))


def lone_access(left_s: float, life_s: float) -> TokenPair:
    """A token that nothing renews."""
    return TokenPair(access=access(SUB, iat=time.time() + left_s - life_s, life_s=life_s))


# --- what there is to tell ---


@pytest.mark.parametrize(
    ("left_s", "lone_life_s", "title"),
    [
        (8 * DAY_S, None, None),
        (6.9 * DAY_S, None, f"Kimi account {SHORT}: log in again within 7 d"),
        (34.2 * 3600, None, f"Kimi account {SHORT}: log in again within 34 h"),
        (12.2 * 3600, None, f"Kimi account {SHORT}: log in again within 12 h"),
        (-1, None, f"Kimi account {SHORT}: its session is over, log in again"),
        # Of a token that nothing renews.
        (8 * DAY_S, 30 * DAY_S, None),
        (6.9 * DAY_S, 30 * DAY_S, f"Kimi account {SHORT}: log in again within 7 d"),
        (5 * DAY_S, 6 * DAY_S, None),  # it was never going to last longer: its owner knows
        (22.2 * 3600, 6 * DAY_S, f"Kimi account {SHORT}: log in again within 22 h"),
        (800, 900, None),
        (-1, 900, f"Kimi account {SHORT}: its session is over, log in again"),
    ],
)
async def test_the_end_of_a_session_is_told_ahead(
    world: World, left_s: float, lone_life_s: float | None, title: str | None
) -> None:
    world.keep(refreshing(left_s) if lone_life_s is None else lone_access(left_s, lone_life_s))
    await world.alerts().look()
    over = title is not None and "is over" in title
    assert sorted(world.box.titles) == sorted(([title] if title else []) + ([NONE_LEFT] if over else []))
    for letter in world.box.letters:
        assert letter["type"] == ("failure" if over else "warning")
        assert "kimi-provider accounts add" in letter["message"]


async def test_a_token_that_says_nothing_of_its_end_is_left_alone(world: World) -> None:
    world.keep(TokenPair(refresh="0123456789abcdef" * 3))
    await world.alerts().look()
    assert world.box.titles == []


async def test_each_stage_is_told_once_whoever_looks_and_so_is_its_end(fleet: World) -> None:
    one, other = fleet.alerts(), fleet.alerts()
    for left_s in (8 * DAY_S, 6.9 * DAY_S, 6.5 * DAY_S, 0.9 * DAY_S, 0.5 * DAY_S, -5, -9, 90 * DAY_S):
        fleet.keep(refreshing(left_s))
        for alerts in (one, other, one):
            await alerts.look()
    own = [(letter["title"], letter["type"]) for letter in fleet.box.letters if SHORT in letter["title"]]
    assert own == [
        (f"Kimi account {SHORT}: log in again within 7 d", "warning"),
        (f"Kimi account {SHORT}: log in again within 22 h", "warning"),
        (f"Kimi account {SHORT}: its session is over, log in again", "failure"),
        (f"Kimi account {SHORT}: it has a session again", "success"),
    ]
    assert [title for title in fleet.box.titles if SHORT not in title] == [NONE_LEFT, SOME_AGAIN]


async def test_a_look_lasts_until_time_alone_changes_something(world: World) -> None:
    world.keep(refreshing(7 * DAY_S + 500))
    world.keep(refreshing(30 * DAY_S, "cother00000000000001"), "cother00000000000001")

    def valid_s() -> float:
        with world.store.read() as rows:
            return review(rows, world.settings, UPSTREAM).valid_s

    assert 0 < valid_s() <= 500
    world.keep(refreshing(30 * DAY_S))
    assert valid_s() == 3600
    world.change(lambda rows: rows.accounts.cool(muted(SUB, 40)))
    assert 0 < valid_s() <= 40


def muted(account_id: str, left_s: float) -> StoredCooldown:
    failure = StoredFailure(code="account_muted", message="muted")
    return StoredCooldown(account_id=account_id, scope="", failure=failure, hard=True, left_s=left_s)


async def test_none_left_is_told_when_the_last_account_can_not_answer(fleet: World) -> None:
    ada = fleet.keep(refreshing(60 * DAY_S, "cada0000000000000001"), "cada0000000000000001")
    bob = fleet.keep(refreshing(60 * DAY_S, "cbob0000000000000001"), "cbob0000000000000001")
    alerts = fleet.alerts()
    fleet.change(lambda rows: rows.accounts.pause(ada, paused=True))
    await alerts.look()
    assert fleet.box.titles == []
    limited = StoredFailure(code="quota_exhausted", message="used up")
    fleet.change(
        lambda rows: rows.accounts.cool(
            StoredCooldown(account_id=bob, scope="SCENARIO_K3", failure=limited, hard=True, left_s=900)
        )
    )
    await alerts.look()
    assert fleet.box.titles == [], "other models answer"
    fleet.change(lambda rows: rows.accounts.cool(muted(bob, 900)))
    await alerts.look()
    assert fleet.box.titles == [NONE_LEFT]
    fleet.change(lambda rows: rows.accounts.pause(ada, paused=False))
    await alerts.look()
    assert fleet.box.titles == [NONE_LEFT, SOME_AGAIN]


async def test_nothing_is_told_of_what_the_owner_does_himself(world: World) -> None:
    alerts = world.alerts()
    await alerts.look()  # no account at all
    ada = world.keep(refreshing(6 * DAY_S, "cada0000000000000001"), "cada0000000000000001")
    world.keep(refreshing(60 * DAY_S))
    world.change(lambda rows: rows.accounts.pause(ada, paused=True))
    await alerts.look()
    assert world.box.titles == [], "he has put it aside"
    world.change(lambda rows: rows.accounts.pause(ada, paused=False))
    await alerts.look()
    assert len(world.box.titles) == 1
    world.change(lambda rows: rows.accounts.pause(ada, paused=True))
    await alerts.look()
    world.change(lambda rows: (rows.accounts.remove(ada), rows.accounts.remove(SUB)))
    await alerts.look()
    world.keep(refreshing(60 * DAY_S))
    world.keep(refreshing(5 * DAY_S, ada), ada)
    await alerts.look()
    assert world.box.titles == [f"Kimi account cada0000: log in again within {days} d" for days in (6, 5)]


async def test_an_account_of_a_deployment_counts_once_it_is_called(fleet: World) -> None:
    own = fleet.keep(refreshing(-1), shared=False)
    alerts = fleet.alerts()
    await alerts.look()
    assert fleet.box.titles == [], "somebody has merely asked about it"
    fleet.change(lambda rows: rows.usage.count(Usage(account_id=own, model="kimi", failures=1)))
    fleet.change(lambda rows: rows.accounts.changed())
    await alerts.look()
    assert fleet.box.titles == [f"Kimi account {SHORT}: its session is over, log in again"]


# --- from what the service really does ---


@pytest.fixture
def served(tmp_path: Path, box: Mailbox, simulator: Simulator) -> Iterator[tuple[World, KimiEngine]]:
    world = World(f"sqlite:///{tmp_path}/state/accounts.db", box, simulator.url)
    engine = KimiEngine(world.settings, UPSTREAM)
    yield world, engine
    engine.pool.close()
    world.store.close()


async def called(engine: KimiEngine) -> str:
    request = ChatRequest(model="kimi", messages=(Message(role="user", parts=(TextPart(text="Hi"),)),))
    return "".join([event.text async for event in engine.chat(request) if isinstance(event, TextDelta)])


def add(engine: KimiEngine, tokens: dict[str, Any]) -> Account:
    return engine.pool.add(parse(tokens["refresh_token"])[0])


def stored(world: World, what: Callable[[Any], bool]) -> None:
    """Wait until the pool has told the store."""
    give_up_at = time.monotonic() + 60
    while True:
        with world.store.read() as rows:
            if what(rows):
                return
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


async def test_a_banned_account(served: tuple[World, KimiEngine], simulator: Simulator) -> None:
    world, engine = served
    account = add(engine, simulator.login("banned"))
    simulator.scenario("account_abnormal")
    with pytest.raises(AccountSuspended):
        await called(engine)
    stored(world, lambda rows: rows.accounts.stopped(account.id))
    alerts = world.alerts()
    await alerts.look()
    assert world.box.titles == [f"Kimi account {account.short_id}: stopped by Kimi", NONE_LEFT]
    assert "account abnormal" in world.box.letters[0]["message"]
    assert f"kimi-provider accounts enable {account.short_id}" in world.box.letters[0]["message"]
    world.change(lambda rows: rows.accounts.pause(account.id, paused=False))
    await alerts.look()
    assert world.box.titles[2:] == [f"Kimi account {account.short_id}: in use again", SOME_AGAIN]
    assert [letter["type"] for letter in world.box.letters] == ["failure", "failure", "success", "success"]


@pytest.mark.parametrize("expired", [True, False])
async def test_a_refresh_that_is_refused(served: tuple[World, KimiEngine], simulator: Simulator, expired: bool) -> None:
    world, engine = served
    account = add(engine, simulator.login("refused", refresh_expires_in=-5 if expired else 90 * DAY_S))
    if not expired:
        simulator.control("revoke", user="refused", what="all")
    alerts = world.alerts()
    if expired:  # also when nobody calls
        await alerts.look()
        assert len(world.box.titles) == 2
    with pytest.raises(CredentialError):
        await called(engine)
    await alerts.look()
    assert world.box.titles == [f"Kimi account {account.short_id}: its session is over, log in again", NONE_LEFT]
    assert expired or "Kimi refused to renew" in world.box.letters[0]["message"]
    add(engine, simulator.login("refused"))
    await alerts.look()
    assert world.box.titles[2:] == [f"Kimi account {account.short_id}: it has a session again", SOME_AGAIN]
    assert await called(engine)


async def test_refreshes_that_fail_again_and_again(state_url: str, box: Mailbox) -> None:
    with AuthServer() as service:
        service.gateway = service.legacy = lambda asked: (503, {}, {"code": "unavailable", "message": "away"})
        world = World(state_url, box, service.url)
        keeper, alerts = TokenKeeper(world.settings, UPSTREAM), world.alerts()
        pool = Pool(world.settings, UPSTREAM, parse(refresh(iat=time.time())), store=world.store)
        (account,) = pool.accounts

        async def fail() -> None:
            with pytest.raises(KimiError):
                await keeper.session(account)
            await alerts.look()

        for _ in range(3):
            await fail()
        assert box.titles == [], "a hiccup"
        world.let_time_pass(tables.refresh_failures, "since")
        await fail()
        await fail()
        assert box.titles == [f"Kimi account {SHORT}: its session can't be renewed now"]
        assert "kimi-provider doctor" in box.letters[0]["message"]
        service.gateway = lambda asked: ok(access(), refresh(iat=time.time()))
        await keeper.session(account)
        await alerts.look()
        assert box.titles[1:] == [f"Kimi account {SHORT}: its session is renewed again"]
        pool.close()
        world.store.close()


# --- once for the fleet ---

LOOKER = """
import asyncio, logging, sys
from kimi_provider.accounts.alerts import Alerts
from kimi_provider.settings import Settings
from kimi_provider.upstream import Upstream

alerts = Alerts.from_settings(Settings.load(), Upstream.load(None))
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(alerts.look())
print("looked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def process(fleet: World, state_url: str, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    """Starts a process that looks once when it is told to."""
    environment = clean_environment(
        tmp_path, KIMI_STATE_URL=state_url, KIMI_SECRET_KEY=KEY, KIMI_ALERT_URLS=fleet.box.apprise
    )
    started: list[Worker] = []

    def start() -> Worker:
        started.append(worker := Worker.start(environment, LOOKER))
        assert worker.read() == "ready\n"
        return worker

    yield start
    for worker in started:
        worker.end()


async def test_of_several_processes_that_look_at_once_one_tells(fleet: World, process: Callable[[], Worker]) -> None:
    fleet.keep(refreshing(-1))
    workers = [process() for _ in range(4)]
    for worker in workers:
        worker.go_on()
    assert [worker.read() for worker in workers] == ["looked\n"] * 4
    assert sorted(fleet.box.titles) == sorted([f"Kimi account {SHORT}: its session is over, log in again", NONE_LEFT])


async def test_what_a_killed_process_was_telling_is_told_again(fleet: World, process: Callable[[], Worker]) -> None:
    fleet.keep(refreshing(6 * DAY_S))
    fleet.box.open.clear()
    doomed = process()
    doomed.go_on()
    fleet.box.until(lambda: len(fleet.box.titles) == 1)
    doomed.child.send_signal(signal.SIGKILL)
    doomed.child.wait()
    fleet.box.open.set()
    other = fleet.alerts()
    await other.look()
    assert len(fleet.box.titles) == 1, "it may still be at it"
    with fleet.store.read() as rows:
        assert rows._connection.execute(tables.alerts.select()).one().until - rows.now <= 120
    fleet.let_time_pass(tables.alerts, "until")
    another = fleet.alerts()
    await another.look()
    assert fleet.box.titles == [f"Kimi account {SHORT}: log in again within 6 d"] * 2
    await another.look()
    assert len(fleet.box.titles) == 2


async def test_of_what_a_killed_process_may_have_told_the_end_is_told_too(world: World) -> None:
    id_ = world.keep(refreshing(-1))
    name = next(iter(world.alerts()._channels)).name
    world.change(lambda rows: rows.alerts.claim(id_, name, "somebody", "ended"))
    world.keep(refreshing(90 * DAY_S))
    world.let_time_pass(tables.alerts, "until")
    await world.alerts().look()
    assert world.box.titles == [f"Kimi account {SHORT}: it has a session again"]


async def test_a_target_that_is_down_is_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.keep(refreshing(6 * DAY_S))
    world.box.status = 500
    alerts = world.alerts()
    for _ in range(3):  # not before its time
        await alerts.look()
    assert len(world.box.titles) == 1
    world.let_time_pass(tables.alerts, "until")
    alerts = world.alerts()
    await alerts.look()
    assert len(world.box.titles) == 2
    world.box.status = 200
    world.let_time_pass(tables.alerts, "until")
    alerts = world.alerts()
    for _ in range(3):
        await alerts.look()
    assert len(world.box.titles) == 3
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [one.rpartition("(")[2] for one in said] == ["next try in 5 s)", "next try in 30 s)"]
    assert all("entry 1 of KIMI_ALERT_URLS (json)" in one for one in said)
    assert not any(part in caplog.text for part in SECRET.split("/"))


async def test_a_target_that_stays_down_is_given_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.keep(refreshing(6 * DAY_S))
    world.box.status = 500
    for _ in range(len(RETRY_S) + 4):
        await world.alerts().look()
        world.let_time_pass(tables.alerts, "until")
    assert len(world.box.titles) == len(RETRY_S) + 1
    assert "(given up)" in caplog.messages[-1]


async def test_each_url_is_told_whatever_becomes_of_the_others(tmp_path: Path, box: Mailbox) -> None:
    with Mailbox() as other:
        other.status = 500
        world = World(
            f"sqlite:///{tmp_path}/accounts.db",
            box,
            kimi_alert_urls=f"{other.apprise}, nothing://{SECRET}, {box.apprise}, {box.apprise}",
        )
        world.keep(refreshing(6 * DAY_S))
        alerts = world.alerts()
        await alerts.look()
        assert (len(box.titles), len(other.titles)) == (1, 1)
        other.status = 200
        world.let_time_pass(tables.alerts, "until")
        await world.alerts().look()
        assert (len(box.titles), len(other.titles)) == (1, 2)
        world.store.close()


async def test_it_goes_on_in_the_background_while_the_store_comes_and_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kimi_provider.accounts.alerts.LOOK_S", 0.05)
    failed = 0

    def away(*_: object) -> Any:
        nonlocal failed
        failed += 1
        raise Unavailable("away")

    alerts = world.alerts()
    with monkeypatch.context() as broken:
        broken.setattr(Store, "read", away)
        alerts.start()
        alerts.start()
        while failed < 2:
            time.sleep(0.01)
    world.keep(refreshing(6 * DAY_S))
    world.box.until(lambda: len(world.box.titles) == 1)
    world.keep(refreshing(60 * DAY_S))
    world.box.until(lambda: len(world.box.titles) == 2)
    alerts.close()


# --- what can't work ---


def test_why_nobody_is_told_is_said(box: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hint(**more: Any) -> str | None:
        settings: Settings = settings_for(**{"kimi_state_url": f"sqlite:///{tmp_path}/a.db", **more})
        return Alerts.from_settings(settings, UPSTREAM).hint()

    assert hint(kimi_alert_urls=box.apprise) is None
    assert "account store" in str(hint(kimi_alert_urls=box.apprise, kimi_state_url="sqlite://"))
    monkeypatch.setitem(sys.modules, "apprise", None)  # as if it were not installed
    assert "pip install 'kimi-provider[alerts]'" in str(hint(kimi_alert_urls=box.apprise))
    assert SECRET not in str(hint(kimi_alert_urls=box.apprise))
    assert hint() is None


@pytest.mark.parametrize(
    ("interpreter", "url", "code"),
    [
        (["-P"], "json", apprise_child.DELIVERED),
        (["-P"], f"nothing://{SECRET}", apprise_child.UNREADABLE),
        (["-P"], f"json://127.0.0.1:9/{SECRET}", apprise_child.REFUSED),
        (["-I", "-S"], "json", apprise_child.ABSENT),  # without installed packages
    ],
)
def test_a_delivery_says_nothing_but_its_code(box: Mailbox, interpreter: list[str], url: str, code: int) -> None:
    content = {"url": box.apprise if url == "json" else url, "title": "A", "body": "B", "severity": "warning"}
    done = subprocess.run(
        [sys.executable, *interpreter, str(apprise_child.__file__)], input=json.dumps(content).encode(), timeout=120
    )
    assert done.returncode == code
    assert box.titles == (["A"] if code == apprise_child.DELIVERED else [])


# --- words ---


@pytest.mark.parametrize("language", ["en", "id"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_trouble_has_its_words(trouble: Any, language: Any) -> None:
    assert TROUBLES.keys() == TROUBLE_CURES.keys() == RECOVERIES.keys()
    id_ = FLEET if trouble == "none_left" else SUB
    finding = Finding(account_id=id_, short_id=id_[:8], trouble=trouble, why="So it is.", left_s=3 * DAY_S)
    alert = worded(finding, "", language)
    well = worded(Finding(account_id=id_, short_id=id_[:8]), trouble, language)
    for text in (alert.title, alert.body, well.title, well.body):
        assert text
        assert "{" not in text
    for title in (alert.title, well.title):
        assert id_[:8] in title
    assert "So it is. " in alert.body
    assert (alert.severity != "success", well.severity) == (True, "success")


def test_what_is_over_is_said_beside_what_is_not() -> None:
    finding = Finding(account_id=SUB, short_id=SHORT, trouble="ends_in_7_days", left_s=5 * DAY_S)
    assert worded(finding, "stopped", "en").body.startswith(f"Kimi account {SHORT}: in use again. Its session ends")
    assert "in use again" not in worded(finding, "", "en").body
