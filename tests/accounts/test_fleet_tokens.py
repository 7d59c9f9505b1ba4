"""Tokens that outlive the process, and many processes that share them: on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from kimi_provider.accounts import Account, Credential, DurableTokenStore, TokenKeeper
from kimi_provider.errors import AccountSuspended, CredentialError, Unavailable
from kimi_provider.store import Store, open_store, tables
from tests.harness import ROOT, clean_environment
from tests.postgres import Postgres

from .fakes import SUB, UPSTREAM, Answer, Asked, AuthServer, access, ok, refresh, refused, settings_for
from .test_tokens import Rotating, always, session


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer() as server:
        yield server


class Fleet:
    """Processes, as far as one process can play several: each has its own keeper, account object and store name."""

    def __init__(self, server: AuthServer, state_url: str) -> None:
        self.settings = settings_for(server.url, kimi_state_url=state_url)
        store = open_store(self.settings)
        assert store is not None
        self.store: Store = store

    def process(self, given: str, **more: Any) -> tuple[TokenKeeper, Account]:
        keeper = TokenKeeper(self.settings, UPSTREAM, store=DurableTokenStore(self.store), **more)
        return keeper, Account.of(Credential.of(refresh=given), self.settings, UPSTREAM)

    def events(self) -> list[str]:
        with self.store.read() as rows:
            return [entry.event for entry in reversed(rows.audit.last(50))]


@pytest.fixture
def fleet(server: AuthServer, state_url: str) -> Iterator[Fleet]:
    fleet = Fleet(server, state_url)
    yield fleet
    fleet.store.close()


# --- restarts and several owners of one text ---


def test_after_a_restart_the_rotated_pair_is_used(server: AuthServer, fleet: Fleet) -> None:
    given = refresh(iat=1_700_000_000)
    server.gateway = Rotating(given)
    first = session(*fleet.process(given))
    assert session(*fleet.process(given)) == first
    assert len(server.asked) == 1
    assert fleet.events() == ["added", "refreshed"]


def test_a_later_login_beats_the_stored_pair_and_an_old_text_never_comes_back(server: AuthServer, fleet: Fleet) -> None:
    old, later = refresh(iat=time.time() - 90), refresh(iat=time.time() + 60)
    server.gateway = Rotating(old)
    session(*fleet.process(old))
    server.gateway = Rotating(later)
    keeper, account = fleet.process(later)
    # The stored access token still lives and is used first; the next refresh goes with the later login.
    token = session(keeper, account).access_token
    assert session(keeper, account, token).access_token == server.gateway.issued[0]
    assert session(*fleet.process(old)).access_token == server.gateway.issued[0]


def test_a_dead_credential_stays_dead_across_restarts_until_a_new_one(server: AuthServer, fleet: Fleet) -> None:
    dead, new = refresh(iat=1_700_000_000), refresh(iat=1_600_000_000)
    for _ in range(2):
        with pytest.raises(CredentialError):
            session(*fleet.process(dead))
    assert len(server.asked) == 2  # both forms, once
    server.gateway = Rotating(new)
    assert session(*fleet.process(new)).access_token == server.gateway.issued[0]
    assert session(*fleet.process(dead)).access_token == server.gateway.issued[0]


def test_a_flagged_account_stops_for_everybody(server: AuthServer, fleet: Fleet) -> None:
    server.gateway = server.legacy = always((200, {}, {"error_type": "auth.account_abnormal", "message": "x"}))
    given = refresh()
    with pytest.raises(AccountSuspended):
        session(*fleet.process(given))
    asked = len(server.asked)
    with pytest.raises(AccountSuspended):
        session(*fleet.process(given))
    assert len(server.asked) == asked
    with fleet.store.read() as rows:
        stopped = rows.accounts.all()[0].stopped
    assert stopped is not None
    assert stopped.code == "account_suspended"


def test_a_removed_account_is_not_refreshed_any_more(server: AuthServer, fleet: Fleet) -> None:
    given = refresh()
    server.gateway = Rotating(given)
    keeper, account = fleet.process(given)
    token = session(keeper, account).access_token
    with fleet.store.write() as rows:
        rows.accounts.remove(SUB)
    with pytest.raises(CredentialError, match="was removed"):
        session(keeper, account, token)
    assert len(server.asked) == 1


@pytest.mark.parametrize("off_s", [-7200, -600, 0, 600, 7200])
def test_processes_with_a_wrong_clock_share_a_pair_without_a_storm(
    server: AuthServer, fleet: Fleet, off_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fleet.store.name.startswith("PostgreSQL"):  # there the database has the right clock, and only we the wrong one
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + off_s)
        server.gateway = lambda asked: ok(access(iat=real(), jti=len(server.asked)), refresh(iat=real()))
        given = refresh(iat=real() - 86400)
        clock = time.time
    else:
        base = time.time()
        server.gateway = lambda asked: ok(access(iat=base - off_s, jti=len(server.asked)), refresh(iat=base - off_s))
        given = refresh(iat=base - off_s - 86400)
        clock = time.time
    sessions = {session(*fleet.process(given, clock=clock)).access_token for _ in range(4)}
    assert len(sessions) == 1
    assert len(server.asked) == 1


# --- many callers, one refresh ---


def test_several_keepers_at_once_refresh_once(server: AuthServer, fleet: Fleet) -> None:
    given = refresh()
    server.gateway, server.delay_s = Rotating(given), 0.3
    processes = [fleet.process(given) for _ in range(4)]

    async def all_at_once() -> set[str]:
        calls = (keeper.session(account) for keeper, account in processes for _ in range(10))
        return {one.access_token for one in await asyncio.gather(*calls)}

    assert asyncio.run(all_at_once()) == {server.gateway.issued[0]}
    assert (len(server.asked), server.most_busy) == (1, 1)


def test_a_rejected_token_that_another_process_has_replaced_costs_no_refresh(server: AuthServer, fleet: Fleet) -> None:
    given = refresh()
    server.gateway = Rotating(given)
    one, other = fleet.process(given), fleet.process(given)
    old = session(*one).access_token
    assert session(*other).access_token == old
    new = session(*one, old).access_token
    assert session(*other, old).access_token == new
    assert len(server.asked) == 2


# --- a store that goes away ---


class Outage:
    """A store whose transactions fail while `down`, as those of a database that went away."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down = False
        database = store._database
        real = database._transaction

        def transaction(**options: bool) -> Any:
            if self.down:
                raise Unavailable("The account store can't be used now")
            return real(**options)

        monkeypatch.setattr(database, "_transaction", transaction)


