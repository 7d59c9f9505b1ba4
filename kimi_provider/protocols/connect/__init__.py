"""The Connect generation of the service (protocol C): calls in, events out.

Law: the only module of this room that does I/O, and only through `web`. Knows neither accounts nor retries; every
failure leaves as a KimiError that names the session's account. HTTP 200 is not trusted: a page or bare JSON in place
of envelopes is an error, whatever its status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any, Final

from ...errors import ChatNotFound, KimiError, ProtocolError, UpstreamError
from ...events import Event
from ...pump import pump
from ...settings import Settings
from ...upstream import ModelSpec, Upstream
from ...web import Reply, Session, Web, host_of, seconds, session_headers
from .. import UNARY_TIMEOUT_S, FileToUpload, LiveModel, Profile, Turn, UploadedFile
from ..failures import classify
from ..opening import until_known
from ..parsing import Parsing, until_parsed
from ..refusals import Refusal, error_object, naming, refused
from .wire import ChatDecoder, chat_body

#: Content types that can't be envelopes, whatever the status says.
_NOT_ENVELOPES: Final = ("text/", "application/json", "application/problem+json")

#: Messages to look through for the last answer.
_PAGE_SIZE: Final = 10


class ConnectProtocol:
    """Implements `ChatProtocol`."""

    name: Final = "connect"
    max_streams = None
    takes_opaque = False

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self._settings = settings
        self._upstream = upstream
        # Methods live in different namespaces; the one that answered first stays (protocol G.15, G.16).
        self._working: dict[tuple[str, ...], str] = {}

    def serves(self, spec: ModelSpec) -> bool:
        """Every row of the table is a request of this generation."""
        return True

    async def stream(self, turn: Turn, session: Session) -> AsyncGenerator[list[Event], None]:
        """Batches of events; the last event is `Finished`. Closing the generator closes the call. Raises KimiError."""
        with naming(session.account):
            async with AsyncExitStack() as call:
                begun = self._begin(call, turn, session)
                (first, batches), left = await until_known(begun) if turn.chat_id is None else (await begun, False)
                yield first
                if left:
                    raise asyncio.CancelledError
                async for batch in batches:
                    yield batch

    async def _begin(
        self, call: AsyncExitStack, turn: Turn, session: Session
    ) -> tuple[list[Event], AsyncGenerator[list[Event], None]]:
        """The first batch, which tells the chat, and those that follow as long as `call` is open."""
        url = session.base_url + self._upstream.connect.chat
        headers = {
            **session_headers(session, self._settings, self._upstream),
            "content-type": "application/connect+json",
            "connect-protocol-version": "1",
        }
        web = await Web.current(self._upstream)
        body = chat_body(turn, self._upstream)
        response = await call.enter_async_context(
            web.stream(url, headers=headers, content=body, deadline=turn.deadline)
        )
        kind = response.headers.get("content-type", "").lower()
        decoder: ChatDecoder | Refusal
        if response.status_code == 200 and not kind.startswith(_NOT_ENVELOPES):
            decoder = ChatDecoder(self._upstream, account=session.account, marks=turn.marks)
        else:
            meaning = partial(_meaning, url=url, upstream=self._upstream, account=session.account)
            decoder = Refusal(response.status_code, response.headers, meaning)
        batches = pump(
            response.aiter_bytes(),
            decoder,
            idle_timeout_s=self._settings.kimi_idle_timeout_s,
            done_grace_s=self._upstream.service.done_grace_s,
            deadline=turn.deadline,
        )
        await call.enter_async_context(aclosing(batches))
        return await anext(batches, []), batches

    async def upload(self, file: FileToUpload, session: Session, *, deadline: float) -> UploadedFile:
        """One upload, then looks until it is parsed (protocol C.9). Raises KimiError."""
        limits = self._upstream.files
        left_s = deadline - asyncio.get_running_loop().time()
        got = await self._unary(
            self._upstream.connect.upload, session, form=file, timeout_s=min(limits.upload_timeout_s, left_s)
        )
        told = got.get("file")
        file_id = told.get("id") if isinstance(told, dict) else None
        if not isinstance(file_id, str) or not file_id:
            raise ProtocolError("Kimi did not tell the id of the uploaded file", account=session.account)

        async def look() -> Parsing:
            got = await self._unary(self._upstream.connect.parse_progress, session, {"file_ids": [file_id]})
            return self._parsing(got, file_id)

        await until_parsed(look, file, limits, deadline=deadline, account=session.account)
        return UploadedFile(id=file_id, name=file.name, size_bytes=file.size_bytes)

    def _parsing(self, got: Mapping[str, Any], file_id: str) -> Parsing:
        rows = got.get("progresses")
        known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        status = next((_string(row, "status") for row in known if row.get("fileId") == file_id), "")
        if status == self._upstream.connect.parsed_status:
            return "parsed"
        return "failed" if self._upstream.connect.parse_failed_sign in status else "waiting"

    async def cancel_chat(self, session: Session, chat_id: str, message_id: str) -> None:
        """Stop the generation. Raises KimiError; the caller decides that it does not matter."""
        body = {"chat_id": chat_id, "message_id": message_id}
        await self._first_known(self._upstream.connect.cancel_chat, session, body)

    async def delete_chat(self, session: Session, chat_id: str) -> None:
        """Remove the chat from the account; one that is gone already is no error. Raises KimiError."""
        try:
            await self._first_known(self._upstream.connect.delete_chat, session, {"chat_id": chat_id})
        except ChatNotFound:
            return

    async def newest_answer(self, session: Session, chat_id: str) -> str | None:
        """Of the messages, which come newest first, the first answer (protocol C.10). Raises KimiError."""
        body = {"chat_id": chat_id, "page_size": _PAGE_SIZE, "page_token": ""}
        got = await self._unary(self._upstream.connect.list_messages, session, body)
        rows = got.get("messages")
        messages = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return next((_string(row, "id") or None for row in messages if row.get("role") == "assistant"), None)

    async def profile(self, session: Session) -> Profile:
        """Who the session belongs to (protocol A.7). Raises KimiError: CredentialError when the token is refused."""
        got = await self._unary(self._upstream.connect.current_user, session, {})
        user = got.get("user")
        user_id = user.get("id") if isinstance(user, dict) else None
        if not isinstance(user, dict) or not isinstance(user_id, str) or not user_id:
            raise ProtocolError("Kimi did not tell whose credential this is", account=session.account)
        return Profile(user_id=user_id, region=_string(user, "region"))

    async def models(self, session: Session) -> tuple[LiveModel, ...]:
        """The service's list (protocol C.8); rows without an id are left out. Raises KimiError."""
        got = await self._unary(self._upstream.connect.available_models, session, {})
        rows = got.get("availableModels")
        if not isinstance(rows, list):
            raise ProtocolError("Kimi's model list has an unknown shape", account=session.account)
        found = (_live_model(row) for row in rows if isinstance(row, dict))
        return tuple(model for model in found if model.id)

    async def _first_known(self, paths: tuple[str, ...], session: Session, body: Mapping[str, Any]) -> None:
        """Call the first of `paths` that the service knows."""
        working = self._working.get(paths)
        missing: KimiError | None = None
        for path in (working,) if working else paths:
            try:
                await self._unary(path, session, body)
            except _UnknownMethod as exc:
                missing = exc
                continue
            except ChatNotFound:
                # The method is there, the chat is not.
                self._working[paths] = path
                raise
            self._working[paths] = path
            return
        self._working.pop(paths, None)
        raise missing or UpstreamError("upstream.yaml names no path for this call", account=session.account)

    async def _unary(
        self,
        path: str,
        session: Session,
        body: Mapping[str, Any] | None = None,
        *,
        form: FileToUpload | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
    ) -> dict[str, Any]:
        url = session.base_url + path
        web = await Web.current(self._upstream)
        headers = session_headers(session, self._settings, self._upstream)
        with naming(session.account):
            reply = await web.call("POST", url, headers=headers, json=body, form=form, timeout_s=timeout_s)
            got = reply.json()
            error = _error_of(got)
            if reply.status == 200 and isinstance(got, dict) and error is None:
                return got
            absent = error is None and reply.status in (404, 405, 501)
            if absent or (error is not None and error.get("code") == "unimplemented"):
                raise _UnknownMethod(f"{host_of(url)} does not know this call (HTTP {reply.status})")
            raise _meaning(reply, url, self._upstream, session.account)


