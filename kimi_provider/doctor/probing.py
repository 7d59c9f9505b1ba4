"""A few cheap calls on the owner's account, to see how the service behaves now (protocol G).

Law: nothing is asked that the owner was not told of (`plan`): one call after the other, on one account, within its
stream limit; chats opened here are removed again, however the probing ends. A call that fails in a way nobody knows is
repeated a few times in all, with what was learned from it. What was heard stays in memory; who calls decides what
becomes of it. The refresh comes last: it replaces the session that all other calls need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..accounts import Account
from ..engine import KimiEngine
from ..errors import (
    AccountSuspended,
    BadRequest,
    ContentFiltered,
    CredentialError,
    KimiError,
    NotFound,
    PermissionRefused,
    ProtocolError,
    Unavailable,
    UpstreamTimeout,
)
from ..protocols import ChatProtocol, LiveModel
from ..protocols.connect import ConnectProtocol
from ..protocols.rest import RestProtocol
from ..settings import Settings
from ..store import StoredChat
from ..tap import Exchange, listening
from ..upstream import Upstream, merged, read_overlay
from ..web import Session
from .asking import Asked, ask
from .failures import errors_of, moved_model, passing_reason, respelled_tokens, unknown_reason
from .hearing import Heard, heard
from .learning import Lesson, lessons
from .plan import asks_newer, asks_older

#: Without these nothing else can be asked.
_FATAL = (CredentialError, AccountSuspended, PermissionRefused, Unavailable, UpstreamTimeout)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One probe: `note` says what came of it; `failure` is None when it was answered."""

    title: str
    note: str = ""
    failure: KimiError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """All that one probing brought. `overlay` is what was learned, on top of the file in use; `upstream` has it."""

    account: Account = field(repr=False)
    steps: tuple[Step, ...]
    heard: tuple[Heard, ...] = field(repr=False)
    offered: tuple[LiveModel, ...]
    found: tuple[str, ...]
    overlay: dict[str, Any]
    upstream: Upstream = field(repr=False)


async def probe(engine: KimiEngine, account: Account, told: Callable[[Step], None]) -> Probed:
    """Make the calls of `plan`; `told` hears of each step. Raises KimiError when the account can't be used at all."""
    with listening() as exchanges:
        return await _Probing(engine, account, exchanges, told).run()


