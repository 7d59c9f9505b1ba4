"""Files the legacy way: presign, put the bytes, register, poll (protocol B.3).

The signed address is one of this server, and its signature is the credential of the PUT. Registering the same object
again answers with the same file: that is how clients poll.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ..accounts import Caller
from ..recording import count_round_trip
from ..rest.chats import answered, known_chat
from ..rest.guard import guarded
from ..rest.refusals import EVENT_STREAM, RestRefusal, invalid
from ..rest.turn import sse
from ..state import Simulator
from ..unary import read_object
from .draining import drain
from .store import FileTooLarge, Measured, Presigned, StoredFile

PREFIX = "/_presigned/"
POLL_S = 0.02
_STATUS = {"processing": "initialized", "parsed": "parsed", "failed": "failed"}
_REFUSED_STATUS = {"rate_limited": 429, "unavailable": 503}


def routes(simulator: Simulator) -> list[Route]:
    """The four calls."""

    async def put(request: Request) -> Response:
        try:
            return await _put(simulator, request)
        except RestRefusal as refusal:
            await drain(request)
            return refusal.response()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    return [
        guarded(simulator, "POST", "/api/pre-sign-url", _presign),
        Route(PREFIX + "{object_name:path}", put, methods=["PUT"]),
        guarded(simulator, "POST", "/api/file", _register),
        guarded(simulator, "POST", "/api/file/parse_process", _parse_process),
    ]


async def _presign(simulator: Simulator, request: Request, caller: Caller) -> Response:
    body = await read_object(request)
    action, name = _kind(body, "action"), _text(body, "name")
    refusal = simulator.settings.upload_refusal
    if refusal:
        raise RestRefusal("request.rate_limited", f"uploads are {refusal}", _REFUSED_STATUS[refusal])
    place = simulator.files.reserve(caller.account.sub, name=name, is_image=action == "image")
    url = f"{str(request.base_url).rstrip('/')}{PREFIX}{place.object_name}?signature={place.signature}"
    named = {"file_id": place.file_id} if place.is_image else {}
    return answered({"url": url, "object_name": place.object_name, **named})


async def _put(simulator: Simulator, request: Request) -> Response:
    place = simulator.files.places.get(request.path_params["object_name"])
    if place is None or request.query_params.get("signature") != place.signature:
        raise RestRefusal("file.signature_invalid", "unknown or unsigned address", 403)
    if "authorization" not in request.headers:  # with one, the recorder has counted it
        count_round_trip(simulator, place.owner)
    measured = Measured(simulator.settings.max_file_bytes)
    async for chunk in request.stream():
        measured.feed(chunk)
    content_type = request.headers.get("content-type", "")
    if not content_type:
        raise RestRefusal("file.content_type_missing", "the upload has no content type", 400)
    if not measured.size:
        raise RestRefusal("file.empty", "the file is empty", 400)
    try:
        _ = measured.sha256
    except FileTooLarge as error:
        raise RestRefusal("file.too_large", str(error), 413) from error
    place.measured, place.content_type = measured, content_type
    return Response(status_code=200)


async def _register(simulator: Simulator, request: Request, caller: Caller) -> Response:
    body = await read_object(request)
    is_image = _kind(body, "type") == "image"
    name = _text(body, "name")
    if body.get("chat_id"):
        known_chat(simulator, caller, body["chat_id"])
    place = _place(simulator, caller, body, is_image)
    if place.name != name:
        raise invalid("name", "is not the name that was signed")
    file = simulator.files.find(place.owner, place.file_id)
    if file is None:
        if place.measured is None:
            raise RestRefusal("file.not_uploaded", "no bytes were put there", 400)
        file = simulator.files.add(
            place.owner,
            name=place.name,
            content_type=place.content_type,
            measured=place.measured,
            settings=simulator.settings,
            file_id=place.file_id,
        )
    return answered(_face(simulator, file))


def _place(simulator: Simulator, caller: Caller, body: dict[str, Any], is_image: bool) -> Presigned:
    """Where the bytes are: documents by `object_name`, images by `file_id`."""
    key = "file_id" if is_image else "object_name"
    wanted = _text(body, key)
    places = simulator.files.places.values()
    place = next((one for one in places if wanted == (one.file_id if is_image else one.object_name)), None)
    if place is None or place.owner != caller.account.sub or place.is_image is not is_image:
        raise RestRefusal("file.not_found", f"unknown {key}", 404, key)
    return place


async def _parse_process(simulator: Simulator, request: Request, caller: Caller) -> Response:
    body = await read_object(request)
    ids, timeout_ms = body.get("ids"), body.get("timeout", 120000)
    if not isinstance(ids, list) or not ids:
        raise invalid("ids", "must not be empty")
    if not isinstance(timeout_ms, int | float) or isinstance(timeout_ms, bool):
        raise invalid("timeout", "must be milliseconds")
    files = [simulator.files.find(caller.account.sub, str(one)) for one in ids]
    known = [file for file in files if file is not None]
    if len(known) < len(ids):
        raise RestRefusal("file.not_found", "unknown file", 404, "ids")
    return StreamingResponse(_progress(simulator, known, timeout_ms / 1000), media_type=EVENT_STREAM)


async def _progress(simulator: Simulator, files: list[StoredFile], timeout_s: float) -> AsyncIterator[bytes]:
    """Ends when all are parsed or failed, or with the time the client gave."""
    until_s = time.monotonic() + timeout_s
    waiting = list(files)
    while True:
        for file in list(waiting):
            if simulator.files.status(file) != "processing":
                waiting.remove(file)
                yield sse({"event": "resp", "id": file.id, "status": _STATUS[simulator.files.status(file)]})
        if not waiting or time.monotonic() >= until_s:
            break
        yield b": waiting\n\n"
        await asyncio.sleep(POLL_S)
    yield sse({"event": "all_done"})


def _face(simulator: Simulator, file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "name": file.name,
        "size": file.size,
        "status": _STATUS[simulator.files.status(file)],
        "type": "image" if file.is_image else "file",
        "content_type": file.content_type,
        "presigned_url": f"https://files.invalid/{file.id}",
    }


def _kind(body: dict[str, Any], name: str) -> str:
    if body.get(name) not in ("file", "image"):
        raise invalid(name, "must be file or image")
    return str(body[name])


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(name, "must not be empty")
    return value