def test_while_the_store_is_away_tokens_in_memory_serve_and_nothing_rotates(
    server: AuthServer, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, given = [time.time()], refresh()
    server.gateway = Rotating(given)
    keeper, account = fleet.process(given, clock=lambda: now[0])
    token = session(keeper, account).access_token
    outage = Outage(fleet.store, monkeypatch)
    outage.down = True
    for left_s in (500, 100, 50, 1):
        now[0] = (account.credential.claims.iat or 0) + 900 - left_s
        assert session(keeper, account).access_token == token
    now[0] += 2
    with pytest.raises(Unavailable, match="account store"):
        session(keeper, account)
    assert len(server.asked) == 1
    outage.down = False
    now[0] += 20
    assert session(keeper, account).access_token == server.gateway.issued[1]


def test_a_pair_that_could_not_be_saved_is_saved_as_soon_as_it_can_be(
    server: AuthServer, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = refresh()
    rotating = Rotating(given)
    outage = Outage(fleet.store, monkeypatch)

    def answer(asked: Asked) -> Answer:
        outage.down = True  # the answer is under way
        return rotating(asked)

    server.gateway = answer
    keeper, account = fleet.process(given)
    with pytest.raises(Unavailable, match="account store"):
        session(keeper, account)
    outage.down = False
    wait_until(lambda: not account.tokens.unsaved)  # nobody asks meanwhile
    assert session(*fleet.process(given)).access_token == rotating.issued[0]
    assert len(server.asked) == 1


def test_a_database_that_stops_and_comes_back(server: AuthServer) -> None:
    own = Postgres()
    try:
        fleet = Fleet(server, own.database())
        given = refresh()
        server.gateway = Rotating(given)
        keeper, account = fleet.process(given)
        token = session(keeper, account).access_token
        own.server.stop()
        assert session(keeper, account).access_token == token
        with pytest.raises(Unavailable, match="PostgreSQL"):
            session(keeper, account, token)
        assert len(server.asked) == 1
        own.server.start()
        assert session(keeper, account, token).access_token == server.gateway.issued[1]
        fleet.store.close()
    finally:
        own.close()


def wait_until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


# --- an orderly end ---

LEAVING = """
import asyncio, sys
from kimi_provider.accounts import Account, Credential, DurableTokenStore, TokenKeeper
from kimi_provider.settings import Settings
from kimi_provider.store import open_store
from kimi_provider.upstream import Upstream

async def leave_early():
    settings, upstream = Settings(), Upstream.load()
    keeper = TokenKeeper(settings, upstream, store=DurableTokenStore(open_store(settings)))
    asking = asyncio.create_task(keeper.session(Account.of(Credential.of(refresh=sys.argv[1]), settings, upstream)))
    await asyncio.to_thread(sys.stdin.readline)  # the gateway has been asked
    asking.cancel()

asyncio.run(leave_early())
"""


def test_a_process_that_ends_waits_for_its_refresh(
    server: AuthServer, fleet: Fleet, state_url: str, tmp_path: Path
) -> None:
    given = refresh()
    rotating, answering = Rotating(given), threading.Event()

    def answer(asked: Asked) -> Answer:
        assert answering.wait(60)
        return rotating(asked)

    server.gateway = answer
    environment = clean_environment(
        tmp_path,
        KIMI_STATE_URL=state_url,
        KIMI_BASE_URL=server.url,
        KIMI_AUTH_URL=server.url,
        XDG_STATE_HOME=os.environ["XDG_STATE_HOME"],
    )
    with subprocess.Popen([sys.executable, "-c", LEAVING, given], env=environment, stdin=subprocess.PIPE) as child:
        wait_until(lambda: server.asked, 60)
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        threading.Timer(1, answering.set).start()
        assert child.wait(60) == 0
    assert session(*fleet.process(given)).access_token == rotating.issued[0]
    assert len(server.asked) == 1


# --- kill -9 ---

#: Where a process dies in the middle of a refresh, and what its successor finds.
#: "kept": the old pair still lives, and the successor refreshes. "new": the new pair was stored. "lost": the service
#: has replaced the pair, nobody has the new one, and the owner must log in again; the error says that this happened.
OUTCOMES = {
    "before send": "kept",
    "after send": "kept",  # the service never handled it: what it has handled counts as answered, see below
    "after answer": "lost",
    "before commit": "lost",
    "after commit": "new",
    "before use": "new",
}

CHILD = """
import asyncio, json, os, signal, sys
from pathlib import Path
from kimi_provider.accounts import Account, Credential, DurableTokenStore, TokenKeeper
from kimi_provider.accounts.refreshing import Refresher
from kimi_provider.settings import Settings
from kimi_provider.store import open_store
from kimi_provider.store.tokens import TokenRows
from kimi_provider.upstream import Upstream

point, here = sys.argv[1], Path(sys.argv[2])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Dying(DurableTokenStore):
    async def save(self, account_id, pair):
        if point == "after answer":
            die()
        await super().save(account_id, pair)
        if point == "after commit":
            die()

renewed = Refresher.renewed
async def dying(self, account, refresh):
    if point == "before send":
        die()
    return await renewed(self, account, refresh)

Refresher.renewed = dying
if point == "before commit":  # inside the transaction that holds the new pair
    TokenRows.release = die

settings, upstream = Settings(), Upstream.load()

def refresh(token):
    keeper = TokenKeeper(settings, upstream, store=Dying(open_store(settings)))
    asyncio.run(keeper.session(Account.of(Credential.of(refresh=token), settings, upstream)))
    if point == "before use":
        die()

for token in json.loads(sys.stdin.read()):
    if not (child := os.fork()):
        (here / "pid").write_text(str(os.getpid()))
        refresh(token)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
"""


@pytest.mark.parametrize("point", OUTCOMES)
def test_kill_9_in_the_middle_of_a_refresh(
    server: AuthServer, fleet: Fleet, state_url: str, tmp_path: Path, point: str
) -> None:
    given = [refresh(f"user-{turn}") for turn in range(10)]
    services = {token: Rotating(token) for token in given}

    def service(asked: Asked) -> Answer:
        return next(
            (answer for one in services.values() if (answer := one(asked))[0] == 200),
            refused(),
        )

    def gone(_: Asked) -> Answer:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        return 503, {}, b""

    server.gateway = gone if point == "after send" else service
    environment = clean_environment(
        tmp_path,
        KIMI_STATE_URL=state_url,
        KIMI_BASE_URL=server.url,
        KIMI_AUTH_URL=server.url,
        XDG_STATE_HOME=os.environ["XDG_STATE_HOME"],  # the key beside it
    )
    done = subprocess.run(
        [sys.executable, "-c", CHILD, point, str(tmp_path)],
        env=environment,
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    server.gateway = service
    server.asked.clear()
    with fleet.store.write() as rows:  # as if the 30 s were over after which a dead process's claim ends
        rows._connection.execute(update(tables.refreshes).values(expires_at=0))
    for token in given:
        keeper, account = fleet.process(token)
        if OUTCOMES[point] == "lost":
            with pytest.raises(CredentialError, match="was cut short with its process") as caught:
                session(keeper, account)
            assert "private window" in caught.value.cure()
            assert "eyJ" not in str(caught.value)
        else:
            assert session(keeper, account).access_token == services[token].issued[-1]
            assert len(services[token].issued) == 1
    assert len(server.asked) == {"kept": 10, "new": 0, "lost": 20}[OUTCOMES[point]]  # lost: both forms are asked
