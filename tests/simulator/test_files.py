"""Files on both protocols: strictness, parsing, use in a chat, and that no bytes are kept."""

from __future__ import annotations

import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kimi_provider.simulator.files.multipart import FilePart, boundary_of

from .sse import RestCaller
from .test_process import Child
from .wire import UPLOAD, Answer, Caller, body, pack

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 40
SERVICE = "/apiv2-files/kimi.gateway.file.v1.FileService/"


def progress(caller: Caller, *ids: str) -> list[str]:
    answer = caller.unary(f"{SERVICE}GetFileParseProgress", {"file_ids": list(ids)}).json()["progresses"]
    assert [one["fileId"] for one in answer] == list(ids)
    return [one["status"].removeprefix("PROCESS_STATUS_") for one in answer]


def with_files(prompt: str, *ids: str) -> dict[str, Any]:
    files = [{"file": {"id": one}} for one in ids]
    return {**body()["message"], "blocks": [{"text": {"content": prompt}}, *files]}


def test_upload_as_documented(caller: Caller) -> None:
    file = caller.upload("cat.png", PNG, "image/png").json()["file"]
    meta = file["meta"]
    digest = hashlib.sha256(PNG).hexdigest()
    assert (meta["name"], meta["contentType"], meta["ext"]) == ("cat.png", "image/png", "png")
    assert (meta["sizeBytes"], meta["checksum"], meta["type"]) == (str(len(PNG)), digest, "FILE_TYPE_IMAGE")
    assert set(file) == {"id", "meta", "blob", "parseResult"}
    for path in (SERVICE, SERVICE.replace("apiv2-files", "apiv2")):
        assert caller.unary(f"{path}GetFile", {"file_id": file["id"]}).json() == {"file": file}
    assert caller.server.snapshot()["files"] == [
        {
            "id": file["id"],
            "name": "cat.png",
            "type": "image",
            "content_type": "image/png",
            "size": len(PNG),
            "sha256": digest,
            "user": caller.tokens["user_id"],
            "status": "parsed",
        }
    ]
    assert caller.upload("a.txt", b"x", "text/plain").json()["file"]["meta"]["type"] == "FILE_TYPE_DOCUMENT"
    caller.server.reset()
    assert caller.server.snapshot()["files"] == []


@pytest.mark.parametrize(
    ("name", "content", "media_type", "status"),
    [
        ("a.txt", b"words", "text/plain", "SUCCESS"),
        ("a.pdf", b"%PDF-1.7\n", "application/pdf", "SUCCESS"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "image/jpeg", "SUCCESS"),
        ("a.webp", b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp", "SUCCESS"),
        ("cat.png", b"I am text", "image/png", "FAIL"),
        ("cat.png", b"\xff\xd8\xff\xe0", "image/png", "FAIL"),
        ("a.pdf", b"I am text", "application/pdf", "FAIL"),
        ("picture", b"I am text", "image/png", "FAIL"),
        ("Unparseable.txt", b"words", "text/plain", "FAIL"),
    ],
)
def test_what_parses(caller: Caller, name: str, content: bytes, media_type: str, status: str) -> None:
    file_id = caller.upload(name, content, media_type).json()["file"]["id"]
    assert progress(caller, file_id) == [status]


def test_parsing_takes_its_time_and_can_be_forced(caller: Caller) -> None:
    def uploaded() -> str:
        return str(caller.upload("a.txt", b"words", "text/plain").json()["file"]["id"])

    caller.server.change(parse_delay_s=0.3)
    slow = uploaded()
    assert progress(caller, slow) == ["PROCESSING"]
    time.sleep(0.35)
    assert progress(caller, slow) == ["SUCCESS"]
    caller.server.change(parse_delay_s=0, parse_result="fail", parse_fail_status="PROCESS_STATUS_FAILED_OCR")
    failed = uploaded()
    assert progress(caller, slow, failed) == ["SUCCESS", "FAILED_OCR"]
    caller.server.change(parse_result="never")
    assert progress(caller, uploaded()) == ["PROCESSING"]


def multipart(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


def part(head: bytes = b'name="file"; filename="a.txt"', kind: bytes = b"\r\nContent-Type: text/plain") -> bytes:
    return b"Content-Disposition: form-data; " + head + kind + b"\r\n\r\nwords"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (multipart(part(), part()), "expected exactly one part"),
        (multipart(part(), part(b'name="purpose"')), "expected exactly one part"),
        (multipart(part(b'name="upload"; filename="a.txt"')), "the one part must be named file"),
        (multipart(part(b'name="file"')), "the file has no name"),
        (multipart(part(b'name="file"; filename=""')), "the file has no name"),
        (multipart(part(kind=b"")), "the file has no content type"),
        (multipart(part(), end=b""), "incomplete multipart body"),
        (multipart(part())[:-3], "incomplete multipart body"),
        (multipart(part().removesuffix(b"words")), "the file is empty"),
        (b"", "incomplete multipart body"),
        (b"words", "the body doesn't begin with the boundary"),
        (b"--B\r\n" + b"x" * 9000, "part headers are too long"),
    ],
)
def test_not_exactly_one_part(caller: Caller, content: bytes, message: str) -> None:
    headers = {"authorization": f"Bearer {caller.token}", "content-type": "multipart/form-data; boundary=B"}
    response = caller.http.post(UPLOAD, content=content, headers=headers)
    assert (response.status_code, response.json()) == (400, {"code": "invalid_argument", "message": message})
    assert caller.server.snapshot()["files"] == []


