"""The unary calls of the Connect protocol (protocol C.8, C.10): bare JSON in, bare JSON out.

Chats are looked up for the calling account only. A method that exists in one namespace and not in the other is data
(`unimplemented` in the settings), because the two were seen to differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .accounts import Account
from .call import field_of
from .chats import Chat, Message
from .connect import authenticate, media_type, refuse_unimplemented
from .models import model_list
from .recording import record_body
from .refusals import UNARY_TYPE, Refusal, violation
from .state import Simulator

_Item = TypeVar("_Item", Chat, Message)
_Answer = Callable[[Simulator, Account, dict[str, Any]], dict[str, Any]]

DEFAULT_PAGE_SIZE = 50


def routes(simulator: Simulator) -> list[Route]:
    """Every unary method this simulator knows."""
    made = [_route(simulator, method, answer) for method, answer in _METHODS.items()]

    async def models(request: Request) -> Response:
        # Answers without login, by the version the client claims (protocol C.8).
        version, more = request.headers.get("x-msh-version"), simulator.settings.more_models
        return await _answered(request, lambda _body: model_list(version, more))

    path = "/apiv2/kimi.gateway.config.v1.ConfigService/GetAvailableModels"
    return [*made, Route(path, models, methods=["POST"])]


def _route(simulator: Simulator, method: str, answer: _Answer) -> Route:
    async def endpoint(request: Request) -> Response:
        def checked(body: dict[str, Any]) -> dict[str, Any]:
            return answer(simulator, authenticate(simulator, request).account, body)

        try:
            refuse_unimplemented(simulator, method)
        except Refusal as refusal:
            return refusal.response()
        return await _answered(request, checked)

    return Route(f"/apiv2/{method}", endpoint, methods=["POST"])


async def _answered(request: Request, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
    if media_type(request) != UNARY_TYPE:
        return Response(status_code=415, headers={"accept-post": UNARY_TYPE})
    try:
        return Response(orjson.dumps(answer(await read_object(request))), media_type=UNARY_TYPE)
    except Refusal as refusal:
        return refusal.response()


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Refusal (400) for anything else."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Refusal("invalid_argument", "invalid JSON") from error
    if not isinstance(body, dict):
        raise Refusal("invalid_argument", "expected a JSON object")
    record_body(request, body)
    return body


def _current_user(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    region = "REGION_OVERSEA" if account.region == "overseas" else "REGION_CN"
    return {
        "user": {
            "id": account.sub,
            "nickname": account.name,
            "avatar": "https://example.com/avatar.png",
            "phone": {},
            "region": region,
            "globalId": account.sub,
        },
        "workspace": {"id": f"ws-{account.sub}"},
    }


def _delete_chat(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    simulator.delete_chat(_chat(simulator, account, body))
    return {}


def _cancel_chat(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    chat = _chat(simulator, account, body)
    simulator.streams.cancel(account.sub, chat.id, field_of(body, "message_id") or "")
    return {}


def _get_chat(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    chat = _chat(simulator, account, body)
    return {"chat": {**_face(chat), "lastRequest": chat.last_request, "status": chat.status, "statusText": ""}}


def _list_chats(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    chats = simulator.chats.of(account.sub)
    query = field_of(body, "query") or ""
    if query:
        chats = [chat for chat in chats if query.lower() in chat.name.lower()]
    page, token = _page(chats, body)
    faces = [_face(chat) for chat in page]
    for face in faces if query else ():
        at = face["name"].lower().index(query.lower())
        end = at + len(query)
        face["name"] = f"{face['name'][:at]}<em>{face['name'][at:end]}</em>{face['name'][end:]}"
    return {"chats": faces, "nextPageToken": token}


def _list_messages(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    chat = _chat(simulator, account, body)
    page, token = _page(list(reversed(chat.messages.values())), body)
    return {"messages": [_message(chat, one) for one in page], **({"nextPageToken": token} if token else {})}


def _message(chat: Chat, message: Message) -> dict[str, Any]:
    shown = {
        "id": message.id,
        "parentId": message.parent_id,
        "childrenMessageIds": chat.children(message.id),
        "role": message.role,
        "status": message.status,
        "blocks": message.blocks,
        "refs": message.refs,
    }
    return {name: value for name, value in shown.items() if value}  # proto-JSON leaves out what is empty


def _face(chat: Chat) -> dict[str, Any]:
    words = [message.text for message in chat.messages.values() if message.role == "assistant"]
    return {
        "id": chat.id,
        "name": chat.name,
        "messageContent": words[-1][:100] if words else "",
        "createTime": chat.create_time,
        "updateTime": chat.update_time,
    }


def _chat(simulator: Simulator, account: Account, body: dict[str, Any]) -> Chat:
    chat_id = field_of(body, "chat_id")
    if not isinstance(chat_id, str) or not chat_id:
        raise violation("chat_id", "must not be empty")
    chat = simulator.chats.find(account.sub, chat_id)
    if chat is None:
        raise Refusal("not_found", "chat not found")
    return chat


def _page(items: list[_Item], body: dict[str, Any]) -> tuple[list[_Item], str]:
    size = field_of(body, "page_size") or DEFAULT_PAGE_SIZE
    token = field_of(body, "page_token") or "0"
    if not isinstance(size, int) or size < 1:
        raise violation("page_size", "must be a positive number")
    if not isinstance(token, str) or not token.isdigit():
        raise violation("page_token", "unknown token")
    start = int(token)
    following = start + size
    return items[start:following], str(following) if following < len(items) else ""


def _never(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    raise Refusal("unimplemented", "not implemented")


_CHAT_SERVICES = ("kimi.gateway.chat.v1.ChatService", "kimi.chat.v1.ChatService")
_METHODS: dict[str, _Answer] = {
    "kimi.gateway.account.v1.UserService/GetCurrentUser": _current_user,
    **{f"{service}/DeleteChat": _delete_chat for service in _CHAT_SERVICES},
    **{f"{service}/CancelChat": _cancel_chat for service in _CHAT_SERVICES},
    **{f"{service}/ListChats": _list_chats for service in _CHAT_SERVICES},
    **{f"{service}/ListMessages": _list_messages for service in _CHAT_SERVICES[:1]},
    **{f"{service}/GetChat": _get_chat for service in _CHAT_SERVICES[:1]},
    **{f"{service}/CreateChat": _never for service in _CHAT_SERVICES},
}
