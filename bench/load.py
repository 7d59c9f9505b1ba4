"""The client: raw sockets, no parsing while an answer comes in, the whole text compared at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import orjson

from .plan import Plan, words
from .processes import KEY

_END = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one answer, in seconds from the first byte sent."""

    first_s: float
    whole_s: float


class Client:
    """One connection, kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    def close(self) -> None:
        self._writer.close()

    async def stream(self, model: str, plan: Plan) -> Timing:
        """A streamed answer."""
        began = time.perf_counter()
        self._ask(model, plan, stream=True)
        token, first_s = words(1)[0].encode(), 0.0
        got = bytearray()
        while not got.endswith(_END):
            piece = await self._reader.read(1 << 18)
            if not piece:
                raise RuntimeError(f"{model}: the connection ended after {bytes(got[-300:])!r}")
            got += piece
            if not first_s and token in got:
                first_s = time.perf_counter() - began
            if b"\r\ncontent-length:" in got[:1000]:
                raise RuntimeError(f"{model}: no stream but {bytes(got[:1000])!r}")
        whole_s = time.perf_counter() - began
        self._compare(model, _joined(bytes(got)), plan)
        return Timing(first_s, whole_s)

    async def whole(self, model: str, plan: Plan) -> None:
        """An answer that is not streamed."""
        self._ask(model, plan, stream=False)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = await self._reader.readexactly(length)
        if b" 200 " not in head[:20]:
            raise RuntimeError(f"{model}: {head[:20]!r} {body[:300]!r}")
        self._compare(model, orjson.loads(body)["choices"][0]["message"]["content"], plan)

    async def state(self) -> dict[str, int]:
        """The upstream's counters."""
        self._writer.write(b"GET /bench/state HTTP/1.1\r\nhost: bench\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        counters: dict[str, int] = orjson.loads(await self._reader.readexactly(length))
        return counters

    def _ask(self, model: str, plan: Plan, *, stream: bool) -> None:
        body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": plan.prompt}], "stream": stream})
        self._writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %s\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (KEY.encode(), len(body), body)
        )

    @staticmethod
    def _compare(model: str, text: str, plan: Plan) -> None:
        if text != plan.text:
            raise RuntimeError(
                f"{model}: {len(text)} characters came, not the {len(plan.text)} expected: {text[:200]!r}"
            )


def _joined(answer: bytes) -> str:
    """The text of a whole streamed answer."""
    at = answer.index(b"\r\n\r\n") + 4
    body = []
    while True:
        line_end = answer.index(b"\r\n", at)
        size = int(answer[at:line_end], 16)
        if not size:
            break
        body.append(answer[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size
    text = []
    for event in b"".join(body).split(b"\n\n"):
        data = event.removeprefix(b"data: ")
        if data and data != b"[DONE]":
            for choice in orjson.loads(data)["choices"]:
                text.append(choice["delta"].get("content") or "")
    return "".join(text)
