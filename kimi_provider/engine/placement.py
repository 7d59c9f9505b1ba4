"""Where one request's answer is written, and what becomes of the chat: the engine's side of a conversation.

An answer goes on in the chat of its conversation, on that chat's account, or into a new chat on any. Law: a chat with
which something is not sure is left for a new one, unless it alone holds what was said before; a chat that others may go
on with stays, any other of ours is removed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from ..accounts import Account, Lease, Pool, TokenKeeper
from ..conversations import ChatRegistry, Conversation, OpenedChat, Tidier
from ..errors import ChatNotFound, CredentialError, KimiError, Overloaded, RateLimited, UpstreamTimeout
from ..events import FinishReason
from ..protocols import ChatProtocol, EndpointRetired
from ..protocols.generations import Generations
from ..request import ChatRequest
from ..settings import Settings
from ..store import StoredChat
from ..upstream import Chats, ModelSpec
from ..web import Session
from .answering import Answering
from .attempts import Course, Progress, about_the_request


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """What every answer of an engine needs."""

    settings: Settings
    chats: Chats
    keeper: TokenKeeper
    pool: Pool
    generations: Generations
    registry: ChatRegistry
    tidier: Tidier

    async def session(self, account: Account, deadline: float, *, rejected: str | None = None) -> Session:
        """A session, as long as the call may last: a refresh that takes longer goes on for the next caller."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self.keeper.session(account, rejected=rejected)
        except TimeoutError:
            raise UpstreamTimeout(
                "The token refresh took longer than the time allowed", account=account.short_id
            ) from None


class Placement:
    """That of one request. `deadline` is in loop time."""

    def __init__(
        self,
        house: House,
        request: ChatRequest,
        spec: ModelSpec,
        conversation: Conversation,
        course: Course,
        deadline: float,
    ) -> None:
        self._house, self._request, self._spec = house, request, spec
        self._course, self._deadline = course, deadline
        self.conversation = conversation
        #: The account of the chat to go on with.
        self._home: Account | None = None

    async def find(self) -> None:
        """Find the chat to go on with, if there is one that can be reached. Raises as `Conversation.take`."""
        conversation = self.conversation
        await conversation.take()
        if (name := conversation.unknown_name) is not None and re.fullmatch(self._house.chats.ids, name):
            await self._adopt(name)
        if conversation.head is None:
            return
        self._home = home = await self._house.pool.find(conversation.head.account_id)
        if home is None or self._protocol(home).name != conversation.head.protocol:
            conversation.leave()

    async def _adopt(self, chat_id: str) -> None:
        """Go on with a chat of an account's owner, if there is one. Raises KimiError when nobody can tell."""
        only = self._course.only
        failures = []
        for account in (only,) if only is not None else self._house.pool.accounts:
            try:
                protocol = self._protocol(account)
                newest = await protocol.newest_answer(await self._house.session(account, self._deadline), chat_id)
            except KimiError as exc:
                failures.append(exc)
                continue
            await self.conversation.adopt(chat_id, account.id, protocol.name, newest)
            return
        if failures and not any(isinstance(one, ChatNotFound) for one in failures):
            raise failures[-1]

    def _protocol(self, account: Account) -> ChatProtocol:
        return self._house.generations.choose(self._spec, opaque=account.opaque)

    # --- an attempt ---

    def lease(self) -> Lease:
        """A stream on the account of the chat, or on any that may be tried."""
        house, course = self._house, self._course
        wait_s = house.settings.kimi_queue_timeout_s
        if self.may_leave:
            wait_s = min(wait_s, house.chats.sticky_wait_s)
        most = house.settings.kimi_max_streams
        return house.pool.lease(
            only=self._home if self.conversation.head is not None else course.sticky or course.only,
            exclude=course.passed_over,
            timeout_s=max(0.0, min(wait_s, self._deadline - asyncio.get_running_loop().time())),
            limit=min(most, house.generations.choose(self._spec).max_streams or most),
            scope=self._spec.scope,
            model=self._request.model,
        )

    @property
    def may_leave(self) -> bool:
        """Whether another account may go on with what the chat's own can't at the moment."""
        head = self.conversation.head
        return (
            head is not None
            and self.conversation.repeats
            and self._house.pool.has_other({head.account_id}, scope=self._spec.scope)
        )

    def opened(self, progress: Progress) -> None:
        """We have made a chat: from now on somebody removes it, whatever becomes of us."""
        if not self._house.settings.kimi_keep_chats:
            self._house.registry.opened(self._chat(progress))
            self._house.tidier.watch()

    async def keep(self, progress: Progress, answering: Answering, reason: FinishReason, *, guarded: bool) -> None:
        """Let the next request go on in the chat. Where the caller has not got just what the model wrote, only one that
        names it and repeats nothing may.
        """
        conversation = self.conversation
        whole = progress.complete and answering.whole and reason in ("stop", "tool_calls")
        if conversation.lasts and (whole or conversation.named) and progress.chat_id is not None:
            chat = self._chat(progress, guarded=guarded)
            progress.kept = await conversation.keep(chat, progress.answer if whole else None)

    def leave_behind(self, lease: Lease, progress: Progress, failure: KimiError | None, *, mended: bool) -> None:
        """Stop and remove what an attempt leaves in the account, but a chat that others may go on with."""
        conversation = self.conversation
        removable = self._removable
        stays = progress.kept or (conversation.head is not None and self._head_stays(progress, failure, mended=mended))
        if not stays:
            conversation.head = None
        if progress.protocol is None or progress.chat_id is None or (stays and not progress.began):
            return
        chat = OpenedChat(
            protocol=progress.protocol,
            chat_id=progress.chat_id,
            message_id=progress.message_id,
            complete=progress.complete or not progress.began,
            stays=stays,
            removable=removable,
        )
        self._house.tidier.tidy_up(lease, chat)

    def moves_on(self, *, mended: bool) -> bool:
        """After an attempt in the chat that failed: whether the next one is for a new chat. Raises BadRequest when that
        would know nothing of what was said.
        """
        conversation = self.conversation
        if conversation.head is not None and (mended or not conversation.repeats):
            return False
        conversation.leave()
        return True

    def _head_stays(self, progress: Progress, failure: KimiError | None, *, mended: bool) -> bool:
        if failure is None or isinstance(failure, EndpointRetired):
            return failure is None and not self.conversation.repeats
        if mended or (not progress.began and isinstance(failure, RateLimited | Overloaded | CredentialError)):
            return True  # nothing was said in it
        # All that was said may be there and nowhere else.
        return not self.conversation.repeats and not about_the_request(failure)

    @property
    def _removable(self) -> bool:
        head = self.conversation.head
        return not self._house.settings.kimi_keep_chats if head is None else head.removable

    def _chat(self, progress: Progress, *, guarded: bool = False) -> StoredChat:
        assert progress.chat_id is not None
        assert progress.account is not None
        assert progress.protocol is not None
        return StoredChat(
            chat_id=progress.chat_id,
            account_id=progress.account.id,
            protocol=progress.protocol.name,
            removable=self._removable,
            message_id=progress.message_id,
            guarded=guarded,
        )
