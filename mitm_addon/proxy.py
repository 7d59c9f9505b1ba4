"""An embedded mitmproxy with the redirector in it: loopback, a password, its own CA, no logs, no dumps.

Knows nothing of children or terminals. Promises that nothing is accepted before the redirector is ready.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmproxy import addons, exceptions, master, options
from mitmproxy.addons import onboarding, script

from .redirect import Redirector, Tally

START_TIMEOUT_S = 60.0
SETTLE_S = 1.0
USER = "kimi"


class ProxyError(Exception):
    """The proxy can't run; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """A running proxy. `url` holds the password."""

    url: str
    host: str
    port: int
    ca: Path
    tally: Tally
    options: Any
    stopped: asyncio.Event
    connections: Callable[[], int]

    async def settled(self) -> None:
        """Until what a client has hung up on is noted, or a moment later when somebody stays connected."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self.connections():  # noqa: ASYNC110  # mitmproxy only counts
                    await asyncio.sleep(0.01)


def password() -> str:
    """A random one; no sign of it needs quoting in a URL."""
    return secrets.token_urlsafe(24)


def build(redirector: Redirector, settings: Mapping[str, Any], *more: object) -> master.Master:
    """A master with mitmproxy's own addons and ours. Raises ProxyError when the settings can't be used."""
    made = master.Master(options.Options(), with_termlog=False)
    # At level DEBUG it logs every header; mitmproxy's own commands raise it, too.
    logging.getLogger("hpack").setLevel(logging.WARNING)
    for addon in addons.default_addons():
        if isinstance(addon, onboarding.Onboarding):
            continue
        # Ours stands where scripts would: after the password is checked, before anything is decided.
        made.addons.add(redirector if isinstance(addon, script.ScriptLoader) else addon)
    made.addons.add(*more)
    try:
        made.options.update(connection_strategy="lazy", **settings)
    except exceptions.OptionsError as exc:
        raise ProxyError(str(exc)) from None
    return made


@asynccontextmanager
async def running(
    redirector: Redirector,
    *more: object,
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    secret: str | None = None,
    **settings: Any,
) -> AsyncIterator[Proxy]:
    """A proxy from here to the end of the block; `folder` gets or holds its CA. Raises ProxyError."""
    secret = secret or password()
    base = {"confdir": str(folder), "listen_host": host, "listen_port": port, "proxyauth": f"{USER}:{secret}"}
    made = build(redirector, base | settings, *more)
    errors = _Errors()
    logging.getLogger("mitmproxy").addHandler(errors)
    stopped = asyncio.Event()
    task = asyncio.create_task(made.run())
    task.add_done_callback(lambda _: stopped.set())
    try:
        ready = asyncio.create_task(redirector.ready.wait())
        await asyncio.wait((task, ready), timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        listening = made.addons.get("proxyserver").listen_addrs()
        if not redirector.ready.is_set() or not listening:
            raise ProxyError(f"The proxy does not start: {errors.first or 'no reason given'}")
        bound = listening[0][1]
        # What listens on every address is reached by the loopback one from here.
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
        shown = f"[{near}]" if ":" in near else near
        yield Proxy(
            url=f"http://{USER}:{secret}@{shown}:{bound}",
            host=host,
            port=bound,
            ca=folder / "mitmproxy-ca-cert.pem",
            tally=redirector.tally,
            options=made.options,
            stopped=stopped,
            connections=made.addons.get("proxyserver").active_connections,
        )
    finally:
        logging.getLogger("mitmproxy").removeHandler(errors)
        # mitmproxy leaves its sockets to the end of the process.
        await made.addons.get("proxyserver").servers.update([])
        made.shutdown()
        await asyncio.wait((task,))


class _Errors(logging.Handler):
    """Remembers the first error of the start."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()
