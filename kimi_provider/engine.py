"""One answer from start to end: read files, lease an account, upload, send, stream, fail over, clean up.

The only retry loop of the package is here, and it works only while the caller has seen nothing but notices: a stream
that has begun either ends well or with a typed error. Knows accounts and protocols by their interface, nothing of
LiteLLM and nothing of wire formats.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from . import metrics
from .accounts import Account, Pool, TokenKeeper
from .answering import Answering
from .attachments import Attachments, Uploads
from .errors import (
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    CredentialError,
    KimiError,
    ModelNotFound,
    NotFound,
    PermissionRefused,
    UnusableAnswer,
    UpstreamTimeout,
)
from .events import (
    ChatOpened,
    Event,
    Finished,
    FinishReason,
    Notice,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from .live import LiveTable
from .protocols import ChatProtocol, EndpointRetired, LiveModel, Profile, Turn
from .protocols.generations import Generations
from .request import ChatRequest
from .settings import Settings
from .shaping import JsonAnswer, estimate_tokens
from .tidying import OpenedChat, Tidier
from .tools import Toolbox
from .transcript import Prompt, flatten
from .upstream import ModelSpec, Upstream
from .web import Session

log = logging.getLogger(__name__)


class KimiEngine:
    """Answers `ChatRequest`s. Safe to use from several threads and event loops."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self.settings = settings
        self.live = LiveTable(upstream, self.models)
        self.keeper = TokenKeeper(settings, upstream)
        self.pool = Pool.from_settings(settings, upstream)
        self.tidier = Tidier(settings, self.keeper)
        self._generations = Generations.from_settings(settings, upstream)
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
        async with self._uploads.open(request.messages, deadline) as files:
            toolbox = self._toolbox(request, spec)
            prompt = self._prompt(request, toolbox, files)
            prompt_tokens = estimate_tokens(prompt.text)
            if prompt_tokens > spec.context_tokens:
                raise ContextTooLong(
                    f"The conversation has about {prompt_tokens} tokens; {request.model} takes {spec.context_tokens}"
                )
            turn = _turn(request, spec, prompt, toolbox, deadline)
            course = _Course(only=self.pool.account_for(request.credential) if request.credential else None)
            while True:
                progress = _Progress(watch)
                answering = Answering(request, toolbox, self.upstream.tools, guarded=prompt.guarded)
                async with self.pool.lease(
                    only=course.sticky or course.only,
                    exclude=course.passed_over,
                    timeout_s=max(0.0, min(self.settings.kimi_queue_timeout_s, deadline - loop.time())),
                    limit=self._max_streams(self._generations.choose(spec)),
                    scope=spec.scope,
                    model=request.model,
                ) as lease:
                    account = lease.account
                    try:
                        progress.protocol = protocol = self._generations.choose(spec, opaque=account.opaque)
                        progress.session = await self._session(account, course.rejected.get(account.id), deadline)
                        brought = await self._uploads.bring(
                            files, protocol, progress.session, owner=account.id, deadline=deadline
                        )
                        progress.remembered_files = brought.remembered
                        attempt = replace(turn, files=brought.files)
                        async with aclosing(self._answer(attempt, answering, progress)) as events:
                            async for event in events:
                                yield event
                        usage = progress.usage(prompt_tokens)
                        lease.count(prompt_tokens=prompt_tokens, completion_tokens=usage.completion_tokens)
                        watch.answered(protocol.name)
                        yield usage
                        yield Finished(reason=answering.finish(progress.reason))
                        return
                    except KimiError as exc:
                        failure = self._noted(exc, account, progress)
                        if progress.emitted or not self._mended(failure, account, progress, course, turn, files):
                            lease.report(failure)
                    finally:
                        if (chat := progress.opened) is not None:
                            self.tidier.tidy_up(lease, chat)
                if progress.emitted:
                    raise failure
                another = self.pool.has_other({*course.passed_over, account.id}, scope=spec.scope)
                pause_s = course.pause_before_next_s(failure, account, another, self.upstream.retry.backoff_s)
                if pause_s is None or loop.time() + pause_s >= deadline:
                    raise failure
                if course.sticky is None:
                    metrics.failed_over(failure)
                log.info("account %s: %s; trying again in %.1f s", account.short_id, failure.code, pause_s)
                await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """An orderly end: refreshes under way bring their pairs home, counts are told, streams are given back."""
        await asyncio.to_thread(self.keeper.close)
        await asyncio.to_thread(self.pool.close)

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
        protocol = self._generations.any(opaque=account.opaque)
        session = await self.keeper.session(account)
        try:
            return await protocol.profile(session)
        except EndpointRetired:
            self._generations.retire(protocol)
            other = self._generations.any(opaque=account.opaque)
            if other is protocol:
                raise
            return await other.profile(session)
        except CredentialError:
            return await protocol.profile(await self.keeper.session(account, rejected=session.access_token))

    async def models(self) -> tuple[LiveModel, ...]:
        """What the service offers the pool's next account; none over a protocol without a list. Raises KimiError."""
        account = self.pool.next_account()
        protocol = self._generations.any(opaque=account.opaque)
        return await protocol.models(await self.keeper.session(account))

    def _max_streams(self, protocol: ChatProtocol) -> int:
        return min(self.settings.kimi_max_streams, protocol.max_streams or self.settings.kimi_max_streams)

    def _noted(self, failure: KimiError, account: Account, progress: _Progress) -> KimiError:
        """Remember a generation that is gone; with it goes an account that no other one takes."""
        if not isinstance(failure, EndpointRetired) or progress.protocol is None:
            return failure
        self._generations.retire(progress.protocol)
        if not account.opaque:
            return failure
        return PermissionRefused(
            "The account's old refresh token opens Kimi's REST protocol only, which seems to be taken down",
            account=account.short_id,
            cure="Log in again and give the account's new refresh_token.",
        )

    def _mended(
        self,
        failure: KimiError,
        account: Account,
        progress: _Progress,
        course: _Course,
        turn: Turn,
        files: Attachments,
    ) -> bool:
        """Whether the next attempt goes to the same account, because what failed there can be done otherwise."""
        course.sticky = None
        protocol = progress.protocol
        if protocol is None:
            return False
        if isinstance(failure, EndpointRetired):
            course.left.add(protocol.name)
            return course.stay(account, self._generations.choose(turn.spec).name not in course.left)
        if progress.remembered_files and _about_a_file(failure):
            # What we remember of the account may be gone from it.
            return course.stay(account, self._uploads.forget(files, protocol, owner=account.id))
        return course.refresh_next(failure, account, progress.session)

    async def _session(self, account: Account, rejected: str | None, deadline: float) -> Session:
        """A session, as long as the call may last: a refresh that takes longer goes on for the next caller."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self.keeper.session(account, rejected=rejected)
        except TimeoutError:
            raise UpstreamTimeout(
                "The token refresh took longer than the time allowed", account=account.short_id
            ) from None

    def _toolbox(self, request: ChatRequest, spec: ModelSpec) -> Toolbox:
        return Toolbox(
            request.tools,
            self.upstream.tools,
            dialect=spec.dialect,
            choice=request.tool_choice,
            parallel=request.parallel_tool_calls,
        )

    def _prompt(self, request: ChatRequest, toolbox: Toolbox, files: Attachments) -> Prompt:
        """Raises BadRequest when there is nothing to answer or the form wanted is none."""
        wanted = request.response_format
        instructions = JsonAnswer(wanted, self.upstream.tools).instructions if wanted is not None else ""
        return flatten(request.messages, toolbox, files.labels, instructions=instructions)

    async def _answer(self, turn: Turn, answering: Answering, progress: _Progress) -> AsyncGenerator[Event, None]:
        """Events of one attempt that callers see. An answer that is not what was asked for is asked for again in the
        same chat, a few times at most (protocol E.5). Raises UnusableAnswer.
        """
        for repairs_left in reversed(range(self.upstream.tools.max_repairs + 1)):
            async with aclosing(self._stream(turn, answering, progress)) as events:
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

    async def _stream(self, turn: Turn, answering: Answering, progress: _Progress) -> AsyncGenerator[Event, None]:
        """Events of one message's answer, noted in `progress`."""
        assert progress.session is not None
        assert progress.protocol is not None
        async with aclosing(progress.protocol.stream(turn, progress.session)) as batches:
            async for batch in batches:
                for event in batch:
                    match event:
                        case ChatOpened():
                            progress.chat_id = event.chat_id or progress.chat_id
                            progress.message_id = event.message_id or progress.message_id
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


