"""What accounts count, and what is counted of them: refreshes, calls that wait or run, states and expiry."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import event

from kimi_provider import metrics
from kimi_provider.accounts import Credential, Pool, TokenKeeper, TokenPair
from kimi_provider.admin.gauges import AccountGauges
from kimi_provider.admin.roster import Roster
from kimi_provider.engine import KimiEngine
from kimi_provider.errors import KimiError, TooManyStreams
from kimi_provider.store import StoredCooldown, StoredFailure, open_store
from tests.harness import ROOT, clean_environment
from tests.scraping import FAMILIES, Scrape

from .fakes import UPSTREAM, Answer, AuthServer, access, account_of, ok, refresh, refused, settings_for, until

DAY_S = 86_400


@pytest.fixture(autouse=True, scope="module")
def started() -> None:
    metrics.start()


def scrape(registry: CollectorRegistry = metrics.registry) -> Scrape:
    return Scrape.of(generate_latest(registry).decode())


# --- refreshes ---


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (ok(access(), refresh()), "renewed"),
        (refused(), "refused"),
        ((403, {}, {"code": "permission_denied", "message": "account abnormal"}), "refused"),
        ((429, {}, {"code": "resource_exhausted"}), "failed"),
        ((503, {}, {"code": "unavailable"}), "failed"),
        ((200, {}, {"something": "else"}), "failed"),
    ],
)
def test_each_refresh_is_counted_once_by_its_outcome(answer: Answer, outcome: str) -> None:
    before = scrape()
    with AuthServer(gateway=lambda asked: answer, legacy=lambda asked: answer) as server:
        keeper = TokenKeeper(settings_for(server.url), UPSTREAM)
        account = account_of(server.url, refresh=refresh())
        with suppress(KimiError):
            asyncio.run(keeper.session(account))
    after = scrape()
    grown = {
        one: after("kimi_token_refreshes_total", outcome=one) - before("kimi_token_refreshes_total", outcome=one)
        for one in ("renewed", "refused", "failed")
    }
    assert grown == dict.fromkeys(grown, 0) | {outcome: 1}


# --- calls ---


def calls() -> tuple[float, float]:
    """Waiting, running."""
    now = scrape()
    return now("kimi_calls", state="waiting"), now("kimi_calls", state="running")


def lone_account() -> Pool:
    return Pool(settings_for(kimi_max_streams=1), UPSTREAM, [Credential.of(refresh=refresh("lone"))])


@pytest.fixture
def stored(state_url: str) -> Iterator[Pool]:
    """As `lone_account`, with a store that has a say in who may run."""
    settings = settings_for(kimi_max_streams=1, kimi_state_url=state_url)
    store = open_store(settings)
    assert store is not None
    pool = Pool(settings, UPSTREAM, [Credential.of(refresh=refresh("lone"))], store=store)
    yield pool
    pool.close()
    store.close()


@pytest.mark.anyio
@pytest.mark.parametrize("in_store", [False, True], ids=["memory", "store"])
async def test_calls_that_wait_and_run(in_store: bool, stored: Pool) -> None:
    """Whoever gives up is no longer counted."""
    pool = stored if in_store else lone_account()
    waiting, running = calls()
    release = asyncio.Event()

    async def call() -> None:
        async with pool.lease(timeout_s=60):
            await release.wait()

    tasks = [asyncio.create_task(call()) for _ in range(4)]
    await until(lambda: calls() == (waiting + 3, running + 1))
    tasks[3].cancel()
    await until(lambda: calls() == (waiting + 2, running + 1))
    with pytest.raises(TooManyStreams):
        async with pool.lease(timeout_s=0):
            pass
    assert calls() == (waiting + 2, running + 1)
    release.set()
    await asyncio.gather(*tasks[:3])
    assert calls() == (waiting, running)


@pytest.mark.anyio
async def test_a_slot_that_is_handed_over_counts_until_it_is_given_back() -> None:
    before = calls()
    async with lone_account().lease() as lease:
        give_back = lease.hand_over()
    assert calls() == (before[0], before[1] + 1)
    give_back()
    give_back()
    assert calls() == before


# --- accounts ---


def roster_of(state_url: str) -> Roster:
    settings = settings_for(kimi_state_url=state_url)
    return Roster(KimiEngine(settings, UPSTREAM))


@pytest.fixture
def roster(state_url: str) -> Iterator[Roster]:
    roster = roster_of(state_url)
    yield roster
    roster._engine.pool.close()
    assert roster.store is not None
    roster.store.close()


def collected(roster: Roster) -> Scrape:
    registry = CollectorRegistry()
    registry.register(AccountGauges(roster))
    found = scrape(registry)
    found.check_labels()
    return found


def states(found: Scrape) -> dict[str, float]:
    return {one.labels["state"]: one.value for one in found.samples if one.name == "kimi_accounts" and one.value}


def test_accounts_by_state_and_expiry(roster: Roster) -> None:
    nobody = collected(roster)
    assert states(nobody) == {}
    assert nobody("kimi_accounts_usable") == 0
    assert [one for one in nobody.samples if one.name == "kimi_accounts_soonest_expiry_seconds"] == []
    assert len([one for one in nobody.samples if one.name == "kimi_accounts"]) == 7, "zeros, not gaps"

    now, ids = time.time(), {}
    # Days until each login ends; what can't answer counts for no expiry.
    days = {"ok": 20, "long": 80, "expiring": 3, "soon": 0.5, "expired": -1, "paused": 2, "stopped": 2, "refused": 2}
    for name, left in (days | {"cooling": 40, "limited": 40}).items():
        credential = Credential.of(refresh=refresh(name, iat=now - DAY_S, life_s=(left + 1) * DAY_S))
        ids[name] = roster._engine.pool.add(credential).id
    why = StoredFailure(code="rate_limited", message="slow down")
    store = roster.store
    assert store is not None
    with store.write() as rows:
        rows.accounts.pause(ids["paused"], paused=True)
        rows.accounts.stop(ids["stopped"], StoredFailure(code="account_suspended", message="flagged"))
        rows.tokens.save(ids["refused"], TokenPair(refresh=refresh("refused"), refused=why))
        for name, hard in (("cooling", True), ("limited", False)):
            rows.accounts.cool(StoredCooldown(account_id=ids[name], scope="", failure=why, hard=hard, left_s=600))
    found = collected(roster)
    assert states(found) == {
        "ok": 2, "expiring": 2, "expired": 1, "paused": 1, "stopped": 1, "refused": 1, "cooling": 2,
    }  # fmt: skip
    assert found("kimi_accounts_usable") == 5, "all that live, but the one that rests entirely"
    assert [found("kimi_accounts_expiring", days=one) for one in ("1", "7", "30")] == [1, 2, 3]
    assert 0.4 * DAY_S < found("kimi_accounts_soonest_expiry_seconds") <= 0.5 * DAY_S
    assert found("kimi_account_store_up") == 1


def test_a_store_that_is_away_is_said_and_nothing_made_up(roster: Roster) -> None:
    assert roster.store is not None
    engine = roster.store._database.engine

    def spoil(connection: object) -> None:
        connection.exec_driver_sql("SELECT * FROM nothing_of_the_kind")

    event.listen(engine, "begin", spoil)
    try:
        away = collected(roster)
    finally:
        event.remove(engine, "begin", spoil)
    assert [(one.name, one.value) for one in away.samples] == [("kimi_account_store_up", 0)]
    assert collected(roster)("kimi_account_store_up") == 1


def test_accounts_of_a_process_without_a_store() -> None:
    settings = settings_for(kimi_token=refresh("one") + "," + refresh("two", iat=time.time() - 89 * DAY_S))
    found = collected(Roster(KimiEngine(settings, UPSTREAM)))
    assert states(found) == {"ok": 1, "expiring": 1}
    assert found("kimi_accounts_expiring", days="7") == 1


# --- beside a host's own metrics ---


def python(script: str, tmp: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(tmp, **env),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_again_breaks_nothing_and_is_seen_by_the_host(tmp_path: Path) -> None:
    page = python(
        """
