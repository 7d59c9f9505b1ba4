"""Files the Connect way: one multipart upload, polled until parsed, then named in a block (protocol C.9).

Errors are Connect JSON. A refused upload is read to its end first, so that the client sees the answer and not a broken
pipe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..accounts import Account
from ..call import field_of
from ..connect import authenticate, media_type
from ..refusals import UNARY_TYPE, Refusal, violation
from ..state import Simulator
from ..unary import read_object
from .draining import drain
from .multipart import FilePart, MultipartError, boundary_of
from .store import FileTooLarge, Measured, StoredFile

_STATUS = {"processing": "PROCESS_STATUS_PROCESSING", "parsed": "PROCESS_STATUS_SUCCESS"}
_REFUSALS = {
    "rate_limited": ("resource_exhausted", "too many uploads"),
    "unavailable": ("unavailable", "upstream unavailable"),
}
_Answer = Callable[[Simulator, Account, dict[str, Any]], dict[str, Any]]


def routes(simulator: Simulator) -> list[Route]:
    """Upload, poll, read."""

    async def upload(request: Request) -> Response:
        try:
            return await _upload(simulator, request)
        except Refusal as refusal:
            await drain(request)
            return refusal.response()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    service = "kimi.gateway.file.v1.FileService"
    return [
        Route("/apiv2-files/file/upload", upload, methods=["POST"]),
        _unary(simulator, f"/apiv2-files/{service}/GetFileParseProgress", _progress),
        # The prefix of the reading call is not recorded, so both answer.
        _unary(simulator, f"/apiv2-files/{service}/GetFile", _get),
        _unary(simulator, f"/apiv2/{service}/GetFile", _get),
    ]


async def _upload(simulator: Simulator, request: Request) -> Response:
    caller = authenticate(simulator, request)
    settings = simulator.settings
    if settings.upload_refusal:
        raise Refusal(*_REFUSALS[settings.upload_refusal])
    measured = Measured(settings.max_file_bytes)
    try:
        part = FilePart(boundary_of(request.headers.get("content-type", "")))
        async for chunk in request.stream():
            measured.feed(part.feed(chunk))
        part.finish()
    except MultipartError as error:
        raise Refusal("invalid_argument", str(error)) from error
    if not measured.size:
        raise Refusal("invalid_argument", "the file is empty")
    try:
        file = simulator.files.add(
            caller.account.sub,
            name=part.name,
            content_type=part.content_type,
            measured=measured,
            settings=settings,
        )
    except FileTooLarge as error:
        refused = {"code": "invalid_argument", "message": str(error)}
        return Response(orjson.dumps(refused), 413, media_type=UNARY_TYPE)
    return Response(orjson.dumps({"file": _face(simulator, file)}), media_type=UNARY_TYPE)


def _unary(simulator: Simulator, path: str, answer: _Answer) -> Route:
    async def endpoint(request: Request) -> Response:
        if media_type(request) != UNARY_TYPE:
            return Response(status_code=415, headers={"accept-post": UNARY_TYPE})
        try:
            account = authenticate(simulator, request).account
            return Response(orjson.dumps(answer(simulator, account, await read_object(request))), media_type=UNARY_TYPE)
        except Refusal as refusal:
            return refusal.response()

    return Route(path, endpoint, methods=["POST"])


def _progress(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    file_ids = field_of(body, "file_ids")
    if not isinstance(file_ids, list) or not file_ids:
        raise violation("file_ids", "must not be empty")
    files = [_known(simulator, account, one) for one in file_ids]
    return {"progresses": [{"fileId": file.id, "status": _status(simulator, file)} for file in files]}


def _get(simulator: Simulator, account: Account, body: dict[str, Any]) -> dict[str, Any]:
    file_id = field_of(body, "file_id") or body.get("id")
    if not isinstance(file_id, str) or not file_id:
        raise violation("file_id", "must not be empty")
    return {"file": _face(simulator, _known(simulator, account, file_id))}


def _known(simulator: Simulator, account: Account, file_id: object) -> StoredFile:
    file = simulator.files.find(account.sub, str(file_id))
    if file is None:
        raise Refusal("not_found", "file not found")
    return file


def _status(simulator: Simulator, file: StoredFile) -> str:
    return _STATUS.get(simulator.files.status(file), simulator.settings.parse_fail_status)


def _face(simulator: Simulator, file: StoredFile) -> dict[str, Any]:
    link = f"https://files.invalid/{file.id}"
    return {
        "id": file.id,
        "meta": {
            "name": file.name,
            "contentType": file.content_type,
            "sizeBytes": str(file.size),  # 64-bit numbers are strings in proto-JSON
            "checksum": file.sha256,
            "ext": PurePosixPath(file.name).suffix.lstrip("."),
            "createTime": file.create_time,
            "type": "FILE_TYPE_IMAGE" if file.is_image else "FILE_TYPE_DOCUMENT",
        },
        "blob": {"signUrl": link, "previewUrl": f"{link}/preview"},
        "parseResult": {
            "thumbnail": {
                "thumbnailUrl": f"{link}/thumb",
                "previewUrl": f"{link}/preview",
                "mobileThumbnailUrl": f"{link}/mobile",
            }
        },
    }
