"""The redirector beside the least that would do its work in mitmproxy.

`theirs` is mitmdump with a script of three statements: another host and port, and answers not held back. It renames no
model, strips no key, looks at no gateway, and its options are as quick as ours. Both get TLS from the client and talk
plain HTTP to the same upstream, in turns.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from .processes import KEY, ROOT, Child, free_port

if TYPE_CHECKING:
    from .figures import Bed, Pair

_SCRIPT = """
def requestheaders(flow):
    flow.request.scheme, flow.request.host, flow.request.port = "http", "127.0.0.1", {port}

def responseheaders(flow):
    flow.response.stream = True
"""
_HOST = "api.openai.com"
_BODY = b'{"model":"gpt-5","messages":[{"role":"user","content":"' + b"word " * 200 + b'"}]}'
_LARGE_BODY_BYTES = 30_000_000


class Upstream(Child):
    def __init__(self, folder: Path) -> None:
        super().__init__([str(ROOT / ".venv-mitm/bin/python"), "-m", "bench.mitm_upstream"], folder, "mitm-upstream")
        self.port = int(self.wait_for(r"mitm upstream ready on (\d+)", 30)[1])


class Mitmdump(Child):
    """With the addon or with the script above; `kind` names its files."""

    def __init__(self, folder: Path, upstream: Upstream, kind: str) -> None:
        self.port = free_port()
        script = ROOT / "mitm_addon/script.py"
        if kind == "theirs":
            (script := folder / "least.py").write_text(_SCRIPT.format(port=upstream.port), "utf-8")
        confdir = folder / f"mitm-{kind}"
        command = [str(ROOT / ".venv-mitm/bin/mitmdump"), "-q", "-s", str(script), "-p", str(self.port)]
        command += ["--listen-host", "127.0.0.1", "--set", f"confdir={confdir}", "--set", "connection_strategy=lazy"]
        gateway = f"http://127.0.0.1:{upstream.port}"
        super().__init__(command, folder, f"mitmdump-{kind}", KIMI_GATEWAY_KEY=KEY, KIMI_GATEWAY_URL=gateway)
        self.ca = confdir / "mitmproxy-ca-cert.pem"

    async def until_ready(self) -> Self:
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                (await Line.open(self)).close()
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
            else:
                return self
        raise RuntimeError(f"mitmdump did not start:\n{self.log.read_text('utf-8', 'replace')[-3000:]}")

    def memory_mb(self, field: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:")) / 1024


class Line:
    """A client's connection through a proxy, TLS done."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, proxy: Mitmdump) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"CONNECT %s:443 HTTP/1.1\r\n\r\n" % _HOST.encode())
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(ssl.create_default_context(cafile=str(proxy.ca)), server_hostname=_HOST)
        return cls(reader, writer)

    def close(self) -> None:
        self._writer.close()

    async def _ask(self, body: bytes) -> bytes:
        self._writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer sk-none\r\ncontent-length: %d\r\n\r\n" % (_HOST.encode(), len(body))
        )
        self._writer.write(body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise RuntimeError(head.decode("latin-1"))
        return head

    async def whole(self, body: bytes) -> None:
        head = await self._ask(body)
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await self._reader.readexactly(length)

    async def stream(self, chunks: int, gap_ms: int) -> tuple[float, list[float]]:
        """Milliseconds to the first event, and how long each was on its way."""
        began = time.monotonic_ns()
        await self._ask(b'{"plan":[%d,%d],' % (chunks, gap_ms) + _BODY[1:])
        first = 0
        delays = []
        while size := int((await self._reader.readline()), 16):
            event = await self._reader.readexactly(size + 2)
            now = time.monotonic_ns()
            first = first or now
            # Events that came together were on their way since the first of them was written.
            delays += [now - int(part) for part in event.replace(b"data: ", b"").split()]
        await self._reader.readline()
        return (first - began) / 1e6, [delay / 1e6 for delay in delays]


class Proxies:
    """The upstream, and both proxies in front of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.upstream = Upstream(folder)
        self.ours, self.theirs = (Mitmdump(folder, self.upstream, kind) for kind in ("ours", "theirs"))

    async def warmed_up(self) -> Self:
        for proxy in (self.ours, self.theirs):
            await proxy.until_ready()
            await _requests(proxy, 8, 20)
        return self

    def stop(self) -> None:
        for child in (self.ours, self.theirs, self.upstream):
            child.stop()


async def _in_turns(bed: Bed, one: Callable[[Mitmdump], Awaitable[list[float]]], turns: int) -> Pair:
    """Medians; the sides change often, so that what else the machine does falls on both."""
    proxies = await bed.proxies()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(turns):
        ours += await one(proxies.ours)
        theirs += await one(proxies.theirs)
    return statistics.median(ours), statistics.median(theirs)


async def _streamed(proxy: Mitmdump, chunks: int, gap_ms: int) -> tuple[float, list[float]]:
    line = await Line.open(proxy)
    await line.whole(_BODY)
    seen = await line.stream(chunks, gap_ms)
    line.close()
    return seen


async def first_token(bed: Bed) -> Pair:
    """Milliseconds from a request to its first event, one at a time on connections that are in use."""

    async def one(proxy: Mitmdump) -> list[float]:
        return [(await _streamed(proxy, 1, 1))[0]]

    return await _in_turns(bed, one, 120)


async def chunk_delay(bed: Bed) -> Pair:
    """Milliseconds from the upstream's write to the client's read, events 5 ms apart."""

    async def one(proxy: Mitmdump) -> list[float]:
        return (await _streamed(proxy, 50, 5))[1]

    return await _in_turns(bed, one, 8)


async def _requests(proxy: Mitmdump, clients: int, each: int) -> float:
    lines = [await Line.open(proxy) for _ in range(clients)]

    async def client(line: Line) -> None:
        for _ in range(each):
            await line.whole(_BODY)

    began = time.perf_counter()
    await asyncio.gather(*map(client, lines))
    took_s = time.perf_counter() - began
    for line in lines:
        line.close()
    return clients * each / took_s


async def requests(bed: Bed) -> Pair:
    """Plain answers a second, 16 clients that keep their connections."""

    async def one(proxy: Mitmdump) -> list[float]:
        return [await _requests(proxy, 16, 15)]

    return await _in_turns(bed, one, 6)


async def memory(bed: Bed) -> Pair:
    """Megabytes by which a fresh proxy grows at most for a request of 30 MB, and those of the request."""
    proxies = await bed.proxies()
    body = _BODY[:-4] + b"x" * (_LARGE_BODY_BYTES - len(_BODY)) + _BODY[-4:]
    with Mitmdump(proxies.folder, proxies.upstream, "fresh") as proxy:
        await proxy.until_ready()
        await _requests(proxy, 1, 5)
        before = proxy.memory_mb("VmRSS")
        line = await Line.open(proxy)
        await line.whole(body)
        line.close()
        return proxy.memory_mb("VmHWM") - before, len(body) / 2**20
