"""What an answer leaves behind: a generation that nobody reads any more, and a chat in the owner's account.

Both are removed after the answer, never in its way, and only a chat that we opened (protocol E.6, E.8). The work
outlives the caller: it runs on the process's lasting loop where there is one, else on a loop of our own.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from .accounts import Account, Lease, TokenKeeper
from .errors import CredentialError, KimiError
from .loops import background
from .protocols import ChatProtocol
from .settings import Settings
from .web import Session

log = logging.getLogger(__name__)

#: Time for the calls that tidy up behind an answer.
_TIDY_TIMEOUT_S = 20.0
_CANCEL_TIMEOUT_S = 5.0

#: Calls that tidy up now, so that a script which ends with its answer waits for them a moment.
_tidying: set[concurrent.futures.Future[None]] = set()
#: The same on a `home`; a loop itself keeps no hold of its tasks.
_tidying_at_home: set[asyncio.Task[None]] = set()
_EXIT_PATIENCE_S = 3.0


@atexit.register
def _finish_tidying() -> None:
    concurrent.futures.wait(set(_tidying), timeout=_EXIT_PATIENCE_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedChat:
    """A chat that an answer opened; `complete`: the service has ended the answer itself."""

    protocol: ChatProtocol
    chat_id: str
    message_id: str | None
    complete: bool


class Tidier:
    """Tidies up behind the answers of one engine. Safe to use from several threads and event loops."""

    def __init__(self, settings: Settings, keeper: TokenKeeper) -> None:
        self._settings = settings
        self._keeper = keeper
        #: A loop that lasts as long as the process, such as a proxy's, if there is one: what tidies up behind its
        #: answers stays on it. A second thread beside a busy loop costs several times the calls it makes.
        self.home: asyncio.AbstractEventLoop | None = None

    def tidy_up(self, lease: Lease, chat: OpenedChat) -> None:
        """Stop the answer in `chat` unless it is complete, and remove the chat unless chats are kept. Never raises."""
        if chat.complete and self._settings.kimi_keep_chats:
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
                if not self._settings.kimi_keep_chats:
                    await self._delete(account, session, chat)
        except (KimiError, TimeoutError) as exc:
            log.warning("account %s: a chat could not be removed (%s)", account.short_id, type(exc).__name__)

    async def _cancel(self, session: Session, chat: OpenedChat, message_id: str) -> None:
        """Best effort, and soon: a slot waits for it."""
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_S):
                await chat.protocol.cancel_chat(session, chat.chat_id, message_id)
        except (KimiError, TimeoutError) as exc:
            log.debug("account %s: an answer was not cancelled (%s)", session.account, type(exc).__name__)

    async def _delete(self, account: Account, session: Session, chat: OpenedChat) -> None:
        """With a new token when the one at hand is refused: that may be what the answer has failed of."""
        try:
            await chat.protocol.delete_chat(session, chat.chat_id)
        except CredentialError:
            session = await self._keeper.session(account, rejected=session.access_token)
            await chat.protocol.delete_chat(session, chat.chat_id)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