TRICKY = b"\r\n--\r\n--B-\r\n-\r\n--\r\r\n--C--\r\n" * 3


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1000])
def test_a_part_in_any_pieces(size: int) -> None:
    whole = multipart(part().removesuffix(b"words") + TRICKY.replace(b"--B-", b"--b-")) + b"epilogue"
    reader = FilePart(boundary_of('multipart/form-data; charset=utf-8; boundary="B"'))
    content = b"".join(reader.feed(whole[at : at + size]) for at in range(0, len(whole), size))
    reader.finish()
    assert content == TRICKY.replace(b"--B-", b"--b-")
    assert (reader.name, reader.content_type) == ("a.txt", "text/plain")


def test_who_leaves_during_an_upload_leaves_nothing_behind() -> None:
    with Child() as child:  # which must stay silent
        token = child.post("/_sim/login", json={"user": "ada"}).json()["access_token"]
        place = child.post(
            "/api/pre-sign-url",
            json={"action": "file", "name": "a.txt"},
            headers={"authorization": f"Bearer {token}"},
        ).json()
        address = httpx.URL(child.line.split()[-1])
        for line in (f"POST {UPLOAD}", f"PUT {place['url'].partition(str(address))[2]}"):
            head = (
                f"{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 5000\r\n"
                "content-type: multipart/form-data; boundary=B\r\n\r\n"
            )
            with socket.create_connection((address.host, address.port or 0)) as connection:
                connection.sendall(head.encode() + multipart(part(), end=b""))
        time.sleep(0.2)
        state = httpx.get(child.line.split()[-1] + "/_sim/state", trust_env=False).json()
        assert (state["files"], len(state["requests"])) == ([], 3)


@pytest.mark.parametrize("given", ["application/json", "multipart/form-data", "application/octet-stream", ""])
def test_not_multipart(caller: Caller, given: str) -> None:
    headers = {"authorization": f"Bearer {caller.token}", "content-type": given}
    assert caller.http.post(UPLOAD, content=multipart(part()), headers=headers).status_code == 400


def test_upload_refusals(caller: Caller) -> None:
    caller.server.change(max_file_bytes=1000)
    assert caller.upload("a.txt", b"x" * 1000, "text/plain").status_code == 200
    large = caller.upload("a.txt", b"x" * 1001, "text/plain")
    assert (large.status_code, large.json()["code"]) == (413, "invalid_argument")
    caller.server.change(upload_refusal="rate_limited")
    limited = caller.upload("a.txt", b"x" * 300_000, "text/plain")  # its body is read all the same
    assert (limited.status_code, limited.json()["code"]) == (429, "resource_exhausted")
    caller.server.change(upload_refusal="unavailable")
    assert caller.upload("a.txt", b"x", "text/plain").status_code == 503
    caller.token = caller.tokens["refresh_token"]
    assert caller.upload("a.txt", b"x", "text/plain").json() == {"code": "unauthenticated", "message": "invalid token"}


