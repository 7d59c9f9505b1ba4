"""The one doorway to the service: calls, session headers, status -> KimiError.

Knows no protocol: bytes go in and out. One client (`connections`) per event loop, closed with its loop. A redirect is
an error (protocol A.8: a POST would lose its body), and no text of a failure carries an address with a query or a
credential.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, Protocol
from urllib.parse import urlsplit

import aiohttp
import httpx
import orjson

from .connections import open_client
from .errors import KimiError, RateLimited, Unavailable, UpstreamError, UpstreamTimeout
from .settings import Settings
from .upstream import Upstream

#: What a call raises when the connection or the answer breaks: aiohttp's own where the transport has no httpx twin.
BROKEN = (httpx.HTTPError, aiohttp.ClientError)

#: The one of them that says the answer came, but compressed in a way that can't be undone.
UNDECODABLE = httpx.DecodingError

_HTTPX_CLOSED = (httpx.NetworkError, httpx.RemoteProtocolError)

#: Largest answer to a unary call that is read.
MAX_REPLY_BYTES = 8 * 1024 * 1024

#: As httpx reads the files of a form.
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What a call to the service needs of an account.

    `account` is a short id for people. The three ids come from the token's claims (protocol A.2), strings of up to 20
    characters; one that is missing is left out of the headers, never invented.
    """

    access_token: str = field(repr=False)
    account: str
    base_url: str
    device_id: str | None = None
    session_id: str | None = None
    traffic_id: str | None = None


class Redirected(UpstreamError):
    """The service sends callers elsewhere."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer to a unary call."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON, or None when it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


class Sendable(Protocol):
    """A file to send: `name` and `media_type` are safe for headers."""

    @property
    def name(self) -> str: ...  # noqa: D102  # its name says it

    @property
    def media_type(self) -> str: ...  # noqa: D102  # its name says it

    @property
    def size_bytes(self) -> int: ...  # noqa: D102  # its name says it

    def open(self) -> BinaryIO:
        """A new reader at the first byte; close it."""


class Web:
    """Calls to the service from one event loop. Get it with `Web.current`."""

    _of_loop: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Web]] = weakref.WeakKeyDictionary()

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._lifeline = self._close_with_loop()

    @classmethod
    async def current(cls, upstream: Upstream) -> Web:
        """The doorway of the running loop, opened on first use."""
        loop = asyncio.get_running_loop()
        web = cls._of_loop.get(loop)
        if web is None:
            web = cls._of_loop[loop] = cls(open_client(upstream))
            await anext(web._lifeline)
        return web

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        # The loop closes its running async generators before it ends (asyncio.run, uvicorn): the only hook that
        # repeated asyncio.run calls give us to close sockets.
        try:
            yield
        finally:
            await self._client.aclose()

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        json: Any = None,
        form: Sendable | None = None,
        file: Sendable | None = None,
        timeout_s: float,
    ) -> Reply:
        """One unary call; its body is `json`, or `form` as the part "file" of a form, or the bytes of `file`.

        Raises Unavailable, UpstreamTimeout, Redirected, UpstreamError (oversized).
        """
        if timeout_s <= 0:
            raise UpstreamTimeout(f"No time was left to ask {host_of(url)}")
        try:
            async with (
                _body(json, form, file) as (kind, body_of_call),
                asyncio.timeout(timeout_s),
                self._client.stream(method, url, headers={**headers, **kind}, **body_of_call) as got,
            ):
                refuse_redirect(got.status_code, url, got.headers.get("location"))
                body = bytearray()
                async for chunk in got.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_REPLY_BYTES:
                        raise UpstreamError(f"{host_of(url)} answered more than {MAX_REPLY_BYTES} bytes")
                return Reply(got.status_code, got.headers, bytes(body))
        except TimeoutError:
            raise UpstreamTimeout(f"{host_of(url)} did not answer within {timeout_s:g} s") from None
        except BROKEN as exc:
            raise connection_error(url, exc) from None

    @asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], content: bytes, deadline: float
    ) -> AsyncIterator[httpx.Response]:
        """POST and hand out the open answer; closed on leaving. `deadline` is in loop time and bounds the wait for
        the status line only. Raises as `call`.
        """
        if deadline <= asyncio.get_running_loop().time():
            raise UpstreamTimeout(f"No time was left to ask {host_of(url)}")
        request = self._client.build_request("POST", url, headers=dict(headers), content=content)
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._client.send(request, stream=True)
        except TimeoutError:
            raise UpstreamTimeout(f"{host_of(url)} did not answer in time") from None
        except BROKEN as exc:
            raise connection_error(url, exc) from None
        try:
            refuse_redirect(response.status_code, url, response.headers.get("location"))
            yield response
        finally:
            await response.aclose()


@asynccontextmanager
async def _body(
    json: Any, form: Sendable | None, file: Sendable | None
) -> AsyncIterator[tuple[dict[str, str], dict[str, Any]]]:
    """Headers and httpx's arguments for the body of a call."""
    if json is not None:
        yield {"content-type": "application/json"}, {"content": orjson.dumps(json)}
    elif form is not None:
        with form.open() as reader:
            yield {}, {"files": {"file": (form.name, reader, form.media_type)}}
    elif file is not None:
        with file.open() as reader:
            # Stores behind signed addresses want the length ahead, and no chunks.
            kind = {"content-type": file.media_type, "content-length": str(file.size_bytes)}
            yield kind, {"content": _pieces(reader)}
    else:
        yield {}, {}


