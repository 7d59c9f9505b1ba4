"""The legacy calls around a chat: make, list, delete, and look up the sources of an answer (protocol B.3).

Ids made here have 20 characters. Uuid chats of Connect are listed, because an account has one history, but can't be
deleted here (protocol B.1).
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..accounts import Caller
from ..chats import Chat
from ..state import Simulator
from ..tokens import new_xid
from ..unary import read_object
from .call import read_agent
from .guard import guarded
from .refusals import JSON, RestRefusal, invalid

REST_ID_CHARS = 20


def routes(simulator: Simulator) -> list[Route]:
    """The calls; rag-refs in both forms."""
    return [
        guarded(simulator, "POST", "/api/chat", _make),
        guarded(simulator, "POST", "/api/chat/list", _list),
        guarded(simulator, "POST", "/api/chat/segment/v3/rag-refs", _rag_refs),
        guarded(simulator, "POST", "/api/chat/segment/v2/rag-refs", _rag_refs),
        guarded(simulator, "DELETE", "/api/chat/{chat_id}", _delete),
    ]


def answered(value: dict[str, Any]) -> Response:
    """JSON with status 200."""
    return Response(orjson.dumps(value), media_type=JSON)


def known_chat(simulator: Simulator, caller: Caller, chat_id: object) -> Chat:
    """The account's chat. RestRefusal (404) for any other id."""
    chat = simulator.chats.find(caller.account.sub, str(chat_id))
    if chat is None:
        raise RestRefusal("chat.not_found", "chat not found", 404)
    return chat


async def _make(simulator: Simulator, request: Request, caller: Caller) -> Response:
    body = await read_object(request)
    name = body.get("name", "")
    if not isinstance(name, str):
        raise invalid("name", "must be a string")
    agent = read_agent(body, simulator.settings)
    chat = simulator.chats.open(caller.account.sub, "rest", chat_id=new_xid(), name=name)
    await asyncio.sleep(simulator.settings.chat_delay_s)
    return answered({**_face(chat), "kimiplus_id": agent})


async def _list(simulator: Simulator, request: Request, caller: Caller) -> Response:
    body = await read_object(request)
    offset, size = _count(body, "offset", 0), _count(body, "size", 50)
    chats = simulator.chats.of(caller.account.sub)
    end = offset + size
    return answered({"items": [_face(chat) for chat in chats[offset:end]], "total": len(chats)})


async def _delete(simulator: Simulator, request: Request, caller: Caller) -> Response:
    chat_id = request.path_params["chat_id"]
    if len(chat_id) != REST_ID_CHARS:
        raise RestRefusal("request.invalid", "not an id of this protocol", 400, "id")
    simulator.delete_chat(known_chat(simulator, caller, chat_id))
    return answered({})


async def _rag_refs(simulator: Simulator, request: Request, caller: Caller) -> Response:
    body = await read_object(request)
    queries = body.get("query" if "/v2/" in request.url.path else "queries")
    if not isinstance(queries, list) or not queries or not all(isinstance(one, dict) for one in queries):
        raise invalid("queries", "must be a list of objects")
    return answered({"items": [_refs_of(simulator, caller, one) for one in queries]})


def _refs_of(simulator: Simulator, caller: Caller, query: dict[str, Any]) -> dict[str, Any]:
    chat = known_chat(simulator, caller, query.get("chat_id"))
    answer = chat.messages.get(str(query.get("sid")))
    if answer is None or answer.role != "assistant":
        raise RestRefusal("chat.segment_not_found", "segment not found", 404, "sid")
    chunks = answer.refs.get("searchChunks", [])
    numbered = [(number, chunk["base"]) for number, chunk in enumerate(chunks, 1)]
    refs = [{"ref_id": n, "ref_doc": {"url": base["url"], "title": base["title"]}} for n, base in numbered]
    return {"refs": refs}


def _face(chat: Chat) -> dict[str, Any]:
    return {"id": chat.id, "name": chat.name, "created_at": chat.create_time, "updated_at": chat.update_time}


def _count(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise invalid(name, "must be a number")
    return value