def test_files_of_others_do_not_exist(caller: Caller, other: Caller) -> None:
    file_id = caller.upload("a.txt", b"x", "text/plain").json()["file"]["id"]
    for method, value in (("GetFile", {"file_id": file_id}), ("GetFileParseProgress", {"file_ids": [file_id]})):
        assert other.unary(SERVICE + method, value).json()["code"] == "not_found"
        assert caller.unary(SERVICE + method, {}).status_code == 400
        assert caller.unary(SERVICE + method, value, **{"content-type": "text/plain"}).status_code == 415


def test_only_known_parsed_files_in_a_chat(caller: Caller, other: Caller) -> None:
    foreign = other.upload("a.txt", b"x", "text/plain").json()["file"]["id"]
    broken = caller.upload("cat.png", b"text", "image/png").json()["file"]["id"]
    caller.server.change(parse_delay_s=60)
    slow = caller.upload("a.txt", b"x", "text/plain").json()["file"]["id"]
    for file_id in ("f-1", foreign, broken, slow):
        response = caller.post(pack(body(message=with_files("Read", file_id))))
        assert (response.status_code, response.json()["code"]) == (400, "invalid_argument")
        (violation,) = response.json()["details"][0]["debug"]["violations"]
        path = ".".join(element["fieldName"] for element in violation["field"]["elements"])
        assert path == "message.blocks.file.id"
    assert caller.server.snapshot()["chats"] == []


def test_the_demo_speaks_of_files_and_remembers_them(caller: Caller, rest: RestCaller) -> None:
    ids = [
        caller.upload(name, content, kind).json()["file"]["id"]
        for name, content, kind in (("cat.png", PNG, "image/png"), ("a.pdf", b"%PDF-", "application/pdf"))
    ]
    first = caller.chat(message=with_files("Look", *ids))
    assert "I see cat.png (image), a.pdf (document)." in first.text
    added = [one["chat"]["files"] for one in first.events if one.get("mask") == "chat.files"]
    assert added == [[{"id": one}] for one in ids]
    again: Answer = caller.go_on(first, "And now?")
    assert "Earlier in this chat I saw cat.png (image), a.pdf (document)." in again.text
    assert "I see" not in again.text
    assert "cat.png" not in caller.chat("And now?").text
    chat_id = rest.new_chat()
    one, two = (rest.upload(name, b"words", "text/plain").json()["id"] for name in ("b.txt", "c.txt"))
    both = rest.complete(chat_id, "Look", refs=[one], refs_file=[{"id": one}, {"id": two, "detail": {}}])
    assert "I see b.txt (document), c.txt (document)." in both.text
    assert both.all("req")[0]["refs"] == [one, two]
    assert "Earlier in this chat I saw b.txt (document), c.txt (document)." in rest.complete(chat_id, "And?").text


def test_presign_put_register_poll(rest: RestCaller) -> None:
    rest.server.change(parse_delay_s=0.15)
    place = rest.presign("a.pdf")
    assert set(place) == {"url", "object_name"}
    assert place["url"].startswith(rest.server.url)
    assert rest.register(place, "a.pdf").json()["error_type"] == "file.not_uploaded"
    assert rest.put(place, b"%PDF-1.7", "application/pdf").status_code == 200
    first = rest.register(place, "a.pdf").json()
    assert (first["name"], first["size"], first["type"]) == ("a.pdf", 8, "file")
    assert (first["status"], first["content_type"]) == ("initialized", "application/pdf")
    assert {"id", "presigned_url"} <= set(first)
    waited = rest.post("/api/file/parse_process", {"ids": [first["id"]], "timeout": 120000})
    assert waited.headers["content-type"].startswith("text/event-stream")
    assert b'"status":"parsed"' in waited.content
    second = rest.register(place, "a.pdf").json()
    assert second == first | {"status": "parsed"}
    (file,) = rest.server.snapshot()["files"]
    assert (file["id"], file["sha256"]) == (first["id"], hashlib.sha256(b"%PDF-1.7").hexdigest())


