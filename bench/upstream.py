"""Both services in one process: Kimi's Connect calls, and an OpenAI-compatible chat completion.

One piece of code reads requests, keeps the schedule and writes, so neither side has the faster service; an HTTP chunk
is one token on both. The Connect frames around the tokens are the simulator's own, written once and sent with a fresh
chat id for each answer. (The simulator's server itself does much more for each call than the OpenAI one here, and
would be measured instead of the gateway.)
"""

from __future__ import annotations

import asyncio
import struct
import sys
import threading
import time
import uuid
from functools import cache

import orjson

from kimi_provider.simulator import Simulator
from kimi_provider.simulator.call import read_call
from kimi_provider.simulator.streams import RunningStream
from kimi_provider.simulator.turn import Turn

from .plan import Plan, words

#: As much as is written at once when there is no rate, like a kernel's send buffer under a fast sender.
WRITE_BYTES = 16 * 1024

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: "
_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n\r\n"


class Upstream:
    """Answers calls and counts them."""

    def __init__(self) -> None:
        simulator = Simulator()
        self.token = simulator.accounts.login(user="bench", kind="cookie", access_ttl_s=86400, refresh_ttl_s=86400)[
            "kimiAuth"
        ]
        self.chats = 0
        self.deleted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                await self._answer(head.split(b" ", 2)[1], body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path.endswith(b"/Chat"):
            self.chats += 1
            plan = Plan.found_in(body)
            opening, tokens, closing = _connect(plan.tokens)
            chat_id, message_id = str(uuid.uuid4()).encode(), str(uuid.uuid4()).encode()
            opening = opening.replace(_CHAT_ID, chat_id).replace(_MESSAGE_ID, message_id)
            closing = closing.replace(_CHAT_ID, chat_id).replace(_MESSAGE_ID, message_id)
            await _play(writer, b"application/connect+json", opening, tokens, closing, plan.rate)
        elif path.endswith(b"/chat/completions"):
            plan, asked = Plan.found_in(body), orjson.loads(body)
            if asked.get("stream"):
                usage = bool((asked.get("stream_options") or {}).get("include_usage"))
                tokens, closing = _openai(plan.tokens, usage)
                await _play(writer, b"text/event-stream", b"", tokens, closing, plan.rate)
            else:
                _whole(writer, _completion(plan.tokens))
        elif path.endswith(b"/DeleteChat"):
            self.deleted += 1
            _whole(writer, {})
        elif path == b"/bench/state":
            _whole(writer, {"chats": self.chats, "deleted": self.deleted})
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _whole(writer: asyncio.StreamWriter, value: object) -> None:
    body = orjson.dumps(value)
    writer.write(_OK + b"application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def _play(
    writer: asyncio.StreamWriter, kind: bytes, opening: bytes, tokens: tuple[bytes, ...], closing: bytes, rate: float
) -> None:
    head = _OK + kind + _CHUNKED + opening
    if rate:
        began = time.monotonic()
        for number, token in enumerate(tokens):
            if (pause := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            writer.write(head + token)
            head = b""
        writer.write(closing)
        return
    waiting, size = [head], len(head)
    for token in (*tokens, closing):
        waiting.append(token)
        size += len(token)
        if size >= WRITE_BYTES:
            writer.write(b"".join(waiting))
            waiting, size = [], 0
            await writer.drain()
    writer.write(b"".join(waiting))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# --- Connect ---------------------------------------------------------------------------------------------

_CHAT_ID = b"00000000-0000-4000-8000-000000000000"
_MESSAGE_ID = b"00000000-0000-4000-8000-000000000001"


@cache
def _connect(count: int) -> tuple[bytes, tuple[bytes, ...], bytes]:
    """HTTP chunks: the opening, `count` tokens, the closing."""
    simulator = Simulator()
    simulator.accounts.login(user="bench", access_ttl_s=60, refresh_ttl_s=60)
    account = next(iter(simulator.accounts._by_sub.values()))
    prompt = {"role": "user", "blocks": [{"text": {"content": "Bench"}}], "scenario": "SCENARIO_K2D5"}
    call = read_call({"scenario": "SCENARIO_K2D5", "message": prompt, "options": {}}, simulator.settings)
    turn = Turn(simulator, account, "bench", call, None, RunningStream(owner=account.sub))
    opening = b"".join(map(_chunk, turn.opening()))
    spoken = words(count)
    first = turn.text(spoken[0])
    start = turn.offsets(count - 1)
    tokens = [first, *(_append(start + n, word) for n, word in enumerate(spoken[1:]))]
    closing = b"".join(map(_chunk, turn.closing())) + b"0\r\n\r\n"
    chat, message = turn.chat.id.encode(), turn.answer.id.encode()
    return (
        opening.replace(chat, _CHAT_ID).replace(message, _MESSAGE_ID),
        tuple(map(_chunk, tokens)),
        closing.replace(chat, _CHAT_ID).replace(message, _MESSAGE_ID),
    )


def _append(offset: int, word: str) -> bytes:
    block = {"id": "1", "text": {"content": word}}
    payload = orjson.dumps({"op": "append", "mask": "block.text.content", "eventOffset": offset, "block": block})
    return struct.pack(">BI", 0, len(payload)) + payload


# --- OpenAI ----------------------------------------------------------------------------------------------


@cache
def _openai(count: int, usage: bool) -> tuple[tuple[bytes, ...], bytes]:
    """HTTP chunks: `count` tokens, the closing."""
    spoken = words(count)
    tokens = [_sse([_choice({"role": "assistant", "content": spoken[0]})])]
    tokens += [_sse([_choice({"content": word})]) for word in spoken[1:]]
    end = _sse([_choice({}, "stop")])
    if usage:
        end += _sse([], {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": count + 10})
    return tuple(tokens), end + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _sse(choices: list[dict[str, object]], usage: dict[str, int] | None = None) -> bytes:
    event = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1767225600, "model": "bench"}
    return _chunk(b"data: %s\n\n" % orjson.dumps({**event, "choices": choices, "usage": usage}))


@cache
def _completion(count: int) -> dict[str, object]:
    message = {"role": "assistant", "content": "".join(words(count))}
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": count + 10},
    }


async def _main() -> None:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"upstream ready on http://127.0.0.1:{port} token {upstream.token}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(_main())
