"""`python -m bench.mitm_upstream`: what stands behind the redirector's proxies. Standard library only.

Answers any request at once, or with `?chunks=N&gap_ms=M` as server-sent events, each holding the clock's value when it
was written. The clock is the machine's monotonic one, which the client reads, too.
"""

from __future__ import annotations

import asyncio
import re
import time

_ANSWER = b'{"id":"x","object":"chat.completion","choices":[{"message":{"content":"' + b"word " * 60 + b'"}}]}'
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            if (plan := re.search(rb'"plan":\[(\d+),(\d+)\]', body[:200])) is None:
                writer.write(_WHOLE)
            else:
                writer.write(_HEAD)
                for _ in range(int(plan[1])):
                    event = b"data: %d\n\n" % time.monotonic_ns()
                    writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                    await writer.drain()
                    await asyncio.sleep(int(plan[2]) / 1000)
                writer.write(b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    print(f"mitm upstream ready on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