class _UnknownMethod(UpstreamError):
    """The service has no such method in this namespace."""


def _meaning(reply: Reply, url: str, upstream: Upstream, account: str) -> KimiError:
    """What an HTTP answer that is no success means (protocol C.11, first carrier)."""
    error = _error_of(reply.json())
    told: KimiError | None = None
    if error is not None:
        told = classify(
            code=error.get("code"),
            reason=error.get("error_type") or error.get("reason"),
            message=error.get("message"),
            details=error,
            severity=error.get("severity"),
            upstream=upstream,
            account=account,
            retry_after_s=seconds(reply.headers.get("retry-after")),
        )
    elif reply.status == 200:
        told = ProtocolError(f"{host_of(url)} sent a page or bare JSON instead of an answer", account=account)
    return refused(reply, url, account, told)


def _error_of(got: object) -> Mapping[str, Any] | None:
    """Connect's `{code, message, details}`, or REST's error, which calls of this generation answer with, too."""
    return error_object(got, "code", "error_type")


def _live_model(row: Mapping[str, Any]) -> LiveModel:
    key, model_id = _string(row, "key"), _string(row, "id")
    options = row.get("reasoningEffortOptions")
    rows = options if isinstance(options, list) else ()
    efforts = [_string(option, "effort") for option in rows if isinstance(option, dict)]
    return LiveModel(
        id=model_id or key,
        key=key or model_id,
        title=_string(row, "displayName") or model_id or key,
        scenario=_string(row, "scenario"),
        kimiplus_id=_string(row, "kimiPlusId") or _string(row, "kimiplusId") or None,
        agent_mode=_string(row, "agentMode") or None,
        efforts=tuple(filter(None, efforts)),
    )


def _string(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
