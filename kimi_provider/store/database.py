"""Connections: SQLite in a file of the user's, or PostgreSQL by URL; transactions; failures as ours.

SQLite runs in WAL with BEGIN IMMEDIATE and a busy timeout, so that several processes may write. Every transaction
knows the time by one clock: the server's on PostgreSQL, this machine's on SQLite. A failure while running is
`Unavailable` (the next try may succeed), one while opening is a `StoreError`. No text holds a password or a row.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateSchema

from ..errors import Unavailable
from . import tables
from .sealing import StoreError

#: How long a writer waits for another one.
BUSY_TIMEOUT_S: Final = 10
_CONNECT_TIMEOUT_S: Final = 5
#: Small: the store is asked rarely.
POOL_SIZE: Final = 8

#: Any number that means us, for `pg_advisory_xact_lock`: two processes must not create the tables at once.
_CREATING: Final = 0x6B696D69

_opened: weakref.WeakSet[Database] = weakref.WeakSet()


def _forget_connections() -> None:
    """A child of fork() must not speak on its parent's connections."""
    for database in _opened:
        database.engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


class Database:
    """One database, opened and with its tables made. Raises StoreError."""

    def __init__(self, url: URL, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._postgres = url.get_backend_name() == "postgresql"
        #: For people: without a password.
        self.name = f"PostgreSQL at {url.host or 'localhost'}" if self._postgres else str(url.database)
        self.engine = _postgres(url) if self._postgres else _sqlite(url)
        try:
            self._create()
        except SQLAlchemyError as exc:
            self.close()
            raise StoreError(f"The account store {self.name} can't be opened ({_said(exc)}). {self._cure()}") from None
        except StoreError:
            self.close()
            raise
        _opened.add(self)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[tuple[Connection, float]]:
        """A transaction that changes nothing, and the time. Raises Unavailable."""
        with self._transaction() as found:
            yield found

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[tuple[Connection, float]]:
        """A transaction that is committed at the end, and the time. Without `durable` a loss of power may undo it (the
        end of a process never does). Raises Unavailable.
        """
        with self._transaction(kimi_write=True, kimi_durable=durable) as found:
            yield found

    @contextmanager
    def _transaction(self, **options: bool) -> Iterator[tuple[Connection, float]]:
        try:
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection, self._now(connection)
        except (DBAPIError, PoolTimeout) as exc:
            raise Unavailable(
                f"The account store {self.name} can't be used now ({_said(exc)})", cure=self._cure()
            ) from None

    def _now(self, connection: Connection) -> float:
        if not self._postgres:
            return self._clock()
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())

    def _create(self) -> None:
        with self.engine.connect().execution_options(kimi_write=True) as connection, connection.begin():
            if self._postgres:
                connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
                connection.execute(CreateSchema(tables.SCHEMA, if_not_exists=True))
            tables.metadata.create_all(connection)
            version = connection.scalar(select(tables.about.c.value).where(tables.about.c.name == "version"))
            if version is None:
                connection.execute(tables.about.insert().values(name="version", value=str(tables.VERSION)))
                connection.execute(tables.changes.insert().values(id=1, number=1))
            elif version != str(tables.VERSION):
                raise StoreError(
                    f"The account store {self.name} has layout {version}; this version of kimi-provider knows "
                    f"{tables.VERSION}. Update kimi-provider, or name another store with KIMI_STATE_URL."
                )

    def _cure(self) -> str:
        if self._postgres:
            return "Check KIMI_STATE_URL and that the database is up; its user may create the schema 'kimi'."
        return "Check the disk and the file's owner, or name another place: KIMI_STATE_URL=sqlite:////path/accounts.db"


def read_url(text: str) -> URL:
    """A URL that we can open. Raises StoreError without repeating it: it may hold a password."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise StoreError(
            "KIMI_STATE_URL must be a URL such as sqlite:////var/lib/kimi/accounts.db or postgresql://user@host/name"
        ) from None
    name = url.get_backend_name()
    if name == "sqlite":
        return url.set(drivername="sqlite")
    if name in ("postgresql", "postgres"):
        try:
            import psycopg  # noqa: F401  # an extra: only who shares accounts between machines needs it
        except ImportError:
            raise StoreError("PostgreSQL needs one more package: pip install 'kimi-provider[postgres]'") from None
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(f"KIMI_STATE_URL names {name[:20]}; only sqlite and postgresql are supported")


def _sqlite(url: URL) -> Engine:
    in_memory = url.database is None
    if not in_memory:
        _make_private(Path(str(url.database)))
    engine = create_engine(
        url,
        # What is in memory is one connection's.
        poolclass=QueuePool,
        pool_size=1 if in_memory else POOL_SIZE,
        max_overflow=0 if in_memory else POOL_SIZE,
        pool_timeout=BUSY_TIMEOUT_S,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        try:
            connection.execute("PRAGMA foreign_keys=ON")
            _switch_to_wal(connection)
        except sqlite3.Error:
            connection.close()
            raise

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        durable = options.get("kimi_durable", True)
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("kimi_write") else "BEGIN")

    return engine


def _make_private(path: Path) -> None:
    """An empty file that is the user's alone. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Before SQLite does, so that it is never readable for others; its -wal and -shm take the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as exc:
        raise StoreError(
            f"The account store {path} can't be opened ({exc.strerror}). Name a place that is writable and lasts: "
            "KIMI_STATE_URL=sqlite:////path/accounts.db"
        ) from None


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait by itself while another process makes the same switch."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.02)


def _postgres(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=POOL_SIZE,
        pool_timeout=_CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_S,
            # A server that vanishes must not hang a process.
            "tcp_user_timeout": _CONNECT_TIMEOUT_S * 1000,
            "options": f"-c statement_timeout={BUSY_TIMEOUT_S}s -c lock_timeout={BUSY_TIMEOUT_S}s",
            "application_name": "kimi-provider",
        },
        hide_parameters=True,
    )
    return engine.execution_options(schema_translate_map={None: tables.SCHEMA})


def _said(exc: SQLAlchemyError) -> str:
    """What a driver said, in a few words without values: the kind of failure and its first line."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    if isinstance(cause, sqlite3.Error):
        return str(cause)
    if isinstance(exc, PoolTimeout):
        return "too many transactions at once"
    state = getattr(cause, "sqlstate", None)
    return f"{type(cause).__name__}{f' {state}' if state else ''}"
