"""GET of a caller's URL: to checked addresses only, as nobody, within limits of size and time.

Works below httpx's client, on its transport: no proxy, cookie, netrc or credential of ours can join, no redirect is
followed unseen, and no log line of the client shows a signed URL. TLS is verified against the URL's host while the
connection goes to the address that was checked. Each redirect is a new URL, judged from the start.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from socket import SOCK_STREAM, getaddrinfo

import httpx

from ..connections import USER_AGENT
from ..upstream import Files
from .guard import Address, Allowed, Resolve, Target, checked, parsed
from .refusal import Refused, shown, too_large

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Addresses that are tried; the time for all of them is bounded by the total anyway.
_TRIES = 4

#: Names are looked up on threads of our own: a caller's slow DNS must not hold those of the host's default pool.
_lookups = concurrent.futures.ThreadPoolExecutor(8, thread_name_prefix="kimi-names")


async def _getaddrinfo(host: str, port: int) -> list[str]:
    look_up = functools.partial(getaddrinfo, host, port, type=SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_lookups, look_up)
    return [str(entry[4][0]) for entry in found]


@functools.cache
def _public_tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """What fetching needs of the outside. `ports` are those open to hosts that are not listed as allowed."""

    resolve: Resolve = _getaddrinfo
    tls: Callable[[], ssl.SSLContext] = field(default=_public_tls)
    ports: frozenset[int] = frozenset({80, 443})


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """What the answer says about the file besides its bytes; any of it may be wrong. `url_path` is percent-encoded."""

    url_path: str
    content_disposition: str | None
    content_type: str | None


async def fetch(
    source: str, write: Callable[[bytes], Awaitable[None]], *, limits: Files, allowed: Allowed, network: Network
) -> Fetched:
    """Fetch `source` into `write`, in pieces of at most 64 KiB. The time as a whole is the caller's to bound.

    Raises Refused for all that goes wrong, the other server's faults included: the caller chose it, and no other
    account would fare better.
    """
    url = parsed(source)
    for _ in range(limits.max_redirects + 1):
        target = await checked(url, allowed=allowed, ports=network.ports, resolve=network.resolve)
        try:
            async with _answer(target, limits, network) as response:
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    return await _body(response, target, write, limits)
                url = _next(url, response.headers["location"])
        except httpx.TimeoutException:
            raise Refused(f"{shown(target.host)} sent nothing for {limits.idle_timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.StreamError, OSError):
            raise Refused(f"{shown(target.host)} broke off its answer, or it is not valid HTTP") from None
    raise Refused(f"the file's address redirects more than {limits.max_redirects} times")


def _next(url: httpx.URL, location: str) -> httpx.URL:
    try:
        following = parsed(str(url.join(location)))
    except (httpx.InvalidURL, ValueError):
        raise Refused("the file's address redirects to something that is no valid URL") from None
    if url.scheme == "https" and following.scheme == "http":
        raise Refused("the file's address redirects from https to http, which is not followed")
    return following


@asynccontextmanager
async def _answer(target: Target, limits: Files, network: Network) -> AsyncIterator[httpx.Response]:
    # One transport for each hop: no connection is shared between callers. Answer heads are bounded by h11 (100 KiB).
    async with httpx.AsyncHTTPTransport(
        verify=network.tls(), trust_env=False, limits=httpx.Limits(max_connections=1, max_keepalive_connections=0)
    ) as transport:
        response = await _first_reached(transport, target, limits)
        try:
            yield response
        finally:
            await response.aclose()


async def _first_reached(transport: httpx.AsyncHTTPTransport, target: Target, limits: Files) -> httpx.Response:
    cause = ""
    for address in target.addresses[:_TRIES]:
        try:
            return await transport.handle_async_request(_request(target, address, limits))
        except httpx.ConnectTimeout:
            cause = f"{shown(target.host)} accepted no connection within {limits.connect_timeout_s:g} s"
        except httpx.ConnectError as exc:
            if _is_certificate_error(exc):
                raise Refused(f"the certificate of {shown(target.host)} is not valid for it") from None
            cause = f"{shown(target.host)} accepts no connection"
    raise Refused(cause)


def _request(target: Target, address: Address, limits: Files) -> httpx.Request:
    timeout = httpx.Timeout(limits.idle_timeout_s, connect=limits.connect_timeout_s)
    return httpx.Request(
        "GET",
        target.url.copy_with(host=str(address), fragment=None),
        # Identity: what is counted against the limit is what arrives.
        headers={
            "host": target.authority,
            "user-agent": USER_AGENT,
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
        },
        extensions={"timeout": timeout.as_dict(), "sni_hostname": target.host},
    )


def _is_certificate_error(exc: BaseException | None) -> bool:
    while exc is not None:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


async def _body(
    response: httpx.Response, target: Target, write: Callable[[bytes], Awaitable[None]], limits: Files
) -> Fetched:
    if response.status_code not in (200, 203):
        raise Refused(f"{shown(target.host)} answered HTTP {response.status_code} instead of the file")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refused(f"{shown(target.host)} sent a compressed answer, which was not asked for")
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_bytes:
        raise too_large(int(declared), limits.max_bytes)
    async for piece in response.aiter_raw():
        await write(piece)
    return Fetched(
        url_path=target.url.raw_path.partition(b"?")[0].decode("ascii"),
        content_disposition=response.headers.get("content-disposition"),
        content_type=response.headers.get("content-type"),
    )
