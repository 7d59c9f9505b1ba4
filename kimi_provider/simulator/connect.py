"""The Chat call of the Connect protocol (protocol C.1 to C.6), in both namespaces.

Refuses in the order of the real service as far as it is known: content type, credential, envelope, fields, things that
don't exist, plan, concurrency. Only then does a scenario decide what the answer looks like.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import refusals
from .accounts import Account, Caller
from .call import ChatCall, read_call
from .chats import Chat
from .envelopes import NotEnveloped, read_single
from .playing import ScriptResponse
from .recording import record_body
from .refusals import Refusal, violation
from .scenario import CONNECT
from .scenario.choosing import HEADER
from .state import Simulator
from .turn import Turn

CHAT_METHODS = ("kimi.gateway.chat.v1.ChatService/Chat", "kimi.chat.v1.ChatService/Chat")


def routes(simulator: Simulator) -> list[Route]:
    """The Chat call under its two names."""

    async def chat(request: Request) -> Response:
        method = request.url.path.removeprefix("/apiv2/")
        try:
            refuse_unimplemented(simulator, method)
            return await _chat(simulator, request)
        except Refusal as refusal:
            return refusal.response()

    return [Route(f"/apiv2/{method}", chat, methods=["POST"]) for method in CHAT_METHODS]


def media_type(request: Request) -> str:
    """The content type without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_unimplemented(simulator: Simulator, method: str) -> None:
    """501 for methods that don't exist in their namespace (protocol C.10)."""
    if method in simulator.settings.unimplemented:
        raise Refusal("unimplemented", f"{method} is not implemented")


def authenticate(simulator: Simulator, request: Request) -> Caller:
    """The caller of a live access token in the `authorization` header; cookies don't count (protocol A.1)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    caller = simulator.accounts.caller_of(token.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise refusals.unauthenticated()
    return caller


def _require_parsed(simulator: Simulator, account: Account, file_ids: list[str]) -> None:
    """Refusal (400, naming the field) unless each is a known, parsed file of the account (protocol C.9)."""
    for file_id in file_ids:
        file = simulator.files.find(account.sub, file_id)
        if file is None:
            raise violation("message.blocks.file.id", f"unknown file {file_id!r}")
        if simulator.files.status(file) != "parsed":
            raise violation("message.blocks.file.id", f"file {file_id!r} is not parsed")


async def _chat(simulator: Simulator, request: Request) -> Response:
    if media_type(request) != refusals.STREAM_TYPE:
        return Response(status_code=415, headers={"accept-post": refusals.STREAM_TYPE})
    caller = authenticate(simulator, request)
    try:
        body = read_single(await request.body())
    except NotEnveloped as error:
        raise Refusal("invalid_argument", str(error), carrier="trailer") from error
    record_body(request, body)
    call = read_call(body, simulator.settings)
    chat = _chat_of(simulator, caller.account, call)
    _require_parsed(simulator, caller.account, call.file_ids)
    chosen = CONNECT.asked_for(call.text, request.headers.get(HEADER))
    if not caller.account.allows(call.required_level):
        raise refusals.paywall(call.required_level)
    stream = simulator.streams.enter(caller.account.sub, simulator.settings.max_streams)
    if stream is None:
        raise refusals.too_many_streams()
    playing = CONNECT.for_stream(simulator, chosen, stream)
    stream.chat_id = chat.id if chat is not None else None
    turn = Turn(simulator, caller.account, caller.jti, call, chat, stream)
    turn.record.uploaded_bytes = request.state.record.body_bytes
    if chat is None and simulator.settings.chat_delay_s:
        turn.make_chat()
        await asyncio.sleep(simulator.settings.chat_delay_s)

    def leave() -> None:
        turn.settle()
        simulator.end_call(turn.record)
        simulator.streams.leave(stream)

    return ScriptResponse(playing.script(turn), stream, on_cancel=turn.cancelled, leave=leave)


def _chat_of(simulator: Simulator, account: Account, call: ChatCall) -> Chat | None:
    """The chat to go on with. Not found: gone, another account's, or without the named parent (protocol C.11)."""
    chat = simulator.chats.find(account.sub, call.chat_id) if call.chat_id else None
    if call.chat_id and chat is None:
        raise Refusal("not_found", "chat not found", carrier="trailer")
    known = chat.messages if chat is not None else {}
    if call.parent_id and call.parent_id not in known:
        raise Refusal("not_found", "parent message not found", carrier="trailer")
    if call.message_id and call.message_id not in known:
        raise Refusal("not_found", "message not found", carrier="trailer")
    return chat
