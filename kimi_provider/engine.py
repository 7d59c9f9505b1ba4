"""One answer from start to end: lease an account, send, stream, fail over, clean up.

The only retry loop of the package is here, and it works only while the caller has seen nothing but notices: a stream
that has begun either ends well or with a typed error. Knows accounts and protocols by their interface, nothing of
LiteLLM and nothing of wire formats.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import functools
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from .accounts import Account, Lease, Pool, TokenKeeper
from .errors import BadRequest, ContextTooLong, CredentialError, KimiError, UpstreamTimeout
from .events import ChatOpened, Event, Finished, FinishReason, Notice, TextDelta, ThinkingDelta, Usage
from .loops import background
from .protocols import ChatProtocol, LiveModel, Profile, Turn
from .protocols.connect import ConnectProtocol
from .request import ChatRequest
from .settings import Settings
from .shaping import estimate_tokens
from .transcript import Prompt, TranscriptGuard, flatten
from .upstream import ModelSpec, Upstream
from .web import Session

log = logging.getLogger(__name__)

#: Time for the calls that tidy up behind an answer.
_TIDY_TIMEOUT_S = 20.0
_CANCEL_TIMEOUT_S = 5.0

#: Calls that tidy up now, so that a script which ends with its answer waits for them a moment.
_tidying: set[concurrent.futures.Future[None]] = set()
#: The same on an engine's `home`; a loop itself keeps no hold of its tasks.
_tidying_at_home: set[asyncio.Task[None]] = set()
_EXIT_PATIENCE_S = 3.0


@atexit.register
def _finish_tidying() -> None:
    concurrent.futures.wait(set(_tidying), timeout=_EXIT_PATIENCE_S)


def protocols(settings: Settings, upstream: Upstream) -> tuple[ChatProtocol, ...]:
    """Every protocol there is, best first."""
    return (ConnectProtocol(settings, upstream),)


class KimiEngine:
    """Answers `ChatRequest`s. Safe to use from several threads and event loops."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self.settings = settings
        self.upstream = upstream
        self.keeper = TokenKeeper(settings, upstream)
        self.pool = Pool.from_settings(settings, upstream)
        self._protocol = protocols(settings, upstream)[0]
        #: A loop that lasts as long as the process, such as a proxy's, if there is one: what tidies up behind its
        #: answers stays on it. A second thread beside a busy loop costs several times the calls it makes.
        self.home: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_environment(cls) -> KimiEngine:
        """With settings and data files as the environment names them. Raises SettingsError."""
        settings = Settings.load()
        return cls(settings, Upstream.load(settings.kimi_upstream_file))

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Events of one answer; `Usage` and `Finished` come last. Raises KimiError."""
        loop = asyncio.get_running_loop()
        spec = self.upstream.resolve(request.model)
        prompt = flatten(request.messages)
        prompt_tokens = estimate_tokens(prompt.text)
        if prompt_tokens > spec.context_tokens:
            raise ContextTooLong(
                f"The conversation has about {prompt_tokens} tokens; {request.model} takes {spec.context_tokens}"
            )
        allowed_s = min(self.settings.kimi_timeout_s, request.timeout_s or self.settings.kimi_timeout_s)
        turn = _turn(request, spec, prompt, loop.time() + allowed_s)
        course = _Course(only=self.pool.account_for(request.credential) if request.credential else None)
        while True:
            progress = _Progress()
            async with self.pool.lease(
                only=course.sticky or course.only,
                exclude=course.passed_over,
                timeout_s=max(0.0, min(self.settings.kimi_queue_timeout_s, turn.deadline - loop.time())),
                scope=spec.scenario,
            ) as lease:
                account = lease.account
                try:
                    progress.session = await self._session(account, course.rejected.get(account.id), turn.deadline)
                    async with aclosing(self._stream(turn, prompt, progress)) as events:
                        async for event in events:
                            yield event
                    yield progress.usage(prompt_tokens)
                    yield Finished(reason=progress.reason)
                    return
                except KimiError as exc:
                    failure = exc
                    if progress.emitted or not course.refresh_next(failure, account, progress.session):
                        lease.report(failure)
                finally:
                    self._tidy_up(lease, progress)
            if progress.emitted:
                raise failure
            another = self.pool.has_other({*course.passed_over, account.id}, scope=spec.scenario)
            pause_s = course.pause_before_next_s(failure, account, another, self.upstream.retry.backoff_s)
            if pause_s is None or loop.time() + pause_s >= turn.deadline:
                raise failure
            log.info("account %s: %s; trying again in %.1f s", account.short_id, failure.code, pause_s)
            await asyncio.sleep(pause_s)

    async def check(self, credential: str | None = None) -> Profile:
        """Prove a credential (or the pool's next account) without a prompt (protocol A.7). Raises KimiError."""
        return await self.check_account(self.pool.account_for(credential) if credential else self.pool.next_account())

    async def check_account(self, account: Account) -> Profile:
        """Prove an account's token without a prompt; a refused one gets its one refresh. Raises KimiError."""
        session = await self.keeper.session(account)
        try:
            return await self._protocol.profile(session)
        except CredentialError:
            return await self._protocol.profile(await self.keeper.session(account, rejected=session.access_token))

    async def models(self) -> tuple[LiveModel, ...]:
        """What the service offers the pool's next account now. Raises KimiError."""
        return await self._protocol.models(await self.keeper.session(self.pool.next_account()))

    async def _session(self, account: Account, rejected: str | None, deadline: float) -> Session:
        """A session, as long as the call may last: a refresh that takes longer goes on for the next caller."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self.keeper.session(account, rejected=rejected)
        except TimeoutError:
            raise UpstreamTimeout(
                "The token refresh took longer than the time allowed", account=account.short_id
            ) from None

    async def _stream(self, turn: Turn, prompt: Prompt, progress: _Progress) -> AsyncGenerator[Event, None]:
        """Events of one attempt that callers see, noted in `progress`."""
        assert progress.session is not None
        guard = TranscriptGuard() if prompt.guarded else None
        async with aclosing(self._protocol.stream(turn, progress.session)) as batches:
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
                        case _ if guard is not None and guard.stopped:
                            continue
                        case TextDelta() if guard is not None:
                            event = TextDelta(guard.feed(event.text))
                    if progress.note(event):
                        yield event
                if guard is not None and guard.stopped:
                    return
        if guard is not None and progress.note(rest := TextDelta(guard.close())):
            yield rest

    def _tidy_up(self, lease: Lease, progress: _Progress) -> None:
        """Stop a generation that nobody reads any more, and remove the chat we opened (protocol E.6, E.8)."""
        if progress.chat_id is None:
            return
        if progress.complete and self.settings.kimi_keep_chats:
            return
        # The service counts an abandoned answer as running until it is cancelled: so do we.
        give_back = (lambda: None) if progress.complete else lease.hand_over()
        if self.home is None or self.home is not _running_loop():
            self._tidy_up_elsewhere(lease.account, progress, give_back)
            return
        task = self.home.create_task(self._leave_nothing_behind(lease.account, progress, give_back))
        _tidying_at_home.add(task)
        task.add_done_callback(functools.partial(self._came_home, lease.account, progress, give_back))

    def _came_home(
        self, account: Account, progress: _Progress, give_back: Callable[[], None], task: asyncio.Task[None]
    ) -> None:
        _tidying_at_home.discard(task)
        if task.cancelled():  # the process ends, and the loop first
            self._tidy_up_elsewhere(account, progress, give_back)

    def _tidy_up_elsewhere(self, account: Account, progress: _Progress, give_back: Callable[[], None]) -> None:
        # On a loop of its own: the caller may be leaving, and its loop with it.
        _tidying.add(work := background().submit(self._leave_nothing_behind(account, progress, give_back)))
        work.add_done_callback(_tidying.discard)

    async def _leave_nothing_behind(self, account: Account, progress: _Progress, give_back: Callable[[], None]) -> None:
        assert progress.chat_id is not None
        try:
            async with asyncio.timeout(_TIDY_TIMEOUT_S):
                # A new session: the token that began a long answer may have expired since (protocol E.9).
                try:
                    session = await self.keeper.session(account)
                    if not progress.complete and progress.message_id is not None:
                        await self._cancel(session, progress.chat_id, progress.message_id)
                finally:
                    give_back()
                if not self.settings.kimi_keep_chats:
                    await self._protocol.delete_chat(session, progress.chat_id)
        except (KimiError, TimeoutError) as exc:
            log.warning("account %s: a chat could not be removed (%s)", account.short_id, type(exc).__name__)

    async def _cancel(self, session: Session, chat_id: str, message_id: str) -> None:
        """Best effort, and soon: a slot waits for it."""
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_S):
                await self._protocol.cancel_chat(session, chat_id, message_id)
        except (KimiError, TimeoutError) as exc:
            log.debug("account %s: an answer was not cancelled (%s)", session.account, type(exc).__name__)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@dataclass(slots=True)
class _Progress:
    """What one attempt has brought so far."""

    session: Session | None = None
    chat_id: str | None = None
    message_id: str | None = None
    reason: FinishReason = "stop"
    #: The service has ended the answer itself.
    complete: bool = False
    #: The caller has seen something other than a notice.
    emitted: bool = False
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)

    def note(self, event: Event) -> bool:
        """Keep what usage is estimated from; False when there is nothing to show."""
        match event:
            case Notice():
                return True
            case TextDelta():
                if not event.text:
                    return False
                self.text.append(event.text)
            case ThinkingDelta():
                self.thinking.append(event.text)
        self.emitted = True
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
    #: The account whose token is being refreshed: the next attempt goes to it.
    sticky: Account | None = None
    passed_over: set[str] = field(default_factory=set)
    #: Access tokens that the service refused, by account.
    rejected: dict[str, str] = field(default_factory=dict)
    retries: int = 0

    def refresh_next(self, failure: KimiError, account: Account, session: Session | None) -> bool:
        """Whether a refused access token gets its one refresh (protocol B.6, C.11)."""
        self.sticky = None
        if not isinstance(failure, CredentialError) or session is None or account.id in self.rejected:
            return False
        self.rejected[account.id] = session.access_token
        self.sticky = account
        return True

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


def thinks(request: ChatRequest, spec: ModelSpec) -> bool:
    """Whether thinking comes with the answer: the caller's word before the row's (protocol D.2)."""
    wanted = spec.thinking
    if request.effort is not None:
        wanted = request.effort not in ("none", "minimal")
    elif request.thinking is not None:
        wanted = request.thinking
    return wanted or spec.thinking_always


def _turn(request: ChatRequest, spec: ModelSpec, prompt: Prompt, deadline: float) -> Turn:
    """Map the caller's words for thinking and effort to the service's (protocol D.2). Raises BadRequest."""
    effort = request.effort
    if effort is not None and spec.efforts and effort not in spec.efforts:
        raise BadRequest(f"Unknown reasoning effort '{effort[:40]}'. Choose one of: {', '.join(spec.efforts)}.")
    thinking = thinks(request, spec)
    if effort is None:
        effort = spec.effort_on if thinking else spec.effort_off
    return Turn(
        prompt=prompt.text,
        spec=spec,
        thinking=thinking,
        effort=spec.efforts.get(effort) if effort is not None else None,
        search=spec.search if request.search is None else request.search,
        deadline=deadline,
    )