@dataclass(slots=True)
class _Progress:
    """What one attempt has brought so far."""

    watch: metrics.Watch
    protocol: ChatProtocol | None = None
    session: Session | None = None
    #: Files were named that the account got with an earlier request.
    remembered_files: bool = False
    chat_id: str | None = None
    message_id: str | None = None
    reason: FinishReason = "stop"
    #: The service has ended the answer itself.
    complete: bool = False
    #: The caller has seen something other than a notice.
    emitted: bool = False
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)

    @property
    def opened(self) -> OpenedChat | None:
        """The chat this attempt made, if it did."""
        if self.protocol is None or self.chat_id is None:
            return None
        return OpenedChat(
            protocol=self.protocol, chat_id=self.chat_id, message_id=self.message_id, complete=self.complete
        )

    def note(self, event: Event) -> bool:
        """Keep what usage is estimated from; False when there is nothing to show."""
        match event:
            case Notice():
                return True
            case TextDelta():
                if not event.text:
                    return False
                self.text.append(event.text)
            case ToolCallDelta():
                self.text.append(f"{event.name or ''}{event.arguments}")
            case ThinkingDelta():
                self.thinking.append(event.text)
        if not self.emitted:
            assert self.protocol is not None
            self.emitted = True
            self.watch.first_event(self.protocol.name)
        return True

    def usage(self, prompt_tokens: int) -> Usage:
        """Estimates; thinking counts as part of the completion, as in OpenAI's API."""
        reasoning = estimate_tokens("".join(self.thinking))
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=estimate_tokens("".join(self.text)) + reasoning,
            reasoning_tokens=reasoning,
        )