import importlib, sys
from prometheus_client import Counter, generate_latest
Counter("host_things_total", "Of the host.").inc()
from kimi_provider import metrics
metrics.Watch(model="kimi").answered("rest")
importlib.reload(metrics)
metrics.Watch(model="kimi").answered("connect")
del sys.modules["kimi_provider.metrics"]
metrics = importlib.import_module("kimi_provider.metrics")
metrics.Watch(model="kimi").answered("connect")
metrics.Watch(model="kimi-k3").answered("connect")
print(generate_latest().decode())
""",
        tmp_path,
    )
    found = Scrape.of(page)
    assert "host_things_total 1.0" in page
    assert found("kimi_answers_total") == found("kimi_answers_total", protocol="connect") == 2


def test_a_name_that_the_host_has_taken_stays_the_hosts(tmp_path: Path) -> None:
    page = python(
        """
from prometheus_client import Counter, generate_latest
Counter("kimi_answers_total", "Of the host.").inc(7)
from kimi_provider import metrics
metrics.Watch(model="kimi").answered("rest")
print(generate_latest().decode())
""",
        tmp_path,
    )
    assert Scrape.of(page)("kimi_answers_total") == 7


def test_importing_touches_no_shared_folder_and_starting_makes_it(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    script = "import kimi_provider.engine, os; print(os.path.exists(os.environ['PROMETHEUS_MULTIPROC_DIR']))"
    assert python(script, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(folder)) == "False\n"
    python("from kimi_provider import metrics; metrics.start()", tmp_path, PROMETHEUS_MULTIPROC_DIR=str(folder))
    assert {one.name.split("_")[0] for one in folder.iterdir()} == {"counter", "gauge"}


def test_a_shared_folder_that_can_not_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    script = """
from kimi_provider import metrics
from kimi_provider.settings import SettingsError
try:
    metrics.start()
