"""What is kept and how, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import base64
import gc
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import update

from kimi_provider.errors import Unavailable
from kimi_provider.settings import Settings
from kimi_provider.store import (
    Store,
    StoredAccount,
    StoredCooldown,
    StoredFailure,
    StoreError,
    TokenPair,
    Usage,
    open_store,
    opening,
    tables,
)
from kimi_provider.store.database import read_url
from kimi_provider.store.sealing import Sealer, key_id
from tests.postgres import Postgres

Opened = Callable[..., Store]

ADA = StoredAccount(id="ada-1", short_id="ada", simulated=False, shared=True)
PAIR = TokenPair(access="access-secret", refresh="refresh-secret", obtained_at=5.0)
BUSY = StoredFailure(code="rate_limited", message="Kimi asks to slow down")


def settings_for(url: str | None, **more: object) -> Settings:
    return Settings.without_file(kimi_state_url=url, **more)


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def ada(opened: Opened) -> Store:
    store = opened()
    with store.write() as rows:
        assert rows.accounts.add(ADA)
        rows.tokens.save(ADA.id, PAIR)
    return store


# --- what is kept ---


def test_accounts_and_tokens_outlive_the_process(ada: Store, opened: Opened) -> None:
    with opened().read() as rows:
        (found,) = rows.accounts.all()
        assert (found.id, found.short_id, found.shared, found.enabled, found.stopped) == (
            "ada-1",
            "ada",
            True,
            True,
            None,
        )
        assert rows.tokens.load(ADA.id) == PAIR
        assert rows.tokens.load("nobody") is None


def test_processes_that_open_it_for_the_first_time_at_once_do_not_hinder_each_other(state_url: str) -> None:
    secret, together = key(), threading.Barrier(8)

    def open_it(_: int) -> Store:
        together.wait()
        return opening._opened(
            read_url(state_url), secret, demo=False
        )  # as another process would, which shares nothing

    with ThreadPoolExecutor(8) as threads:
        for store in list(threads.map(open_it, range(8))):
            store.close()


def test_an_account_is_added_once_and_becomes_shared_but_never_the_other_way(opened: Opened) -> None:
    own = StoredAccount(id="ada-1", short_id="ada", simulated=False, shared=False)
    with opened().write() as rows:
        assert [rows.accounts.add(one) for one in (own, ADA, own)] == [True, False, False]
        assert [one.shared for one in rows.accounts.all()] == [True]


def test_a_transaction_that_fails_leaves_nothing(ada: Store) -> None:
    def half() -> None:
        with ada.write() as rows:
            rows.tokens.save(ADA.id, TokenPair(refresh="half"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with ada.read() as rows:
        assert rows.tokens.load(ADA.id) == PAIR


def test_changes_that_others_should_see_move_the_number(ada: Store) -> None:
    def moved(change: Callable[..., object]) -> bool:
        with ada.write() as rows:
            before = rows.accounts.number()
            change(rows)
            return rows.accounts.number() > before

    cooldown = StoredCooldown(account_id=ADA.id, scope="", failure=BUSY, hard=True, left_s=9)
    assert moved(lambda rows: rows.accounts.pause(ADA.id, paused=True))
    assert moved(lambda rows: rows.accounts.stop(ADA.id, BUSY))
    assert moved(lambda rows: rows.accounts.revive(ADA.id))
    assert moved(lambda rows: rows.accounts.cool(cooldown))
    assert moved(lambda rows: rows.tokens.save(ADA.id, PAIR))
    assert moved(lambda rows: rows.accounts.remove(ADA.id))
    assert not moved(lambda rows: rows.tokens.load(ADA.id))
    assert moved(lambda rows: rows.accounts.add(ADA))
    assert not moved(lambda rows: rows.accounts.add(ADA))


def test_what_stopped_an_account_is_told_until_a_new_credential(ada: Store) -> None:
    failure = StoredFailure(code="account_suspended", message="flagged")
    with ada.write() as rows:
        rows.accounts.stop(ADA.id, failure)
        assert rows.accounts.all()[0].stopped == failure
        rows.accounts.revive(ADA.id)
        assert rows.accounts.all()[0].stopped is None


def test_cool_downs_end_and_the_latest_word_counts(ada: Store) -> None:
    def cool(left_s: float, scope: str = "") -> None:
        with ada.write() as rows:
            rows.accounts.cool(StoredCooldown(account_id=ADA.id, scope=scope, failure=BUSY, hard=True, left_s=left_s))

    cool(100)
    cool(50)
    cool(-1, "SCENARIO_CHAT")
    with ada.read() as rows:
        (found,) = rows.accounts.cooling()
        assert (found.scope, found.failure, found.hard) == ("", BUSY, True)
        assert 40 < found.left_s <= 50
    with ada.write() as rows:
        rows.accounts.cool(StoredCooldown(account_id="gone", scope="", failure=BUSY, hard=True, left_s=9))
        assert len(rows.accounts.cooling()) == 1


def test_what_was_pasted_is_known_by_its_digest(ada: Store) -> None:
    with ada.write() as rows:
        assert rows.accounts.give(ADA.id, ["d1", "d2"])
        assert not rows.accounts.give(ADA.id, ["d1"])
        assert rows.accounts.give(ADA.id, ["d1", "d3"])
        assert rows.accounts.given(ADA.id) == {"d1", "d2", "d3"}


def test_usage_adds_up_per_account_model_and_day(ada: Store) -> None:
    with ada.write() as rows:
        for _ in range(3):
            rows.usage.count(
                Usage(account_id=ADA.id, model="kimi-k2", answers=1, prompt_tokens=10, completion_tokens=4)
            )
        rows.usage.count(Usage(account_id=ADA.id, model="kimi-k3", failures=1))
        rows.usage.count(Usage(account_id="gone", model="kimi-k3", answers=1))
        found = {one.model: one for one in rows.usage.since(1)}
        assert found["kimi-k2"] == Usage(
            account_id=ADA.id, model="kimi-k2", answers=3, prompt_tokens=30, completion_tokens=12
        )
        assert found["kimi-k3"].failures == 1
        assert rows.usage.since(30) == rows.usage.since(1)


def test_usage_is_kept_for_400_days_and_the_first_of_a_day_is_told(ada: Store) -> None:
    one = Usage(account_id=ADA.id, model="kimi-k2", answers=1)
    with ada.write() as rows:
        days = [time.strftime("%Y-%m-%d", time.gmtime(rows.now - age * 86_400)) for age in (399, 401)]
        counts = {"failures": 0, "prompt_tokens": 0, "completion_tokens": 0}
        for day in days:
            rows._connection.execute(
                tables.usage.insert().values(account_id=ADA.id, model="old", day=day, answers=7, **counts)
            )
        other = replace(one, model="kimi-k3")
        assert [rows.usage.count(more) for more in (one, one, other)] == [True, False, False]
        assert not rows.usage.count(replace(one, account_id="gone"))
        rows.usage.trim()
        assert {found.model: found.answers for found in rows.usage.since(500)} == {"old": 7, "kimi-k2": 2, "kimi-k3": 1}


def test_a_removed_account_leaves_only_its_trail(ada: Store) -> None:
    with ada.write() as rows:
        rows.accounts.give(ADA.id, ["d1"])
        rows.tokens.claim(ADA.id, "me")
        rows.usage.count(Usage(account_id=ADA.id, model="m", answers=1))
        assert rows.accounts.remove(ADA.id)
        assert not rows.accounts.remove(ADA.id)
        assert (rows.accounts.all(), rows.tokens.load(ADA.id), rows.usage.since(1)) == ([], None, [])
        assert rows.accounts.given(ADA.id) == frozenset()
        assert [entry.event for entry in rows.audit.last(9)] == ["removed", "added"]


def test_the_trail_is_bounded(ada: Store) -> None:
    with ada.write() as rows:
        for number in range(5):
            rows.audit.note(ADA.id, "noted", str(number))
        assert [entry.detail for entry in rows.audit.last(2, account_id=ADA.id)] == ["4", "3"]
        rows.audit.trim(kept_s=1e6, max_entries=3)
        assert [entry.detail for entry in rows.audit.last(9)] == ["4", "3", "2"]
        rows.audit.trim(kept_s=-1)
        assert rows.audit.last(9) == []


# --- one refresh in the fleet ---


def test_one_process_claims_a_refresh_and_its_death_is_noticed(ada: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(owner: str) -> tuple[bool, bool]:
        with ada.write() as rows:
            found = rows.tokens.claim(ADA.id, owner)
            return found.granted, found.interrupted_at is not None

    assert [claim("a"), claim("b"), claim("a")] == [(True, False), (False, False), (True, False)]
    with ada.write() as rows:
        rows.tokens.release(ADA.id, "b")
        assert not rows.tokens.claim(ADA.id, "b").granted
        rows.tokens.release(ADA.id, "a")
    assert claim("b") == (True, False)
    monkeypatch.setattr("kimi_provider.store.tokens.CLAIM_LIFE_S", 0)
    assert claim("b") == (True, False)
    assert claim("c") == (True, True)


def test_the_claim_of_an_account_that_was_removed_is_no_claim(ada: Store) -> None:
    with ada.write() as rows:
        rows.accounts.remove(ADA.id)
        assert rows.tokens.claim(ADA.id, "a").removed


# --- sealing ---


def test_nothing_readable_is_written(ada: Store, state_url: str) -> None:
    if state_url.startswith("sqlite"):
        folder = Path(state_url.removeprefix("sqlite:///")).parent
        written = b"".join(path.read_bytes() for path in folder.iterdir())
    else:
        with psycopg.connect(state_url) as connection:
            written = repr(connection.execute("SELECT * FROM kimi.tokens").fetchall()).encode()
    assert b"secret" not in written
    assert "secret" not in repr(PAIR)


def test_a_new_first_key_seals_anew(opened: Opened) -> None:
    old, new = key(), Fernet.generate_key().decode()
    with opened(kimi_secret_key=old).write() as rows:
        rows.accounts.add(ADA)
        rows.tokens.save(ADA.id, PAIR)
    with opened(kimi_secret_key=f"{new},\n{old}").read() as rows:
        assert rows.audit.last(1)[0].event == "sealed anew"
    with opened(kimi_secret_key=new).read() as rows:
        assert rows.tokens.load(ADA.id) == PAIR
    with pytest.raises(StoreError):
        opened(kimi_secret_key=old)


def test_a_wrong_key_names_the_missing_one_and_destroys_nothing(opened: Opened) -> None:
    right, wrong = key(), key()
    with opened(kimi_secret_key=right).write() as rows:
        rows.accounts.add(ADA)
        rows.tokens.save(ADA.id, PAIR)
    with pytest.raises(StoreError) as caught:
        opened(kimi_secret_key=wrong)
    said = str(caught.value)
    assert Sealer.of(right).current in said
    assert "Nothing was changed" in said
    assert right not in said
    assert wrong not in said
    with opened(kimi_secret_key=right).read() as rows:
        assert rows.tokens.load(ADA.id) == PAIR
        assert [entry.event for entry in rows.audit.last(9)] == ["added"]


def test_a_key_that_another_process_has_changed_is_named(opened: Opened, state_url: str) -> None:
    old, new = key(), key()
    behind = open_store(settings_for(state_url, kimi_secret_key=old))
    assert behind is not None
    with behind.write() as rows:
        rows.accounts.add(ADA)
        rows.tokens.save(ADA.id, PAIR)
    opened(kimi_secret_key=f"{new} {old}")
    with behind.read() as rows, pytest.raises(Unavailable, match=Sealer.of(new).current):
        rows.tokens.load(ADA.id)
    behind.close()


def test_rows_can_not_be_exchanged(ada: Store) -> None:
    with ada.write() as rows:
        rows.accounts.add(StoredAccount(id="bob-1", short_id="bob", simulated=False, shared=True))
        rows.tokens.save("bob-1", TokenPair(refresh="bobs"))
        stolen = rows._connection.execute(tables.tokens.select().where(tables.tokens.c.account_id == ADA.id)).one()
        rows._connection.execute(
            update(tables.tokens).where(tables.tokens.c.account_id == "bob-1").values(sealed=stolen.sealed)
        )
        with pytest.raises(Unavailable, match="another account"):
            rows.tokens.load("bob-1")


@pytest.mark.parametrize(
    "text", ["short", "x" * 44, key() + "," + "0" * 10, "ключ"], ids=["short", "long", "second", "word"]
)
def test_a_key_that_is_none_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(StoreError, match="openssl rand -base64 32") as caught:
        open_store(settings_for(f"sqlite:///{tmp_path}/a.db", kimi_secret_key=text))
    assert text not in str(caught.value)


def test_both_alphabets_of_base64_are_one_key() -> None:
    raw = b"\xff" * 32
    names = {Sealer.of(encode(raw).decode()).current for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    assert names == {key_id(raw)}


# --- SQLite ---


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "accounts.db"


def test_only_the_owner_can_read(file: Path) -> None:
    store = open_store(settings_for(f"sqlite:///{file}"))
    assert store is not None
    with store.write() as rows:
        rows.accounts.add(ADA)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
        assert set(modes) >= {"accounts.db", "accounts.key", "accounts.db-wal"}
        assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    store.close()


def test_the_default_is_a_file_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = open_store(settings_for(None))
    assert store is not None
    assert store.name == str(tmp_path / "kimi-provider" / "accounts.db")
    store.close()


def test_a_process_has_one_store_for_an_address(file: Path) -> None:
    one, other = (open_store(settings_for(f"sqlite:///{file}")) for _ in range(2))
    assert one is other
    assert one is not None
    closed = one._end
    del one, other
    gc.collect()
    assert not closed.alive


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_memory_is_no_store(url: str) -> None:
    assert open_store(settings_for(url)) is None


def test_demo_and_real_mode_never_open_each_others(file: Path) -> None:
    for first, second in ((False, True), (True, False)):
        url = f"sqlite:///{file}-{first}"
        store = open_store(settings_for(url, kimi_demo=first))
        assert store is not None
        store.close()
        with pytest.raises(StoreError, match=r"belongs to (real|demo) mode"):
            open_store(settings_for(url, kimi_demo=second))
    assert open_store(settings_for(None, kimi_demo=True)) is None


def test_a_later_layout_is_refused_and_kept(file: Path) -> None:
    store = open_store(settings_for(f"sqlite:///{file}"))
    assert store is not None
    store.close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE about SET value = '99' WHERE name = 'version'")
    connection.close()
    with pytest.raises(StoreError, match="layout 99"):
        open_store(settings_for(f"sqlite:///{file}"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "must be a URL such as"),
        ("mysql://me:pass@host/db", "only sqlite and postgresql"),
        ("sqlite:////proc/nowhere/accounts.db", "can't be opened"),
        ("postgresql://me:pass-word@127.0.0.1:9/none", "PostgreSQL at 127.0.0.1 can't be opened"),
    ],
)
def test_a_store_that_can_not_be_opened_says_so_in_one_sentence(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        open_store(settings_for(url, kimi_secret_key=key()))
    assert "pass" not in str(caught.value)


def test_what_is_no_database_is_left_as_it_is(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(b"my diary" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        open_store(settings_for(f"sqlite:///{file}"))
    assert file.read_bytes() == b"my diary" * 1000


def test_a_disk_that_became_read_only_is_told(file: Path) -> None:
    store = open_store(settings_for(f"sqlite:///{file}"))
    assert store is not None
    with store.write() as rows:
        rows.accounts.add(ADA)
    database = store._database.engine
    with database.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")  # what a read-only mount does; root ignores file modes
        connection.commit()
    with pytest.raises(Unavailable, match="readonly") as caught, store.write() as rows:
        rows.tokens.save(ADA.id, PAIR)
    assert str(file) in str(caught.value)
    store.close()


# --- PostgreSQL beside LiteLLM's tables ---


def test_nothing_of_ours_stands_in_public_and_all_of_it_survives_there(postgres: Postgres) -> None:
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as host:
        host.execute('CREATE TABLE "LiteLLM_SpendLogs" (id text primary key)')
        store = open_store(settings_for(url))
        assert store is not None
        with store.write() as rows:
            rows.accounts.add(ADA)
            rows.tokens.save(ADA.id, PAIR)
        names = host.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert names == [("LiteLLM_SpendLogs",)]
        others = (
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'public'"
        )
        assert host.execute(others).fetchone() == (2,)  # the table and its key
        host.execute("DROP SCHEMA public CASCADE")
        host.execute("CREATE SCHEMA public")
        with store.read() as rows:
            assert rows.tokens.load(ADA.id) == PAIR
        assert host.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        store.close()
        again = open_store(settings_for(url))
        assert again is not None
        with again.read() as rows:
            assert [one.id for one in rows.accounts.all()] == [ADA.id]
        again.close()
