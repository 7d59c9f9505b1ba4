"""What answers leave behind: a generation that nobody reads any more, and chats in the owner's account.

Both are removed after the answer, never in its way, and only chats that we opened (protocol E.6, E.8). The work
outlives the caller: it runs on the process's lasting loop where there is one, else on a loop of our own. A chat that
could not be removed, that nobody goes on with any more, or whose process has died is removed later, by whichever
process looks first.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import functools
import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..accounts import Account, Lease, Pool, TokenKeeper
from ..errors import CredentialError, KimiError
from ..loops import background
from ..protocols import ChatProtocol, EndpointRetired
from ..protocols.generations import Generations
from ..store import StoredChat
from ..upstream import Chats
from ..web import Session
from .registry import ChatRegistry

log = logging.getLogger(__name__)

#: Time for the calls that tidy up behind an answer.
_TIDY_TIMEOUT_S = 20.0
_CANCEL_TIMEOUT_S = 5.0

#: Calls that tidy up now, so that a script which ends with its answer waits for them a moment.
_tidying: set[concurrent.futures.Future[None]] = set()
#: The same on a `home`; a loop itself keeps no hold of its tasks.
_tidying_at_home: set[asyncio.Task[None]] = set()
_EXIT_PATIENCE_S = 3.0


@functools.cache
def _finish_tidying_at_exit() -> None:
    """After the background loop has begun, so that we wait before it ends."""
    atexit.register(lambda: concurrent.futures.wait(set(_tidying), timeout=_EXIT_PATIENCE_S))


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedChat:
    """A chat that an answer was written in; `complete`: the service has ended the answer itself. `stays`: somebody goes
    on with it. `removable`: we opened it, and it is not to be kept.
    """

    protocol: ChatProtocol
    chat_id: str
    message_id: str | None
    complete: bool
    stays: bool
    removable: bool


class Tidier:
    """Tidies up behind the answers of one engine. Safe to use from several threads and event loops."""

    def __init__(
        self,
        chats: Chats,
        keeper: TokenKeeper,
        pool: Pool,
        generations: Generations,
        registry: ChatRegistry,
    ) -> None:
        self._chats = chats
        self._keeper = keeper
        self._pool = pool
        self._generations = generations
        self._registry = registry
        self._lock = threading.Lock()
        self._watching: concurrent.futures.Future[None] | None = None
        #: A loop that lasts as long as the process, such as a proxy's, if there is one: what tidies up behind its
        #: answers stays on it. A second thread beside a busy loop costs several times the calls it makes.
        self.home: asyncio.AbstractEventLoop | None = None

    # --- behind an answer ---

    def tidy_up(self, lease: Lease, chat: OpenedChat) -> None:
        """Stop the answer in `chat` unless it is complete, and remove the chat unless it stays. Never raises."""
        removes = chat.removable and not chat.stays
        if not removes and not chat.stays and self._registry.holds(chat.chat_id):
            self._registry.removed(chat.chat_id)
        if chat.complete and not removes:
            return
        # The service counts an abandoned answer as running until it is cancelled: so do we.
        give_back = (lambda: None) if chat.complete else lease.hand_over()
        if self.home is None or self.home is not _running_loop():
            self._elsewhere(lease.account, chat, give_back)
            return
        task = self.home.create_task(self._leave_nothing_behind(lease.account, chat, give_back))
        _tidying_at_home.add(task)
        task.add_done_callback(functools.partial(self._came_home, lease.account, chat, give_back))

    def _came_home(
        self, account: Account, chat: OpenedChat, give_back: Callable[[], None], task: asyncio.Task[None]
    ) -> None:
        _tidying_at_home.discard(task)
        if task.cancelled():  # the process ends, and the loop first
            self._elsewhere(account, chat, give_back)

    def _elsewhere(self, account: Account, chat: OpenedChat, give_back: Callable[[], None]) -> None:
        # On a loop of its own: the caller may be leaving, and its loop with it.
        _tidying.add(work := background().submit(self._leave_nothing_behind(account, chat, give_back)))
        work.add_done_callback(_tidying.discard)
        _finish_tidying_at_exit()

    async def _leave_nothing_behind(self, account: Account, chat: OpenedChat, give_back: Callable[[], None]) -> None:
        try:
            async with asyncio.timeout(_TIDY_TIMEOUT_S):
                # A new session: the token that began a long answer may have expired since (protocol E.9).
                try:
                    session = await self._keeper.session(account)
                    if not chat.complete and chat.message_id is not None:
                        await self._cancel(session, chat, chat.message_id)
                finally:
                    give_back()
                if chat.removable and not chat.stays:
                    await self._delete(account, session, chat.protocol, chat.chat_id)
                    self._registry.removed(chat.chat_id)
        except (KimiError, TimeoutError) as exc:
            if chat.removable and not chat.stays:
                self._not_removed(account.short_id, chat.chat_id, 0, exc)

    async def _cancel(self, session: Session, chat: OpenedChat, message_id: str) -> None:
        """Best effort, and soon: a slot waits for it."""
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_S):
                await chat.protocol.cancel_chat(session, chat.chat_id, message_id)
        except (KimiError, TimeoutError) as exc:
            log.debug("account %s: an answer was not cancelled (%s)", session.account, type(exc).__name__)

    async def _delete(self, account: Account, session: Session, protocol: ChatProtocol, chat_id: str) -> None:
        """With a new token when the one at hand is refused: that may be what the answer has failed of."""
        try:
            await protocol.delete_chat(session, chat_id)
        except CredentialError:
            session = await self._keeper.session(account, rejected=session.access_token)
            await protocol.delete_chat(session, chat_id)

    def _not_removed(self, account: str, chat_id: str, attempts: int, why: Exception) -> None:
        self._registry.not_removed(chat_id, attempts)
        log.warning("account %s: a chat could not be removed yet (%s)", account, type(why).__name__)

    # --- later ---

    def watch(self) -> None:
        """Look now and then for chats that are overdue, from now on and for as long as the engine lives."""
        with self._lock:
            if self._watching is None or self._watching.done():
                self._watching = background().submit(_watch(weakref.ref(self), self._chats.renew_s))
                if not self._registry.lasting:
                    _finish_at_exit(weakref.ref(self))

    async def sweep(self, *, everything: bool = False) -> None:
        """Remove what is overdue, or `everything`."""
        while chats := await self._registry.overdue(everything=everything):
            for chat in chats:
                await self._remove(chat)

    async def finish(self) -> None:
        """The process ends: what no other one could remove goes now."""
        if not self._registry.lasting:
            await self.sweep(everything=True)

    async def _remove(self, chat: StoredChat) -> None:
        if not chat.removable or chat.attempts >= self._chats.max_attempts:
            self._registry.removed(chat.chat_id)
            return
        try:
            async with asyncio.timeout(_TIDY_TIMEOUT_S):
                account = await self._pool.find(chat.account_id)
                if account is None:
                    raise CredentialError("The account of the chat is not known here")
                session = await self._keeper.session(account)
                first, *others = self._generations.beginning_with(chat.protocol)
                try:
                    await self._delete(account, session, first, chat.chat_id)
                except EndpointRetired:
                    if not others:
                        raise
                    await self._delete(account, session, others[0], chat.chat_id)
        except (KimiError, TimeoutError) as exc:
            self._not_removed(chat.account_id[:8], chat.chat_id, chat.attempts, exc)
        else:
            self._registry.removed(chat.chat_id)


def _finish_at_exit(found: weakref.ref[Tidier]) -> None:
    """After the background loop has begun, so that we come before it ends."""

    def finish() -> None:
        if (tidier := found()) is not None:
            with suppress(TimeoutError):
                background().run(tidier.finish(), _EXIT_PATIENCE_S)

    atexit.register(finish)


async def _watch(found: weakref.ref[Tidier], pause_s: float) -> None:
    while (tidier := found()) is not None:
        await tidier.sweep()
        del tidier  # an engine that nobody uses any more must be able to go
        await asyncio.sleep(pause_s)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
