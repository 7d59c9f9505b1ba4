"""How connections to the service are made: httpx over a pool of aiohttp, through the proxies of the environment.

Knows no call and no answer. No redirect is followed, cookies of answers are never kept (they would travel from one
account to another), and a connection keeps nothing of the request that opened it.
"""

from __future__ import annotations

import asyncio
import contextvars
import http.cookiejar
import urllib.request
from importlib.metadata import version
from typing import Any

import aiohttp
import httpx
from aiohttp.connector import Connection
from httpx_aiohttp import AiohttpTransport

from .tap import overhear
from .upstream import Upstream

USER_AGENT = f"kimi-provider/{version('kimi-provider')}"


def open_client(upstream: Upstream) -> httpx.AsyncClient:
    """A client of the running event loop; close it."""
    nothing_kept = http.cookiejar.CookieJar(policy=http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(
        transport=AiohttpTransport(client=_session),
        mounts=_proxies_of_environment(),
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        cookies=nothing_kept,
        follow_redirects=False,
        event_hooks={"response": [overhear]},
        # Silence is timed by the pump and by callers, who know what counts as content.
        timeout=httpx.Timeout(None, connect=upstream.service.connect_timeout_s),
    )


class _Connector(aiohttp.TCPConnector):
    """A pool in an empty context. Its connections and its timer keep the context that they were made in for as long as
    they live, and a proxy's context holds the request with its body: fifty megabytes for each connection.
    """

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        loop = asyncio.get_running_loop()
        opening = loop.create_task(super().connect(*args, **kwargs), context=contextvars.Context())
        try:
            return await opening
        except asyncio.CancelledError:
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result().close()  # it came in the very moment in which nobody wanted it any more
            raise

    def _release(self, *args: Any, **kwargs: Any) -> None:
        contextvars.Context().run(super()._release, *args, **kwargs)


def _session() -> aiohttp.ClientSession:
    """aiohttp below httpx: a call costs a third of what it does on httpx's own transport (docs/performance.md)."""
    connector = _Connector(limit=0, keepalive_timeout=30, ssl=httpx.create_ssl_context())
    jar = aiohttp.DummyCookieJar()
    return aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)


def _proxies_of_environment() -> dict[str, AiohttpTransport | None]:
    """HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY as httpx's mounts, read once: aiohttp itself would read them, and
    the user's netrc, at every call.
    """
    proxies = urllib.request.getproxies()
    direct = [host.strip() for host in proxies.pop("no", "").split(",") if host.strip()]
    mounts: dict[str, AiohttpTransport | None] = {
        f"{scheme}://": AiohttpTransport(client=_session, proxy=httpx.Proxy(proxies[scheme]))
        for scheme in ("http", "https", "all")
        if proxies.get(scheme)
    }
    if not mounts or "*" in direct:
        return {}
    for host in direct:
        mounts |= {f"all://{host.lstrip('.')}": None, f"all://*.{host.lstrip('.')}": None}
    return mounts