@dataclass(slots=True)
class _Course:
    """Where the fail-over loop stands."""

    only: Account | None
    #: The account that gets the next attempt, whatever is excluded.
    sticky: Account | None = None
    #: Generations that said they are gone.
    left: set[str] = field(default_factory=set)
    passed_over: set[str] = field(default_factory=set)
    #: Access tokens that the service refused, by account.
    rejected: dict[str, str] = field(default_factory=dict)
    retries: int = 0

    def refresh_next(self, failure: KimiError, account: Account, session: Session | None) -> bool:
        """Whether a refused access token gets its one refresh (protocol B.6, C.11)."""
        if not isinstance(failure, CredentialError) or session is None or account.id in self.rejected:
            return False
        self.rejected[account.id] = session.access_token
        return self.stay(account)

    def stay(self, account: Account, stays: bool = True) -> bool:
        """The next attempt goes to `account`, if it `stays`; which is returned."""
        self.sticky = account if stays else None
        return stays

    def pause_before_next_s(
        self, failure: KimiError, account: Account, another: bool, backoff_s: tuple[float, ...]
    ) -> float | None:
        """Seconds until the next attempt, or None when nothing is left to try. `another` account is free to answer."""
        if self.sticky is not None:
            return 0
        if failure.another_account and self.only is None and another:
            self.passed_over.add(account.id)
            return 0
        if failure.try_again and self.retries < len(backoff_s):
            self.passed_over.clear()
            self.retries += 1
            return backoff_s[self.retries - 1]
        return None


def _about_a_file(failure: KimiError) -> bool:
    """Whether a refused request may be about a file it names; nothing says so for sure (protocol C.9)."""
    return isinstance(failure, BadRequest | NotFound) and not isinstance(failure, ContentFiltered | ContextTooLong)


def _turn(request: ChatRequest, spec: ModelSpec, prompt: Prompt, toolbox: Toolbox, deadline: float) -> Turn:
    """Raises BadRequest for an effort that nobody knows."""
    asked = spec.effort_for(request.effort, request.thinking)
    search = spec.search if request.search is None else request.search
    if toolbox.active:
        # The service's own tools compete with the caller's (protocol E.5).
        spec = spec.model_copy(update={"tools": toolbox.device_tools, "enable_plugin": False})
        search = False
    return Turn(
        prompt=prompt.text,
        spec=spec,
        thinking=asked.thinking,
        effort=asked.value,
        search=search,
        deadline=deadline,
        # Arguments and JSON are no prose: there a mark is dropped or is none.
        marks="keep" if toolbox.active else "drop" if spec.silent or request.response_format else "cite",
        system_prompt=toolbox.system_prompt,
    )
