"""Real servers on loopback: stand-ins for providers, a recorder in the gateway's place, and the proxy between them.

All of them run on one event loop in a thread; tests are plain functions that use sockets, http.client and curl.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import trustme

from mitm_addon import proxy
from mitm_addon.redirect import Redirector

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent.parent
GATEWAY_KEY = "sk-gateway-0123456789abcdef"
#: The provider's key. It must be found nowhere but at the provider, and there only for calls that pass.
CANARY = "sk-CANARY-5f3a9c"
LIMIT_S = 30.0

#: The proxy's CA, made by the first rig of a run and given to the others: making one takes half a second.
_AUTHORITY: dict[str, bytes] = {}


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 60) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def stop(self) -> None:
        async def leave() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.loop.shutdown_default_executor()

        self.run(leave())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@dataclass
class Call:
    """One request as it came in; `gone` is set when its caller has left before the answer's end."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    gone: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Server:
    """Speaks HTTP/1.1, over TLS when it has a context, and keeps every byte it gets.

    A body with `"stream":true` and a path with `stream` are answered by three server-sent events. With `stepwise` the
    second and third wait for `call.go_on`.
    """

    def __init__(self, loop: Loop, context: ssl.SSLContext | None = None) -> None:
        self._loop = loop
        self._context = context
        self.tcp = self.handshakes = 0
        self.raw = bytearray()
        self.calls: list[Call] = []
        self.stepwise = False
        self.extra_headers = ""
        self.status = "200 OK"
        self._changed = threading.Condition()
        self._server: asyncio.Server
        loop.run(self._start())

    async def _start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        async def close() -> None:
            self._server.close()
            self._server.close_clients()

        self._loop.run(close())

    def restart(self) -> None:
        self._loop.run(self._start(self.port))

    def wait_for(self, count: int) -> Call:
        """The call with this number, from 1."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= count, LIMIT_S), "the call did not come"
        return self.calls[count - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tcp += 1
        try:
            if self._context is not None:
                await writer.start_tls(self._context)
                self.handshakes += 1
            while True:
                await self._one(reader, writer)
        except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, size: int) -> bytes:
        data = await reader.readexactly(size)
        self.raw += data
        return data

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        line = await reader.readuntil(b"\n")
        self.raw += line
        return line.strip()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await self._line(reader)).decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while line := await self._line(reader):
            name, _, value = line.decode("latin-1").partition(":")
            name = name.strip().lower()
            assert name not in headers, f"{name} twice"
            headers[name] = value.strip()
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", ""):
            pieces = []
            while size := int((await self._line(reader)).split(b";")[0], 16):
                pieces.append(await self._read(reader, size))
                await self._line(reader)
            await self._line(reader)
            body = b"".join(pieces)
        else:
            body = await self._read(reader, int(headers.get("content-length", "0")))
        call = Call(method, target, headers, body)
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        if headers.get("upgrade"):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
            self.raw += await reader.read()
        elif b'"stream":true' in body or "stream" in target:
            await self._stream(call, reader, writer)
        else:
            answer = b'{"answered":true}'
            writer.write(self._head(f"content-type: application/json\r\ncontent-length: {len(answer)}") + answer)
        await writer.drain()

    def _head(self, fields: str) -> bytes:
        return f"HTTP/1.1 {self.status}\r\n{fields}\r\n{self.extra_headers}\r\n".encode()

    async def _stream(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._head("content-type: text/event-stream\r\ntransfer-encoding: chunked"))
        for number in range(3):
            if number and self.stepwise:
                wait = asyncio.create_task(asyncio.to_thread(call.go_on.acquire, timeout=LIMIT_S))
                left = asyncio.create_task(reader.read(1))
                await asyncio.wait((wait, left), return_when=asyncio.FIRST_COMPLETED)
                if left.done():
                    call.gone.set()
                    call.go_on.release()
                    await wait
                    raise ConnectionResetError
                left.cancel()
                with suppress(asyncio.CancelledError):
                    await left
            event = f'data: {{"number":{number}}}\n\n'.encode()
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\n\r\n")


class CompanyProxy:
    """The proxy that a machine's HTTPS_PROXY names: tunnels to `ports`, refuses other hosts, keeps what was asked."""

    def __init__(self, loop: Loop, ports: dict[str, int]) -> None:
        self._loop = loop
        self.ports = ports
        self.asked: list[str] = []
        self.password = ""
        loop.run(self._start())

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split(" ", 2)
            host = target.split(":")[0]
            self.asked.append(host)
            word = b64encode(self.password.encode()).decode()
            known = not self.password or f"basic {word}\r\n".lower() in head.lower()
            if method != "CONNECT" or host not in self.ports or not known:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
                return
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.ports[host])
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(_pump(reader, far), _pump(far_reader, writer))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            if far is not None:
                far.close()

    def stop(self) -> None:
        async def close() -> None:
            self._server.close()
            self._server.close_clients()

        self._loop.run(close())


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class HostMap:
    """Stands for DNS: provider hosts are the stand-in, everything else does not exist."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = ports
        self.asked: list[str] = []

    def server_connect(self, data: Any) -> None:
        host = data.server.address[0]
        if host != "127.0.0.1":
            self.asked.append(host)
            data.server.address = ("127.0.0.1", self.ports.get(host, 1))


def tls_of(authority: trustme.CA, *hosts: str) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for `hosts`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    return context


class Rig:
    """Provider stand-in, unlisted host, gateway recorder and proxy. `settings` are options of the redirector."""

    HOSTS = (
        "api.openai.com",
        "api.anthropic.com",
        "generativelanguage.googleapis.com",
        "mine.openai.azure.com",
        "openrouter.ai",
        "api.groq.com",
        "api.mistral.ai",
        "api.x.ai",
        "api.deepseek.com",
    )

    def __init__(self, folder: Path, *more: object, redirector: Redirector | None = None, **settings: Any) -> None:
        self.loop = Loop()
        self.folder = folder
        self._stack = AsyncExitStack()
        authority = trustme.CA()
        self.roots = folder / "provider-ca.pem"
        authority.cert_pem.write_to_path(self.roots)
        self.origin = Server(self.loop, tls_of(authority, *self.HOSTS, "10.9.8.7"))
        self.unlisted = Server(self.loop, tls_of(authority, "unlisted.example"))
        self.gateway = Server(self.loop)
        self.dns = HostMap(dict.fromkeys((*self.HOSTS, "10.9.8.7"), self.origin.port))
        self.dns.ports["unlisted.example"] = self.unlisted.port
        self.redirector = redirector or Redirector(key=GATEWAY_KEY)
        settings = {"kimi_gateway": self.gateway.url, "ssl_verify_upstream_trusted_ca": str(self.roots), **settings}
        (folder / "proxy").mkdir()
        for name, content in _AUTHORITY.items():
            (folder / "proxy" / name).write_bytes(content)
        entered = proxy.running(self.redirector, self.dns, *more, folder=folder / "proxy", **settings)
        try:
            self.proxy = self.loop.run(self._stack.enter_async_context(entered))
        except BaseException:
            self.close()
            raise
        if not _AUTHORITY:
            _AUTHORITY.update({path.name: path.read_bytes() for path in (folder / "proxy").iterdir()})

    def close(self) -> None:
        self.loop.run(self._stack.aclose())
        for server in (self.origin, self.unlisted, self.gateway):
            server.stop()
        self.loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- clients --------------------------------------------------------------------------------------------

    def curl(self, url: str, *arguments: str, body: bytes | None = None, trusted: bool = True) -> Answer:
        """curl through the proxy; trusts the proxy's CA and the provider's."""
        bundle = self.folder / "bundle.pem"
        bundle.write_text(self.roots.read_text() + (self.proxy.ca.read_text() if trusted else ""))
        command = ["curl", "-sS", "-i", "--max-time", "60", "--proxy", self.proxy.url, "--cacert", str(bundle)]
        command += ["--suppress-connect-headers", *arguments, url]
        if body is not None:
            command += ["--data-binary", "@-"]
        done = subprocess.run(
            command, input=body, capture_output=True, timeout=90, env={"PATH": "/usr/bin:/bin:/usr/local/bin"}
        )
        return Answer.of(done)

    def post(self, url: str, body: bytes, *arguments: str) -> Answer:
        return self.curl(url, "-H", "content-type: application/json", *arguments, body=body)

    @contextmanager
    def tunnel(
        self, host: str, *, sni: str | None = None, port: int = 443, alpn: str = "http/1.1"
    ) -> Iterator[ssl.SSLSocket]:
        """TLS through the proxy, handshake done; trusts the proxy's CA and the provider's."""
        raw = self.connect(host, port)
        context = ssl.create_default_context(cafile=str(self.proxy.ca))
        context.load_verify_locations(str(self.roots))
        context.set_alpn_protocols([alpn])
        with raw, context.wrap_socket(raw, server_hostname=sni or host) as wrapped:
            yield wrapped

    def connect(self, host: str, port: int = 443) -> Any:
        """A socket after CONNECT."""
        parts = urlsplit(self.proxy.url)
        password = b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        raw = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=LIMIT_S)
        raw.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nProxy-Authorization: Basic {password}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = raw.recv(1)
            assert piece, head
            head += piece
        assert b" 200 " in head, head
        return raw

    # --- what must hold -------------------------------------------------------------------------------------

    def assert_nothing_reached_the_provider(self) -> None:
        assert (self.origin.tcp, self.origin.handshakes, bytes(self.origin.raw)) == (0, 0, b"")
        assert [host for host in self.dns.asked if host in self.HOSTS] == []

    def assert_keys_stayed_apart(self) -> None:
        assert CANARY.encode() not in self.gateway.raw
        assert GATEWAY_KEY.encode() not in self.origin.raw
        assert GATEWAY_KEY.encode() not in self.unlisted.raw


@dataclass
class Answer:
    """What curl saw; status 0 when there was no answer."""

    code: int
    status: int
    headers: dict[str, str]
    body: bytes
    error: str

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[bytes]) -> Answer:
        rest = done.stdout
        status, headers = 0, {}
        while rest.startswith(b"HTTP/"):
            head, _, rest = rest.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
        return cls(done.returncode, status, headers, rest, done.stderr.decode("utf-8", "replace"))
