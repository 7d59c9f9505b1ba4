"""The REST generation of the service (protocol B): calls in, events out.

Law: the only module of this room that does I/O, and only through `web`. Knows neither accounts nor retries; every
failure leaves as a KimiError that names the session's account. Only calls an answer needs are made, none to look like
a browser. The service is taking this generation down piece by piece (protocol B.1): a call that is gone is an
`EndpointRetired`, which no other account and no second attempt mends, but another protocol does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from ...errors import ChatNotFound, KimiError, ProtocolError, QuotaExhausted
from ...events import ChatOpened, Event
from ...pump import pump
from ...settings import Settings
from ...upstream import ModelSpec, RestAgent, Upstream
from ...web import Redirected, Reply, Session, Web, host_of, seconds, session_headers
from .. import UNARY_TIMEOUT_S, EndpointRetired, FileToUpload, LiveModel, Profile, Turn, UploadedFile
from ..opening import until_known
from ..parsing import Parsing, until_parsed
from ..refusals import Refusal, naming, refused
from .answer import Answer, error_of, failure_of
from .wire import (
    AnswerDecoder,
    agent_of,
    completion_body,
    continue_body,
    create_body,
    needed_agent,
    presign_body,
    register_body,
)

__all__ = ["ResearchQuota", "RestProtocol"]

#: Of its own chats (protocol B.3).
_CHAT_ID: Final = re.compile(r"[0-9a-z]{20}")
_RETIRED_CURE: Final = "Set KIMI_PROTOCOL to auto or connect: the service seems to have taken its REST protocol down."


@dataclass(frozen=True, kw_only=True, slots=True)
class ResearchQuota:
    """Research turns of the account; None where the service does not say."""

    remain: int | None = None
    total: int | None = None
    used: int | None = None

    @property
    def exhausted(self) -> bool:
        """No research turn is left (protocol B.6)."""
        if self.remain is not None and self.remain <= 0:
            return True
        return self.used is not None and self.total is not None and self.used >= self.total


class RestProtocol:
    """Implements `ChatProtocol`."""

    name: Final = "rest"
    max_streams = 1  # a second answer of the account is refused (protocol E.7)
    takes_opaque = True

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self._settings = settings
        self._upstream = upstream

    def serves(self, spec: ModelSpec) -> bool:
        """Whether the model can be asked for in this generation; `stream` raises ModelNotFound for others."""
        return agent_of(spec, self._upstream) is not None

    async def stream(self, turn: Turn, session: Session) -> AsyncGenerator[list[Event], None]:
        """Batches of events; the last event is `Finished`. Closing the generator closes the call. Raises KimiError.

        A chat we open is told as `ChatOpened` before the answer begins, so that it can be removed whatever follows. An
        answer that the service cuts at its output cap is continued here, as one stream.
        """
        agent = needed_agent(turn, self._upstream)
        if agent.use_research and (await self.research_quota(session, deadline=turn.deadline)).exhausted:
            raise QuotaExhausted(
                "The account's research turns are used up",
                account=session.account,
                retry_after_s=self._upstream.retry.quota_s,
            )
        chat_id = turn.chat_id or ""
        if not chat_id:
            chat_id, left = await until_known(self._create(agent, session, turn.deadline))
            yield [ChatOpened(chat_id=chat_id)]
            if left:
                raise asyncio.CancelledError
        answer = Answer(self._upstream, session.account, marks=turn.marks)
        body = completion_body(turn, agent)
        for continues in reversed(range(self._upstream.rest.max_continues + 1)):
            decoder = AnswerDecoder(self._upstream, account=session.account, answer=answer, may_continue=continues > 0)
            async with aclosing(self._call(chat_id, body, decoder, turn, session)) as batches:
                async for batch in batches:
                    yield batch
            if not decoder.cut:
                return
            body = continue_body(answer.segment_id, agent)

    async def upload(self, file: FileToUpload, session: Session, *, deadline: float) -> UploadedFile:
        """Presign, put, register, and register again until it is parsed (protocol B.3). Raises KimiError."""
        rest, limits = self._upstream.rest, self._upstream.files
        place = await self._unary("POST", rest.presign, session, presign_body(file), deadline=deadline)
        url = place.get("url")
        if not isinstance(url, str) or not url:
            raise ProtocolError("Kimi did not tell where the file goes", account=session.account)
        await self._put(url, file, session, deadline)
        body = register_body(file, place)
        got: dict[str, Any] = {}

        async def look() -> Parsing:
            nonlocal got
            got = await self._unary("POST", rest.file, session, body, deadline=deadline)
            status = got.get("status")
            if status in rest.file_waiting_statuses:
                return "waiting"
            return "parsed" if status == rest.file_parsed_status else "failed"

        now = await look()
        await until_parsed(look, file, limits, deadline=deadline, account=session.account, now=now)
        file_id = got.get("id")
        if not isinstance(file_id, str) or not file_id:
            raise ProtocolError("Kimi did not tell the id of the uploaded file", account=session.account)
        return UploadedFile(id=file_id, name=file.name, size_bytes=file.size_bytes, detail=got)

    async def _put(self, url: str, file: FileToUpload, session: Session, deadline: float) -> None:
        """The bytes to the signed address, which is not told who we are: the signature is the credential."""
        if not url.startswith(("https://", session.base_url + "/")):
            raise ProtocolError("Kimi named an address for the file that is not https", account=session.account)
        web = await Web.current(self._upstream)
        left_s = deadline - asyncio.get_running_loop().time()
        timeout_s = min(self._upstream.files.upload_timeout_s, left_s)
        with naming(session.account):
            reply = await web.call("PUT", url, headers={}, file=file, timeout_s=timeout_s)
            if not 200 <= reply.status < 300:
                raise self._meaning(reply, url, session.account, chat_named=True)

    async def cancel_chat(self, session: Session, chat_id: str, message_id: str) -> None:
        """Nothing to do: this generation has no such call, closing the connection is all (protocol B.3)."""

    async def delete_chat(self, session: Session, chat_id: str) -> None:
        """Remove the chat from the account; one that is gone already is no error. Raises KimiError."""
        await self._unary("DELETE", self._chat_path(chat_id), session, gone=frozenset((404, 410)))

    async def newest_answer(self, session: Session, chat_id: str) -> str | None:
        """None: a message follows whatever is the last (protocol B.4). Whether there is such a chat only shows then,
        unless its id is none of this generation's. Raises ChatNotFound.
        """
        if _CHAT_ID.fullmatch(chat_id) is None:
            raise ChatNotFound("Kimi's REST protocol has no chat of this id", account=session.account)
        return None

    async def profile(self, session: Session) -> Profile:
        """Who the session belongs to (protocol A.7). Raises KimiError: CredentialError when the token is refused."""
        got = await self._unary("GET", self._upstream.rest.user, session)
        user_id = got.get("id")
        if not isinstance(user_id, str) or not user_id:
            raise ProtocolError("Kimi did not tell whose credential this is", account=session.account)
        region = got.get("region")
        return Profile(user_id=user_id, region=region if isinstance(region, str) else "")

    async def models(self, session: Session) -> tuple[LiveModel, ...]:
        """None: this generation has no such list, and what is in our own table is not the service's word."""
        return ()

    async def research_quota(self, session: Session, *, deadline: float | None = None) -> ResearchQuota:
        """How many research turns are left, from either shape of B.3; an unknown shape tells nothing. Raises KimiError.

        `deadline` is in loop time.
        """
        got = await self._unary("GET", self._upstream.rest.research_usage, session, deadline=deadline)
        inner = got.get("research_usage")
        usage = inner if isinstance(inner, dict) else got
        return ResearchQuota(remain=_count(usage, "remain"), total=_count(usage, "total"), used=_count(usage, "used"))

    def _chat_path(self, chat_id: str) -> str:
        return f"{self._upstream.rest.chat}/{quote(chat_id, safe='')}"

    async def _create(self, agent: RestAgent, session: Session, deadline: float) -> str:
        body = create_body(agent, self._upstream)
        got = await self._unary("POST", self._upstream.rest.chat, session, body, deadline=deadline)
        chat_id = got.get("id")
        if not isinstance(chat_id, str) or not chat_id:
            raise ProtocolError("Kimi did not tell the id of the chat it opened", account=session.account)
        return chat_id

    async def _call(
        self, chat_id: str, body: bytes, decoder: AnswerDecoder, turn: Turn, session: Session
    ) -> AsyncGenerator[list[Event], None]:
        """One call of the answer: all of it, or the piece up to the output cap."""
        url = f"{session.base_url}{self._chat_path(chat_id)}/completion/stream"
        headers = {
            **session_headers(session, self._settings, self._upstream),
            "content-type": "application/json",
            "accept": "text/event-stream",
        }
        web = await Web.current(self._upstream)
        with _telling(session.account):
            async with web.stream(url, headers=headers, content=body, deadline=turn.deadline) as response:
                reader: AnswerDecoder | Refusal = decoder
                if response.status_code != 200:
                    named = turn.chat_id is not None
                    meaning = partial(self._meaning, url=url, account=session.account, chat_named=named)
                    reader = Refusal(response.status_code, response.headers, meaning)
                batches = pump(
                    response.aiter_bytes(),
                    reader,
                    idle_timeout_s=self._settings.kimi_idle_timeout_s,
                    done_grace_s=self._upstream.service.done_grace_s,
                    deadline=turn.deadline,
                )
                async with aclosing(batches):
                    async for batch in batches:
                        yield batch

    async def _unary(
        self,
        method: str,
        path: str,
        session: Session,
        body: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
        gone: frozenset[int] = frozenset(),
    ) -> dict[str, Any]:
        """The JSON object of the answer, an empty one for anything else. Statuses in `gone` are success, too."""
        url = session.base_url + path
        timeout_s = UNARY_TIMEOUT_S
        if deadline is not None:
            timeout_s = max(0.0, min(timeout_s, deadline - asyncio.get_running_loop().time()))
        web = await Web.current(self._upstream)
        headers = session_headers(session, self._settings, self._upstream)
        with _telling(session.account):
            reply = await web.call(method, url, headers=headers, json=body, timeout_s=timeout_s)
            if reply.status in gone:
                return {}
            got = reply.json()
            if not 200 <= reply.status < 300 or error_of(got) is not None:
                raise self._meaning(reply, url, session.account, chat_named=False)
            return got if isinstance(got, dict) else {}

    def _meaning(self, reply: Reply, url: str, account: str, *, chat_named: bool) -> KimiError:
        """What an HTTP answer that is no success means (protocol B.6).

        `chat_named`: the caller named the chat, so an error that calls it unknown is about the chat.
        """
        got = reply.json()
        has_error = error_of(got) is not None
        if reply.status in self._upstream.rest.retired_statuses and not (has_error and chat_named):
            return EndpointRetired(
                f"{host_of(url)} no longer has this call (HTTP {reply.status})", account=account, cure=_RETIRED_CURE
            )
        told: KimiError | None = None
        if has_error:
            told = failure_of(
                got,
                upstream=self._upstream,
                account=account,
                status=reply.status,
                retry_after_s=seconds(reply.headers.get("retry-after")),
            )
        return refused(reply, url, account, told)


@contextmanager
def _telling(account: str) -> Iterator[None]:
    """As `naming`; a redirect means here that the call is gone (protocol B.1)."""
    with naming(account):
        try:
            yield
        except Redirected as exc:
            raise EndpointRetired(exc.message, cure=_RETIRED_CURE) from None


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if type(value) is int else None