async def _pieces(reader: BinaryIO) -> AsyncIterator[bytes]:
    while piece := reader.read(_PIECE_BYTES):
        yield piece


def session_headers(session: Session, settings: Settings, upstream: Upstream) -> dict[str, str]:
    """Headers of every call with an account (protocol C.1)."""
    headers = {**upstream.headers, **settings.kimi_headers, "authorization": f"Bearer {session.access_token}"}
    for name, value in (
        ("x-msh-device-id", session.device_id),
        ("x-msh-session-id", session.session_id),
        ("x-traffic-id", session.traffic_id),
    ):
        if value:
            headers[name] = value
    return headers


def host_of(url: str) -> str:
    """Host and port of an address: all of it that may be shown."""
    return urlsplit(url).netloc.rpartition("@")[2]


def refuse_redirect(status: int, url: str, location: str | None) -> None:
    """Raise Redirected when `status` is a redirect."""
    if 300 <= status < 400:
        target = host_of(location or "") or "another page"
        raise Redirected(
            f"{host_of(url)} redirects to {target}, which is not followed",
            cure="If the service has moved, set KIMI_BASE_URL to its new address.",
        )


def connection_error(url: str, exc: Exception) -> KimiError:
    """A failure of `BROKEN` as ours; the text names only the host and the kind of failure."""
    # httpx-aiohttp calls every broken connection a timeout: what aiohttp itself said decides.
    what = exc.__cause__ if isinstance(exc.__cause__, aiohttp.ClientError) else exc
    if isinstance(what, aiohttp.ServerTimeoutError | httpx.TimeoutException):
        return UpstreamTimeout(f"{host_of(url)} did not accept a connection in time")
    if isinstance(what, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError | httpx.ProxyError):
        return Unavailable(f"{host_of(url)} can't be reached through the proxy of the environment")
    if isinstance(what, aiohttp.ClientConnectorError | httpx.ConnectError):
        return Unavailable(f"{host_of(url)} can't be reached")
    if isinstance(what, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, *_HTTPX_CLOSED)):
        return Unavailable(f"{host_of(url)} closed the connection before it answered")
    return UpstreamError(f"{host_of(url)} sent an answer that can't be read ({type(what).__name__})")


def status_error(status: int, url: str, retry_after: str | None = None) -> KimiError:
    """An HTTP status without a body that explains it (a CDN's page, a missing endpoint)."""
    host = host_of(url)
    if status == 429:
        return RateLimited(f"{host} asks to slow down (HTTP 429)", retry_after_s=seconds(retry_after))
    if status in (502, 503, 504):
        return Unavailable(f"{host} is not available (HTTP {status})", retry_after_s=seconds(retry_after))
    return UpstreamError(f"{host} answered HTTP {status}, which this call does not know")


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds; its date form is not used by the service."""
    try:
        value = float(retry_after or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
