"""POST /api/chat/{id}/completion/stream (protocol B.4, B.5), a continued answer included.

Refuses in this order: content type, credential, fields, chat, segment, files, research quota, the one stream. Only then
does a scenario decide what the answer looks like; a continue call gets the rest of the answer it names, whatever is
queued.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..accounts import Account, Caller
from ..playing import ScriptResponse
from ..scenario.choosing import HEADER
from ..state import Simulator
from ..unary import read_object
from .answers import rest_of
from .call import RestCall, read_completion
from .chats import REST_ID_CHARS
from .guard import guarded
from .refusals import EVENT_STREAM, PUSHING, RestRefusal
from .scenario import REST
from .turn import RestTurn, error_event

STREAMS_PER_ACCOUNT = 1  # protocol D.3
_STILL_STREAMING = "another answer is still streaming"


def routes(simulator: Simulator) -> list[Route]:
    """The completion stream."""
    return [guarded(simulator, "POST", "/api/chat/{chat_id}/completion/stream", _completion)]


async def _completion(simulator: Simulator, request: Request, caller: Caller) -> Response:
    body = await read_object(request)
    call = read_completion(body, simulator.settings)
    account = caller.account
    chat = simulator.chats.find(account.sub, request.path_params["chat_id"])
    if chat is None or len(chat.id) != REST_ID_CHARS:
        raise RestRefusal("chat.not_found", "chat not found", 404)
    if call.segment_id and (chat.cut is None or chat.cut.segment_id != call.segment_id):
        raise RestRefusal("chat.segment_not_found", "nothing to continue in this segment", 400, "segment_id")
    _require_parsed(simulator, account, call)
    chosen = None if call.segment_id else REST.asked_for(call.text, request.headers.get(HEADER))
    research = call.use_research and not call.segment_id
    if research and simulator.research_used[account.sub] >= simulator.settings.research_total:
        raise RestRefusal("chat.research.used_up", "no explorer calls left", 429)
    stream = simulator.streams.enter(account.sub, STREAMS_PER_ACCOUNT, "rest")
    if stream is None:
        return _pushing(simulator)
    playing = None if call.segment_id else REST.for_stream(simulator, chosen, stream)
    stream.chat_id = chat.id
    simulator.research_used[account.sub] += research
    turn = RestTurn(simulator, caller, call, chat, stream)
    turn.record.uploaded_bytes = request.state.record.body_bytes

    def leave() -> None:
        turn.settle()
        simulator.end_call(turn.record)
        simulator.streams.leave(stream)

    script = rest_of(turn) if playing is None else playing.script(turn)
    return ScriptResponse(script, stream, on_cancel=turn.cancelled, leave=leave, media_type=EVENT_STREAM)


def _pushing(simulator: Simulator) -> Response:
    if simulator.settings.rest_pushing == "json":
        return RestRefusal(PUSHING, _STILL_STREAMING, 400).response()
    return Response(error_event(PUSHING, _STILL_STREAMING), media_type=EVENT_STREAM)


def _require_parsed(simulator: Simulator, account: Account, call: RestCall) -> None:
    for file_id in call.file_ids:
        file = simulator.files.find(account.sub, file_id)
        if file is None:
            raise RestRefusal("file.not_found", f"unknown file {file_id!r}", 400, "refs")
        if simulator.files.status(file) != "parsed":
            raise RestRefusal("file.not_parsed", f"file {file_id!r} is not parsed", 400, "refs")