except SettingsError as exc:
    print(exc)
"""
    said = python(script, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file" / "folder"))
    assert said.startswith("PROMETHEUS_MULTIPROC_DIR: ")
    assert str(tmp_path) in said


def test_processes_add_up_and_the_dead_do_not_run(tmp_path: Path) -> None:
    """Counters of a killed process stay; the calls that it ran end with it, once its death is noted."""
    worker = """
import os, signal, time
from kimi_provider import metrics
from kimi_provider.errors import Unavailable
metrics.start()
for _ in range(3):
    metrics.failed(Unavailable("away"))
metrics.calls("running", 2)
while metrics.registry.get_sample_value("kimi_calls", {"state": "running"}) != 2:
    time.sleep(0.01)
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    env = clean_environment(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "shared"))
    pids = []
    for _ in range(2):
        child = subprocess.run([sys.executable, "-c", worker], env=env, cwd=ROOT, capture_output=True, text=True)
        assert child.returncode < 0, child.stderr
        pids.append(child.stdout.strip())
    reader = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from kimi_provider import metrics
shown = metrics.shown(CollectorRegistry())
print(generate_latest(shown).decode())
for pid in PIDS:
    multiprocess.mark_process_dead(pid)
print("---", generate_latest(shown).decode())
""".replace("PIDS", repr(pids))
    before, after = python(reader, tmp_path, PROMETHEUS_MULTIPROC_DIR=env["PROMETHEUS_MULTIPROC_DIR"]).split("---")
    for page, running in ((before, 4), (after, 0)):
        found = Scrape.of(page)
        found.check_labels()
        assert found("kimi_failures_total", code="unavailable") == 6
        assert found("kimi_calls", state="running") == running


def test_everything_is_foreseen() -> None:
    """The families that tests allow are those that there are."""
    found = scrape()
    found.check_labels()
    gauges = {name for name in FAMILIES if name.startswith("kimi_account")}
    assert set(found.types) == set(FAMILIES) - gauges


def test_the_documentation_names_what_there_is() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    table = dict(re.findall(r"^\| `(kimi_\w+?)(?:_total)?` \| (\w+) \|", text, re.M))
    assert table == {name: kind for name, (kind, _) in FAMILIES.items()}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count", ""), "gauge": ("",)}
    samples = {name + suffix for name, (kind, _) in FAMILIES.items() for suffix in suffixes[kind]}
    assert set(re.findall(r"\bkimi_(?!provider)[a-z_]+", text)) - samples == set()


@pytest.mark.anyio
async def test_an_abandoned_call_may_end_while_something_is_counted() -> None:
    """The garbage collector ends it in whichever thread it runs, whatever lock that thread holds."""
    before = calls()
    pool = lone_account()

    async def call() -> None:
        async with pool.lease():
            await asyncio.Event().wait()

    abandoned = call()
    abandoned.send(None)
    assert calls() == (before[0], before[1] + 1)
    ended = threading.Event()

    def end_while_counting() -> None:
        with metrics._calls._lock, metrics._failures._lock:
            abandoned.close()
        ended.set()

    threading.Thread(target=end_while_counting, daemon=True).start()
    assert await asyncio.to_thread(ended.wait, 60), "it waits for itself"
    assert calls() == before