def test_images_are_registered_by_file_id(rest: RestCaller) -> None:
    place = rest.presign("cat.png", "image")
    assert rest.put(place, PNG, "image/png").status_code == 200
    file = rest.register(place, "cat.png", "image").json()
    assert (file["id"], file["type"], file["status"]) == (place["file_id"], "image", "parsed")
    assert rest.upload("dog.png", b"text", "image/png", "image").json()["status"] == "failed"


def test_presign_refusals(rest: RestCaller, other_rest: RestCaller) -> None:
    place = rest.presign("a.txt")
    unsigned = {**place, "url": place["url"].partition("?")[0]}
    assert rest.put(unsigned, b"x", "text/plain").status_code == 403
    assert rest.put({"url": place["url"].replace("uploads/", "uploads/x")}, b"x", "text/plain").status_code == 403
    assert rest.put(place, b"", "text/plain").json()["error_type"] == "file.empty"
    assert rest.http.put(place["url"], content=b"x").json()["error_type"] == "file.content_type_missing"
    rest.server.change(max_file_bytes=10)
    assert rest.put(place, b"x" * 11, "text/plain").status_code == 413
    assert rest.put(place, b"x" * 10, "text/plain").status_code == 200
    assert other_rest.register(place, "a.txt").json()["error_type"] == "file.not_found"
    assert rest.register(place, "b.txt").json()["detail"] == "name"
    strange = {"type": "file", "name": "a.txt", "object_name": place["object_name"], "chat_id": "c" * 20}
    assert rest.post("/api/file", strange).json()["error_type"] == "chat.not_found"
    assert rest.post("/api/file/parse_process", {"ids": ["nope"]}).status_code == 404
    rest.server.change(upload_refusal="rate_limited")
    assert rest.post("/api/pre-sign-url", {"action": "file", "name": "a"}).status_code == 429


def test_waiting_for_a_parse_ends_with_the_clients_time(rest: RestCaller) -> None:
    rest.server.change(parse_result="never")
    file_id = rest.upload("a.txt", b"x", "text/plain").json()["id"]
    waited = rest.post("/api/file/parse_process", {"ids": [file_id], "timeout": 100})
    assert b"parsed" not in waited.content


def big(size: int, head: bytes = b"", tail: bytes = b"") -> Iterator[bytes]:
    yield head
    for _ in range(size // 65536):
        yield b"0123456789abcdef" * 4096
    yield tail


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells the peak of another process's memory"
)
def test_fifty_megabytes_are_never_kept() -> None:
    size = 50 * 1024 * 1024

    def peak_kib(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

    with Child() as child, httpx.Client(base_url=child.line.split()[-1], trust_env=False, timeout=30) as http:
        token = http.post("/_sim/login", json={"user": "ada"}).json()["access_token"]
        bearer = {"authorization": f"Bearer {token}"}
        framed = b"--B\r\nContent-Disposition: form-data; " + b'name="file"; filename="a.txt"\r\n'
        kind = {"content-type": "multipart/form-data; boundary=B"}

        def upload(bytes_: int) -> httpx.Response:
            content = big(bytes_, framed + b"Content-Type: text/plain\r\n\r\n", b"\r\n--B--\r\n")
            return http.post(UPLOAD, content=content, headers=bearer | kind)

        place = http.post("/api/pre-sign-url", json={"action": "file", "name": "b.txt"}, headers=bearer).json()

        def put(bytes_: int) -> httpx.Response:
            return http.put(place["url"], content=big(bytes_), headers={"content-type": "text/plain"})

        for send in (upload, put):
            assert send(1024 * 1024).status_code == 200
        before_kib = peak_kib(child.process.pid)
        meta = upload(size).json()["file"]["meta"]
        assert put(size).status_code == 200
        grown_kib = peak_kib(child.process.pid) - before_kib
    digest = hashlib.sha256(b"0123456789abcdef" * (size // 16)).hexdigest()
    assert (meta["sizeBytes"], meta["checksum"]) == (str(size), digest)
    assert grown_kib < 4096
