"""The chats that we opened or go on with, as every process on the account store knows them.

Law: a chat is written down within a tenth of a second after its id is known and stays so until it is removed:
whatever becomes of this process then, another one finds it. A chat goes on with one request at a time. Nobody waits for
what only has to be written: that goes in one transaction with whatever else there is, and a chat that is gone before
then is never written. While the store is away nothing is continued, and what should have been written is written later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Final, TypeVar

from ..errors import Unavailable
from ..settings import Settings
from ..store import ChatRows, StoredChat, memory_store, open_store
from ..upstream import Chats

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Of the changes that a store which is away has not taken, so many are kept.
_MAX_UNWRITTEN: Final = 10_000
#: So long a write waits for more: a chat that is gone by then needs none, and under load many share one. A process
#: killed meanwhile leaves its newest chats behind, as it does with those whose ids are still on their way; a fifth of
#: this costs a busy proxy 5 % of its requests a second.
_GATHER_S: Final = 0.1
#: Chats that one look brings to be removed.
_LOOK_LIMIT: Final = 20


class ChatRegistry:
    """The process's part. Safe to use from several threads and event loops."""

    def __init__(self, settings: Settings, chats: Chats) -> None:
        self._chats = chats
        store = open_store(settings)
        self._store = store or memory_store()
        #: What is written outlives the process.
        self.lasting = store is not None
        self._name = uuid.uuid4().hex
        #: One transaction at a time, so that what is written stays in order.
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._new: dict[str, StoredChat] = {}
        self._changes: list[Callable[[ChatRows], None]] = []
        self._gone: set[str] = set()
        self._held: set[str] = set()
        self._scheduled = False

    @property
    def _owner(self) -> str:
        """This process, also after a fork."""
        return f"{self._name}-{os.getpid()}"

    # --- told by those who work with a chat; none of them waits or raises ---

    def opened(self, chat: StoredChat) -> None:
        """We have opened `chat`, and work with it."""
        with self._lock:
            self._held.add(chat.chat_id)
            self._new[chat.chat_id] = chat
        self._write_soon()

    def removed(self, chat_id: str) -> None:
        """It is gone, or none of our business any more. (What is written of it costs one vain call at most.)"""
        with self._lock:
            self._held.discard(chat_id)
            if self._new.pop(chat_id, None) is None:
                self._gone.add(chat_id)

    def not_removed(self, chat_id: str, attempts: int = 0) -> None:
        """It is still there after so many attempts before this one: somebody tries again later."""
        pauses = self._chats.retry_s
        pause_s = pauses[min(attempts, len(pauses) - 1)]
        self._change(chat_id, lambda rows: rows.retry(chat_id, pause_s))

    def given_back(self, chat: StoredChat) -> None:
        """Nothing was said in it: anybody may go on with it as before."""
        self._change(chat.chat_id, lambda rows: rows.keep(chat, self._keep_s(chat)))

    # --- asked ---

    def holds(self, chat_id: str) -> bool:
        """Whether we work with a chat now."""
        with self._lock:
            return chat_id in self._held

    async def take(self, find: Callable[[ChatRows, float], StoredChat | None]) -> StoredChat | None:
        """What `find` finds (its second argument is for how long), which is ours alone from then on."""
        chat = await self._asked(lambda rows: find(rows, self._chats.claim_s), None)
        if chat is not None:
            with self._lock:
                self._held.add(chat.chat_id)
        return chat

    async def knows(self, *, name: str | None = None, answer: str | None = None) -> bool:
        """Whether there is such a chat, free or not."""
        return await self._asked(lambda rows: rows.knows(name=name, answer=answer), False)

    async def keep(self, chat: StoredChat) -> bool:
        """Let anybody go on with `chat`; False when nobody could, because that can't be written down."""
        with self._lock:
            self._new.pop(chat.chat_id, None)
            self._held.discard(chat.chat_id)

        def work(rows: ChatRows) -> bool:
            rows.keep(chat, self._keep_s(chat))
            return True

        kept = await self._asked(work, False)
        if not kept:
            self.opened(chat)
        return kept

    async def overdue(self, *, everything: bool = False) -> list[StoredChat]:
        """What is to be removed, by us now, some of it at a time; `everything` that there is, when nobody else will.
        Also says that we still work with what we have.
        """

        def work(rows: ChatRows) -> list[StoredChat]:
            with self._lock:
                held = list(self._held)
            if held:
                rows.renew(held, self._chats.claim_s)
            return rows.due(_LOOK_LIMIT, self._chats.claim_s, everything=everything)

        return await self._asked(work, [])

    async def close(self) -> None:
        """Write what is still to be written."""
        await self._asked(lambda rows: None, None)

    # --- the store ---

    def _keep_s(self, chat: StoredChat) -> float:
        return self._chats.idle_s if chat.removable else self._chats.remembered_s

    def _change(self, chat_id: str, change: Callable[[ChatRows], None]) -> None:
        with self._lock:
            self._held.discard(chat_id)
            self._changes.append(change)
        self._write_soon()

    def _write_soon(self) -> None:
        with self._lock:
            if self._scheduled:
                return
            self._scheduled = True

        def write() -> None:
            time.sleep(_GATHER_S)
            with self._lock:
                self._scheduled = False
                if not (self._new or self._changes):
                    return
            try:
                self._written(lambda rows: None)
            except Unavailable as exc:
                log.debug("kimi-provider: %s", exc.message)

        self._store.submit(write)

    async def _asked(self, work: Callable[[ChatRows], T], otherwise: T) -> T:
        try:
            return await self._store.run(lambda: self._written(work))
        except Unavailable as exc:
            log.debug("kimi-provider: %s", exc.message)
            return otherwise

    def _written(self, work: Callable[[ChatRows], T]) -> T:
        """`work`, after what is still to be written. Raises Unavailable."""
        with self._writing:
            with self._lock:
                new, changes, gone = self._new, self._changes, self._gone
                self._new, self._changes, self._gone = {}, [], set()
            try:
                with self._store.write(durable=False) as transaction:
                    rows = transaction.chats(self._owner)
                    rows.hold(new.values(), self._chats.claim_s)
                    for change in changes:
                        change(rows)
                    if gone:
                        rows.remove(gone)
                    return work(rows)
            except Unavailable:
                with self._lock:
                    self._new = {**new, **self._new}
                    self._changes = (changes + self._changes)[:_MAX_UNWRITTEN]
                    self._gone |= gone
                raise
