"""`kimi-mitm doctor`: names the step that is broken and what to do about it; with a command, runs it and watches.

Each finding says what was tried, what it means, and the next step. Standard library until the proxy itself is tried,
so that a wrong Python is a finding, too.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import cli
from .gateway import GatewayError
from .routes import Routes, RoutesError

if TYPE_CHECKING:
    from .runner import Outcome, Settings
    from .sockets import Direct

#: Never through a proxy of the environment: it is the gateway itself that is asked.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """`step` is a stable word for the step; `action` is empty when nothing needs to be done."""

    step: str
    ok: bool
    meaning: str
    action: str = ""


def main(options: argparse.Namespace) -> int:
    """Print every finding; 1 when a step is broken."""
    return asyncio.run(_main(options))


async def _main(options: argparse.Namespace) -> int:
    broken = False
    async for finding in findings(options):
        broken = broken or not finding.ok
        out = f"{'ok  ' if finding.ok else 'FAIL'} {finding.step}: {finding.meaning}\n"
        sys.stdout.write(out + (f"     -> {finding.action}\n" if finding.action else ""))
        sys.stdout.flush()
    return 1 if broken else 0


async def findings(options: argparse.Namespace) -> AsyncIterator[Finding]:
    """In the order in which one would look."""
    version = ".".join(map(str, sys.version_info[:3]))
    problem = cli.missing()
    yield Finding(step="python", ok=not problem, meaning=problem or f"{version}, with mitmproxy")
    if problem:
        return
    try:
        settings = cli.settings_of(options)
    except (GatewayError, RoutesError) as exc:
        yield Finding(step="settings", ok=False, meaning=str(exc))
        return
    for finding in (_gateway(settings), _key(settings)):
        yield finding
    yield _no_proxy(settings.routes)
    if options.command:
        async for finding in _command(options.command, settings):
            yield finding
    else:
        yield await _proxy(settings)


def _ask(settings: Settings, path: str, headers: dict[str, str]) -> int | str:
    """The gateway's status, or why there is none."""
    request = urllib.request.Request(settings.gateway.url + path, headers=headers)  # noqa: S310  # http or https
    try:
        with _DIRECT.open(request, timeout=_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except (OSError, http.client.HTTPException) as exc:
        return str(getattr(exc, "reason", exc))


def _gateway(settings: Settings) -> Finding:
    url, seen = settings.gateway.url, _ask(settings, "/health/liveliness", {})
    if seen == 200:
        return Finding(step="gateway", ok=True, meaning=f"{url} answers")
    return Finding(
        step="gateway",
        ok=False,
        meaning=f"{url} is no running gateway ({seen})",
        action="Start it: kimi-provider serve. It is elsewhere: set KIMI_GATEWAY_URL.",
    )


def _key(settings: Settings) -> Finding:
    seen = _ask(settings, "/v1/models", {"authorization": f"Bearer {settings.gateway.key}"})
    if seen == 200:
        return Finding(step="key", ok=True, meaning="the gateway accepts it")
    if isinstance(seen, str):
        return Finding(step="key", ok=False, meaning="can't be tried while the gateway does not answer")
    return Finding(
        step="key",
        ok=False,
        meaning=f"the gateway refuses it (HTTP {seen})",
        action="Set KIMI_GATEWAY_KEY to the key that kimi-provider serve names when it starts.",
    )


def _no_proxy(routes: Routes) -> Finding:
    from .environment import covers_listed

    named = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    entries = [entry for entry in map(str.strip, named.split(",")) if entry and covers_listed(entry, routes)]
    if not entries:
        return Finding(step="NO_PROXY", ok=True, meaning="no listed host is exempt")
    return Finding(
        step="NO_PROXY",
        ok=False,
        meaning=f"{', '.join(entries)} takes listed hosts past any proxy",
        action="kimi-mitm run leaves it out for its tool; for other shells take it out of NO_PROXY yourself.",
    )


async def _proxy(settings: Settings) -> Finding:
    """A call of our own through a proxy of our own."""
    from . import runner
    from .proxy import ProxyError

    try:
        with runner.private_folder() as (folder, _):
            async with runner.prepared(folder, settings, os.environ) as ready:
                status, served_by = await asyncio.to_thread(_through, ready, settings.routes)
    except (OSError, ProxyError, http.client.HTTPException) as exc:
        return Finding(step="proxy", ok=False, meaning=f"a call through the proxy failed: {exc}")
    meaning = f"a call to a listed host is answered by {served_by} (HTTP {status})"
    return Finding(step="proxy", ok=served_by == "kimi-gateway" and status == 200, meaning=meaning)


def _through(ready: Any, routes: Routes) -> tuple[int, str]:
    from base64 import b64encode
    from urllib.parse import urlsplit

    proxy = urlsplit(ready.proxy.url)
    context = ssl.create_default_context(cafile=str(ready.folder / "ca.pem"))
    line = http.client.HTTPSConnection(ready.proxy.host, ready.proxy.port, timeout=_TIMEOUT_S, context=context)
    password = b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    line.set_tunnel("api.openai.com", 443, {"Proxy-Authorization": f"Basic {password}"})
    try:
        line.request("GET", "/v1/models")
        answer = line.getresponse()
        answer.read()
        return answer.status, answer.headers.get("x-kimi-served-by", "somebody else")
    finally:
        line.close()


async def _command(command: list[str], settings: Settings) -> AsyncIterator[Finding]:
    from . import runner, sockets
    from .proxy import ProxyError

    seen: set[Direct] = set()
    try:
        outcome = await runner.run(command, settings, os.environ, beside=lambda pid: sockets.watch(pid, seen))
    except (runner.RunError, ProxyError) as exc:
        yield Finding(step="command", ok=False, meaning=str(exc))
        return
    sys.stdout.write("\n")  # the tool may have left its last line open
    for finding in watched(outcome, seen):
        yield finding


def watched(outcome: Outcome, seen: set[Direct]) -> Iterator[Finding]:
    """What a command's run shows."""
    tally = outcome.prepared.proxy.tally
    for direct in sorted(seen, key=lambda each: (each.protocol, each.address)):
        if direct.protocol == "udp":
            yield Finding(
                step="QUIC",
                ok=False,
                meaning=f"the tool speaks HTTP/3 to {direct.address}:443, which no HTTP proxy sees",
                action="Switch QUIC off in the tool (Chromium and Electron: --disable-quic).",
            )
        else:
            yield Finding(
                step="bypass",
                ok=False,
                meaning=f"the tool goes to {direct.address}:443 directly, past the proxy",
                action="Its runtime ignores HTTPS_PROXY: Node needs 22.21 or newer, aiohttp trust_env=True, Java and "
                "Electron settings of their own.",
            )
    for host, reason in tally.untrusted.items():
        if "disconnected" not in reason:
            yield Finding(
                step="CA",
                ok=False,
                meaning=f"this runtime does not trust the proxy's CA for {host}",
                action="It reads none of the variables that kimi-mitm sets; look up how it takes a CA (docs/tools.md).",
            )
        else:
            yield Finding(
                step="pinned",
                ok=False,
                meaning=f"the tool hung up on the proxy's certificate for {host}: it pins its provider's, or its "
                "runtime does not trust the CA (Node hangs up in both cases)",
                action="A tool that pins can't be redirected. --unlist-pinned SECONDS lets it reach its provider.",
            )
    if not tally.connections and not seen:
        yield Finding(
            step="bypass", ok=False, meaning="the tool made no connection through the proxy, and none was seen"
        )
    if tally.connections:
        meaning = f"{tally.redirected} calls redirected, {tally.passed} passed, {tally.refused} answered by kimi-mitm"
        action = "" if tally.redirected else "No path of a listed host was called: see the table of routes (--routes)."
        yield Finding(step="calls", ok=tally.redirected > 0, meaning=meaning, action=action)
    yield Finding(step="command", ok=outcome.code == 0, meaning=f"ended with code {outcome.code}")
