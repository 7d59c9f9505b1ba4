"""The account store of this process: which one, opened once, with the right keys and in the right mode.

`open_store` gives every part of a process the same store for the same address. Demo mode and real mode never open each
other's; a store sealed with a key that is not here is refused and stays as it is; a new first key seals everything
anew.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, insert, select
from sqlalchemy.engine import URL

from ..errors import Unavailable
from ..loops import joined
from ..settings import Settings, state_dir
from . import tables
from .accounts import AccountRows
from .alerts import AlertRows
from .audit import AuditRows
from .chats import ChatRows
from .database import Database, read_url
from .sealing import MissingKey, Sealer, StoreError, key_of_file
from .streams import StreamRows
from .tokens import TokenRows
from .usage import UsageRows

T = TypeVar("T")

FILE_NAME: Final = "accounts.db"
#: Nothing is kept beyond the process.
MEMORY: Final = "sqlite://"
_THREADS: Final = 4


class Transaction:
    """The rows, inside one transaction; `now` is its time in Unix seconds."""

    def __init__(self, connection: Connection, now: float, sealer: Sealer) -> None:
        self._connection, self.now, self._sealer = connection, now, sealer

    @cached_property
    def accounts(self) -> AccountRows:
        """Who there is."""
        return AccountRows(self._connection, self.now)

    @cached_property
    def tokens(self) -> TokenRows:
        """Sealed pairs, and who renews them."""
        return TokenRows(self._connection, self.now, self._sealer)

    @cached_property
    def usage(self) -> UsageRows:
        """Answers and tokens per day."""
        return UsageRows(self._connection, self.now)

    @cached_property
    def audit(self) -> AuditRows:
        """What happened."""
        return AuditRows(self._connection, self.now)

    @cached_property
    def alerts(self) -> AlertRows:
        """What was told of accounts."""
        return AlertRows(self._connection, self.now)

    def chats(self, owner: str) -> ChatRows:
        """Chats as process `owner` sees them."""
        return ChatRows(self._connection, self.now, owner)

    def streams(self, owner: str) -> StreamRows:
        """Streams as process `owner` sees them."""
        return StreamRows(self._connection, self.now, owner)

    def trim(self) -> None:
        """Drop what nobody looks at any more."""
        self.audit.trim()
        self.usage.trim()


class Store:
    """The account store. Its transactions block: on an event loop use them through `run`."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database, self._sealer = database, sealer
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kimi-store")
        self._end = weakref.finalize(self, _end, database, self._threads)

    @property
    def name(self) -> str:
        """For people."""
        return self._database.name

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Look. Raises Unavailable."""
        with self._database.read() as (connection, now):
            yield Transaction(connection, now, self._sealer)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Transaction]:
        """Change; committed when the block ends well. Raises Unavailable."""
        with self._database.write(durable=durable) as (connection, now):
            yield Transaction(connection, now, self._sealer)

    async def run(self, work: Callable[[], T]) -> T:
        """`work` on the store's own threads; it ends even when its caller goes. Raises what `work` raises."""
        return await joined(self.submit(work))

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """As `run`, for those who don't wait."""
        try:
            return self._threads.submit(work)
        except RuntimeError:  # the interpreter ends and starts no thread: what must still be kept is kept here
            done: Future[T] = Future()
            try:
                done.set_result(work())
            except Unavailable as exc:
                done.set_exception(exc)
            return done

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._end.alive

    def close(self) -> None:
        """Take no more work and close every connection that is not in use."""
        self._end()


def _end(database: Database, threads: ThreadPoolExecutor) -> None:
    threads.shutdown(wait=False)
    database.close()


_lock = threading.Lock()
_stores: weakref.WeakValueDictionary[tuple[str, str | None, bool], Store] = weakref.WeakValueDictionary()


def open_store(settings: Settings) -> Store | None:
    """The store that the settings name; None when it is memory only (KIMI_STATE_URL=sqlite://). Raises StoreError."""
    url = state_url(settings)
    if url is None:
        return None
    secret = settings.kimi_secret_key.get_secret_value().strip() if settings.kimi_secret_key else ""
    named = url.render_as_string(hide_password=False), secret, settings.kimi_demo
    with _lock:
        store = _stores.get(named)
        if store is None or store.closed:
            store = _stores[named] = _opened(url, secret, demo=settings.kimi_demo)
        return store


def _opened(url: URL, secret: str, *, demo: bool) -> Store:
    keys = Sealer.of(secret) if secret else None
    database = Database(url)
    try:
        sealer = keys or Sealer.of(key_of_file(_key_file(url)))
        store = Store(database, sealer)
        _admit(store, sealer, demo=demo)
    except StoreError:
        database.close()
        raise
    return store


def memory_store(*, clock: Callable[[], float] = time.time) -> Store:
    """One that ends with the process, for what is best kept as rows. Raises StoreError."""
    return Store(Database(URL.create("sqlite"), clock=clock), Sealer([os.urandom(32)]))


def state_url(settings: Settings) -> URL | None:
    """Where accounts are kept; None for memory only. Raises StoreError."""
    if settings.kimi_state_url:
        url = read_url(settings.kimi_state_url)
        in_memory = url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")
        return None if in_memory else url
    if settings.kimi_demo:  # its own state, or none: never the user's
        return None
    return URL.create("sqlite", database=str(state_dir() / FILE_NAME))


def _key_file(url: URL) -> Path:
    if url.get_backend_name() == "sqlite":
        return Path(str(url.database)).with_suffix(".key")
    return state_dir() / "accounts.key"


def _admit(store: Store, sealer: Sealer, *, demo: bool) -> None:
    """Check mode and keys, then seal anew what an older key seals. Changes nothing when it raises StoreError."""
    mode, table = "demo" if demo else "real", tables.about
    try:
        with store.write() as rows:
            rows.accounts.lock()
            known = rows._connection.scalar(select(table.c.value).where(table.c.name == "mode"))
            if known is None:
                rows._connection.execute(insert(table).values(name="mode", value=mode))
            elif known != mode:
                raise StoreError(
                    f"The account store {store.name} belongs to {known} mode and this is {mode} mode. "
                    "Name another one with KIMI_STATE_URL."
                )
            if missing := rows.tokens.missing_keys():
                raise StoreError(
                    f"The account store {store.name} is sealed with key {', '.join(missing)}, and KIMI_SECRET_KEY (or "
                    f"its key file) holds {', '.join(sorted(sealer.names))}. Add the missing key behind the new one, "
                    "separated by a comma. Nothing was changed."
                )
            rows.tokens.reseal()
            rows.trim()
    except MissingKey as exc:
        raise StoreError(
            f"The account store {store.name} holds a row that key {exc.key_id} does not open: it is damaged. "
            "Nothing was changed."
        ) from None
    except Unavailable as exc:
        raise StoreError(str(exc)) from None