class _Probing:
    def __init__(
        self, engine: KimiEngine, account: Account, exchanges: list[Exchange], told: Callable[[Step], None]
    ) -> None:
        self._engine, self._account, self._told = engine, account, told
        self._settings, self._upstream = engine.settings, engine.upstream
        self._asks = engine.upstream.doctor
        self._exchanges = exchanges
        self._heard: list[Heard] = []
        self._steps: list[Step] = []
        self._offered: tuple[LiveModel, ...] = ()
        self._found: dict[str, None] = {}
        self._overlay: dict[str, Any] = {}
        self._repeats_left = self._asks.max_repeats
        self._opened: list[tuple[ChatProtocol, str]] = []

    async def run(self) -> Probed:
        """All probes, in their order."""
        try:
            await self._who()
            if asks_newer(self._settings, self._account):
                await self._models()
                chats = [await self._chat(f"chat with {name}", name) for name in self._asks.chats]
                if first := next(filter(None, chats), None):
                    await self._chat("one more message", self._asks.chats[chats.index(first)], chat_id=first)
                    await self._messages(first)
                await self._chat(f"search with {self._asks.search}", self._asks.search, prompt=self._asks.search_prompt)
            if asks_older(self._settings):
                await self._chat("chat over the older protocol", self._asks.older, older=True)
        finally:
            await self._remove()
        await self._refresh()
        return Probed(
            account=self._account,
            steps=tuple(self._steps),
            heard=tuple(self._heard),
            offered=self._offered,
            found=tuple(self._found),
            overlay=self._overlay,
            upstream=self._upstream,
        )

    async def _who(self) -> None:
        title = "account"
        try:
            try:
                profile = await self._engine.check_account(self._account)
            except ProtocolError:
                if not self._rescued(title):
                    raise
                profile = await self._engine.check_account(self._account)
        except _FATAL:
            raise
        except KimiError as exc:
            self._step(title, failure=exc)
        else:
            self._step(title, f"the token is alive{f', region {profile.region}' if profile.region else ''}")

    async def _models(self) -> None:
        title = "list of models"
        try:
            self._offered = await ConnectProtocol(self._settings, self._upstream).models(await self._session())
        except KimiError as exc:
            self._step(title, failure=exc)
        else:
            self._step(title, ", ".join(live.id for live in self._offered))

    async def _messages(self, chat_id: str) -> None:
        title = "list of its messages"
        try:
            newest = await ConnectProtocol(self._settings, self._upstream).newest_answer(await self._session(), chat_id)
        except KimiError as exc:
            self._step(title, failure=exc)
        else:
            self._step(title, "the newest answer is in it" if newest else "no answer is in it")

    async def _chat(
        self, title: str, name: str, *, prompt: str | None = None, chat_id: str | None = None, older: bool = False
    ) -> str | None:
        """Ask once, and again while something is learned from the failure; the id of the chat that answered."""
        trial: Lesson | None = None
        reason: str | None = None
        while True:
            upstream = self._with(trial)
            asked = await self._ask(name, prompt or self._asks.prompt, upstream, chat_id=chat_id, older=older)
            last = next((call for call in reversed(self._hear(title, name)) if call.chats), None)
            for one in lessons(last, upstream) if last is not None else ():
                self._learn(one)
            refused = isinstance(asked.failure, BadRequest | NotFound) and not isinstance(
                asked.failure, ContentFiltered
            )
            if trial is not None and not refused:
                self._learn(trial)
                trial = None
            if asked.failure is None:
                if reason is not None:
                    self._learn(passing_reason(reason))
                note = f"{asked.characters} characters" + (f", {asked.citations} cited" if asked.citations else "")
                self._step(title, note)
                return asked.chat_id
            errors = errors_of(last) if last is not None else []
            unknown = next((word for error in errors if (word := unknown_reason(error, upstream))), None)
            lesson = None
            if refused and trial is None and last is not None and not older:
                lesson = moved_model(name, upstream.resolve(name), self._offered, upstream)
            may_pass = not refused and not isinstance(asked.failure, CredentialError | PermissionRefused)
            if self._repeats_left and (lesson is not None or (unknown not in (None, reason) and may_pass)):
                self._repeats_left -= 1
                trial, reason = lesson, unknown or reason
                await asyncio.sleep(upstream.retry.backoff_s[-1] if lesson is None else 0)
                continue
            if unknown is not None:
                became = f"it did not pass, and counts as {asked.failure.code}"
                self._found[f"{unknown}: nobody knows this reason; {became}"] = None
            self._step(title, failure=asked.failure)
            return None

    async def _ask(self, name: str, prompt: str, upstream: Upstream, *, chat_id: str | None, older: bool) -> Asked:
        protocol: ChatProtocol = (RestProtocol if older else ConnectProtocol)(self._settings, upstream)
        limit = min(self._settings.kimi_max_streams, protocol.max_streams or self._settings.kimi_max_streams)
        try:
            spec = upstream.resolve(name)
            session = await self._session()
            async with self._engine.pool.lease(only=self._account, limit=limit, scope=spec.scope, model=name):
                return await ask(
                    protocol,
                    session,
                    spec,
                    prompt,
                    timeout_s=self._asks.timeout_s,
                    chat_id=chat_id,
                    opened=lambda new: self._open(protocol, new),
                )
        except KimiError as exc:
            return Asked(failure=exc)

    def _open(self, protocol: ChatProtocol, chat_id: str) -> None:
        """Written down at once: whatever becomes of this process, another one removes the chat."""
        self._opened.append((protocol, chat_id))
        account_id = self._account.id
        self._engine.registry.opened(
            StoredChat(chat_id=chat_id, account_id=account_id, protocol=protocol.name, removable=True)
        )

    async def _remove(self) -> None:
        """The chats that were opened here."""
        if not self._opened:
            return
        title, failure = "removal of our chats", None
        for protocol, chat_id in self._opened:
            try:
                await protocol.delete_chat(await self._session(), chat_id)
                self._engine.registry.removed(chat_id)
            except KimiError as exc:
                self._engine.registry.not_removed(chat_id)
                failure = exc
        self._step(title, f"{len(self._opened)} removed" if failure is None else "", failure=failure)

    async def _refresh(self) -> None:
        title, auth = "token refresh", self._upstream.auth
        if self._account.credential.refresh is None:
            return
        if any(one.exchange.path in (auth.gateway_path, auth.legacy_path) for one in self._heard):
            self._step(title, "was due anyway, at the first call")
            return
        try:
            session = await self._session()
            await self._engine.keeper.session(self._account, rejected=session.access_token)
        except KimiError as exc:
            rescued = self._rescued(title)
            self._step(title, "a new pair, which is stored" if rescued else "", failure=None if rescued else exc)
        else:
            self._step(title, "a new pair, which is stored")

    def _rescued(self, title: str) -> bool:
        """Whether the answer to a refresh held a pair that the keeper could not read: kept, it goes on from there."""
        for call in self._hear(title):
            if (found := respelled_tokens(call, self._upstream)) is not None:
                lesson, credential = found
                self._learn(lesson)
                self._engine.pool.add(credential)
                return True
        return False

    async def _session(self) -> Session:
        return await self._engine.keeper.session(self._account)

    def _hear(self, step: str, model: str | None = None) -> list[Heard]:
        """What came since the last time."""
        new = [heard(one, step=step, model=model) for one in self._exchanges[len(self._heard) :]]
        self._heard += new
        return new

    def _step(self, title: str, note: str = "", *, failure: KimiError | None = None) -> None:
        self._hear(title)
        step = Step(title=title, note=note, failure=failure)
        self._steps.append(step)
        self._told(step)

    def _with(self, trial: Lesson | None) -> Upstream:
        """The file in use, with what was learned and what is being tried."""
        return self._upstream if trial is None else _taught(self._settings, merged(self._overlay, trial.overlay))

    def _learn(self, lesson: Lesson) -> None:
        self._found[lesson.found] = None
        if lesson.overlay:
            self._overlay = merged(self._overlay, lesson.overlay)
            self._upstream = _taught(self._settings, self._overlay)


def _taught(settings: Settings, overlay: dict[str, Any]) -> Upstream:
    return Upstream.overlaid(whole_overlay(settings, overlay))


def whole_overlay(settings: Settings, learned: dict[str, Any]) -> dict[str, Any]:
    """What was learned, with the values of the overlay that is in use: one file has to hold both."""
    path = settings.kimi_upstream_file
    return merged({} if path is None else read_overlay(path), learned)
