"""One answer from start to end: read files, lease an account, upload, send, stream, fail over, clean up.

The only retry loop of the package is here, and it works only while the caller has seen nothing but notices: a stream
that has begun either ends well or with a typed error. Knows accounts and protocols by their interface, nothing of
LiteLLM and nothing of wire formats.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from .. import metrics
from ..accounts import Account, Pool, TokenKeeper
from ..conversations import ChatRegistry, Conversation, Tidier
from ..errors import CredentialError, KimiError, ModelNotFound, PermissionRefused, UnusableAnswer
from ..events import ChatOpened, ConversationFound, Event, Finished
from ..live import LiveTable
from ..protocols import EndpointRetired, LiveModel, Profile, Turn
from ..protocols.generations import Generations
from ..request import ChatRequest
from ..settings import Settings
from ..upstream import ModelSpec, Upstream
from .answering import Answering
from .asking import Asking
from .attachments import Attachments, Uploads
from .attempts import Course, Progress, about_the_request
from .placement import House, Placement

log = logging.getLogger(__name__)


class KimiEngine:
    """Answers `ChatRequest`s. Safe to use from several threads and event loops."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self.settings = settings
        self.live = LiveTable(upstream, self.models)
        self.keeper = TokenKeeper(settings, upstream)
        self.pool = Pool.from_settings(settings, upstream)
        generations = Generations.from_settings(settings, upstream)
        self.registry = ChatRegistry(settings, upstream.chats)
        self.tidier = Tidier(upstream.chats, self.keeper, self.pool, generations, self.registry)
        self._house = House(
            settings=settings,
            chats=upstream.chats,
            keeper=self.keeper,
            pool=self.pool,
            generations=generations,
            registry=self.registry,
            tidier=self.tidier,
        )
        self._uploads = Uploads(settings, upstream)

    @classmethod
    def from_environment(cls) -> KimiEngine:
        """With settings and data files as the environment names them. Raises SettingsError."""
        settings = Settings.load()
        return cls(settings, Upstream.load(settings.kimi_upstream_file))

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Events of one answer; `Usage` and `Finished` come last. Raises KimiError."""
        loop = asyncio.get_running_loop()
        spec = await self.resolve(request.model)
        watch = metrics.Watch(model=self.upstream.label(request.model))
        allowed_s = min(self.settings.kimi_timeout_s, request.timeout_s or self.settings.kimi_timeout_s)
        deadline = loop.time() + allowed_s
        course = Course(only=self.pool.account_for(request.credential) if request.credential else None)
        async with AsyncExitStack() as whole:
            files = await whole.enter_async_context(self._uploads.open(request.messages, deadline))
            asking = Asking(request, spec, self.upstream, files, deadline)
            account_id = course.only.id if course.only is not None else None
            conversation = Conversation(request, asking.setup, account_id, self.registry, self.settings)
            whole.callback(conversation.give_back)
            place = Placement(self._house, request, spec, conversation, course, deadline)
            await place.find()
            while True:
                head = conversation.head
                message = asking.message(conversation)
                progress = Progress(watch, chat_id=head.chat_id if head is not None else None)
                answering = Answering(request, asking.toolbox, asking.json, guarded=message.guarded)
                failure, mended = None, False
                async with AsyncExitStack() as attempt:
                    try:
                        lease = await attempt.enter_async_context(place.lease())
                    except KimiError:
                        if not place.may_leave:
                            raise
                        conversation.leave()
                        continue
                    account = progress.account = lease.account
                    try:
                        if conversation.lasts:
                            yield ConversationFound(continued=head is not None)
                        progress.protocol = protocol = self._house.generations.choose(spec, opaque=account.opaque)
                        progress.session = await self._house.session(
                            account, deadline, rejected=course.rejected.get(account.id)
                        )
                        brought = await self._uploads.bring(
                            message.files, protocol, progress.session, owner=account.id, deadline=deadline
                        )
                        progress.remembered_files = brought.remembered
                        turn = replace(message.turn, files=brought.files)
                        async with aclosing(self._answer(turn, answering, progress, place)) as events:
                            async for event in events:
                                yield event
                        reason = answering.finish(progress.reason)
                        await place.keep(progress, answering, reason, guarded=message.guarded)
                        usage = progress.usage(asking.prompt_tokens)
                        lease.count(prompt_tokens=asking.prompt_tokens, completion_tokens=usage.completion_tokens)
                        watch.answered(protocol.name)
                        yield usage
                        yield Finished(reason=reason)
                        return
                    except KimiError as exc:
                        failure = self._noted(exc, account, progress)
                        mended = not progress.emitted and self._mended(failure, progress, course, spec, message.files)
                        if not mended:
                            lease.report(failure)
                    finally:
                        place.leave_behind(lease, progress, failure, mended=mended)
                if progress.emitted:
                    raise failure
                if head is not None and place.moves_on(mended=mended):
                    metrics.failed_over(failure)
                    log.info("account %s: %s; a new chat is told everything", account.short_id, failure.code)
                    continue
                another = conversation.head is None and self.pool.has_other(
                    {*course.passed_over, account.id}, scope=spec.scope
                )
                pause_s = course.pause_before_next_s(failure, account, another, self.upstream.retry.backoff_s)
                if pause_s is None or loop.time() + pause_s >= deadline:
                    raise failure
                if course.sticky is None:
                    metrics.failed_over(failure)
                log.info("account %s: %s; trying again in %.1f s", account.short_id, failure.code, pause_s)
                await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """An orderly end: refreshes under way bring their pairs home, counts are told, streams are given back, chats
        that are gone are forgotten.
        """
        await self.tidier.finish()
        await asyncio.to_thread(self.keeper.close)
        await asyncio.to_thread(self.pool.close)
        await self.registry.close()

    @property
    def upstream(self) -> Upstream:
        """The data file, with the models that the service was last seen to offer."""
        return self.live.upstream

    async def resolve(self, model: str) -> ModelSpec:
        """The row of a model's name, which only the service's own list may have. Raises ModelNotFound."""
        try:
            return self.upstream.resolve(model)
        except ModelNotFound:
            return (await self.live.refreshed()).resolve(model)

    async def check(self, credential: str | None = None) -> Profile:
        """Prove a credential (or the pool's next account) without a prompt (protocol A.7). Raises KimiError."""
        return await self.check_account(self.pool.account_for(credential) if credential else self.pool.next_account())

    async def check_account(self, account: Account) -> Profile:
        """Prove an account's token without a prompt; a refused one gets its one refresh. Raises KimiError."""
        protocol = self._house.generations.any(opaque=account.opaque)
        session = await self.keeper.session(account)
        try:
            return await protocol.profile(session)
        except EndpointRetired:
            self._house.generations.retire(protocol)
            other = self._house.generations.any(opaque=account.opaque)
            if other is protocol:
                raise
            return await other.profile(session)
        except CredentialError:
            return await protocol.profile(await self.keeper.session(account, rejected=session.access_token))

    async def models(self) -> tuple[LiveModel, ...]:
        """What the service offers the pool's next account; none over a protocol without a list. Raises KimiError."""
        account = self.pool.next_account()
        protocol = self._house.generations.any(opaque=account.opaque)
        return await protocol.models(await self.keeper.session(account))

    def _noted(self, failure: KimiError, account: Account, progress: Progress) -> KimiError:
        """Remember a generation that is gone; with it goes an account that no other one takes."""
        if not isinstance(failure, EndpointRetired) or progress.protocol is None:
            return failure
        self._house.generations.retire(progress.protocol)
        if not account.opaque:
            return failure
        return PermissionRefused(
            "The account's old refresh token opens Kimi's REST protocol only, which seems to be taken down",
            account=account.short_id,
            cure="Log in again and give the account's new refresh_token.",
        )

    def _mended(
        self, failure: KimiError, progress: Progress, course: Course, spec: ModelSpec, files: Attachments
    ) -> bool:
        """Whether the next attempt goes to the same account, because what failed there can be done otherwise."""
        course.sticky = None
        account, protocol = progress.account, progress.protocol
        if account is None or protocol is None:
            return False
        if isinstance(failure, EndpointRetired):
            course.left.add(protocol.name)
            return course.stay(account, self._house.generations.choose(spec).name not in course.left)
        if progress.remembered_files and about_the_request(failure):
            # What we remember of the account may be gone from it.
            return course.stay(account, self._uploads.forget(files, protocol, owner=account.id))
        return course.refresh_next(failure, account, progress.session)

    async def _answer(
        self, turn: Turn, answering: Answering, progress: Progress, place: Placement
    ) -> AsyncGenerator[Event, None]:
        """Events of one attempt that callers see. An answer that is not what was asked for is asked for again in the
        same chat, a few times at most (protocol E.5). Raises UnusableAnswer.
        """
        for repairs_left in reversed(range(self.upstream.tools.max_repairs + 1)):
            async with aclosing(self._stream(turn, answering, progress, place)) as events:
                async for event in events:
                    yield event
            problem = answering.problem if progress.reason == "stop" else None
            if problem is None:
                return
            repair = answering.repair
            if not repairs_left or repair is None or progress.chat_id is None:
                raise UnusableAnswer(f"The model's answer holds {problem}")
            log.info("asking the model again: its answer holds %s", problem)
            answering.begin_again()
            progress.complete = False
            turn = replace(
                turn,
                prompt=repair,
                files=(),
                system_prompt=None,
                chat_id=progress.chat_id,
                parent_id=progress.message_id,
            )

    async def _stream(
        self, turn: Turn, answering: Answering, progress: Progress, place: Placement
    ) -> AsyncGenerator[Event, None]:
        """Events of one message's answer, noted in `progress`."""
        assert progress.session is not None
        assert progress.protocol is not None
        async with aclosing(progress.protocol.stream(turn, progress.session)) as batches:
            async for batch in batches:
                for event in batch:
                    match event:
                        case ChatOpened():
                            if progress.opened(event):
                                place.opened(progress)
                            continue
                        case Finished():
                            progress.reason = event.reason
                            progress.complete = True
                            continue
                    for shown in answering.feed(event):
                        if progress.note(shown):
                            yield shown
                if answering.over:
                    break
        for shown in answering.close():
            if progress.note(shown):
                yield shown
