"""`kimi-mitm run`: one tool behind a proxy of its own, and nothing left when it ends.

The proxy lives in this process, the tool is a child in the same process group and on the same terminal: what the
terminal sends reaches the child by itself, what is sent to this process is passed on. Standard output belongs to the
child; what we say goes to standard error, before it starts and after it has ended, never between.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from . import environment, janitor, proxy
from .gateway import Gateway, Watch
from .redirect import Redirector
from .routes import Routes

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
#: Passed on as they come. The terminal sends the last two to the child itself; see `_sent_by_terminal`.
_SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGQUIT")
_FROM_TERMINAL = ("SIGINT", "SIGQUIT")


class RunError(Exception):
    """The tool can't be run; the text says why. `code` is the exit code that shells use for it."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Of one run: where answers come from, and the redirector's options."""

    gateway: Gateway
    routes: Routes
    options: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A running proxy, what a tool's environment changes for it, and where its files are."""

    proxy: proxy.Proxy
    changed: Mapping[str, str | None]
    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a tool ended, and what the proxy has to say about it."""

    code: int
    prepared: Prepared
    notices: tuple[str, ...]


def origin_line(gateway: Gateway) -> str:
    """What every user is told."""
    return (
        f"Answers come from Kimi by way of {gateway.url}, not from OpenAI, Anthropic or Google; check your tool's "
        "terms."
    )


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"kimi-mitm: {text}\n")
    sys.stderr.flush()


async def run(
    command: Sequence[str],
    settings: Settings,
    parent: Mapping[str, str],
    beside: Callable[[int], Coroutine[Any, Any, None]] | None = None,
) -> Outcome:
    """Run `command` to its end behind a proxy of its own; `beside` gets its process id and runs as long. Raises
    RunError and ProxyError before it starts.
    """
    say(origin_line(settings.gateway))
    if not await Watch(settings.gateway).is_up():
        say(f"Nothing answers at {settings.gateway.url} now: calls will fail until kimi-provider serve runs.")
    kept = Kept()
    with noticing(kept), private_folder() as (folder, watcher):
        async with prepared(folder, settings, parent) as ready:
            code = await _child(command, environment.applied(parent, ready.changed), watcher, beside)
            await ready.proxy.settled()
        return Outcome(code=code, prepared=ready, notices=tuple(kept.lines))


def after(outcome: Outcome) -> Iterator[str]:
    """What a user should know once the tool has ended."""
    yield from outcome.notices
    if not outcome.prepared.proxy.tally.connections:
        yield (
            "The tool made no connection through the proxy: either it called nobody, or it ignores HTTPS_PROXY (Node "
            "before 22.21 does) and went to its provider directly. kimi-mitm doctor -- COMMAND tells which."
        )


@asynccontextmanager
async def prepared(
    folder: Path, settings: Settings, parent: Mapping[str, str], **listen: Any
) -> AsyncIterator[Prepared]:
    """A proxy whose CA is in `folder`, and the environment for tools behind it. Raises ProxyError."""
    # The upstream proxy of a company stays in use for what passes; the gateway is reached directly.
    upstream = _upstream(parent)
    # Settled before mitmproxy starts, which makes the CA when it is there first.
    async with proxy.running(
        Redirector(key=settings.gateway.key),
        folder=folder,
        **{"kimi_gateway": settings.gateway.url, **settings.options, **upstream, **listen},
    ) as made:
        trust = environment.write_trust(folder, made.ca, parent)
        made.options.update(ssl_verify_upstream_trusted_ca=str(trust.roots))
        changed = environment.changes(parent, proxy_url=made.url, trust=trust, routes=settings.routes)
        yield Prepared(proxy=made, changed=changed, folder=folder)


def _upstream(parent: Mapping[str, str]) -> dict[str, Any]:
    named = (parent.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    url = next(filter(None, named), "")
    if not url:
        return {}
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise RunError("HTTPS_PROXY holds no address that can be used. Correct it or unset it.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RunError(f"HTTPS_PROXY names a proxy of kind {parts.scheme!r}; only http and https ones can be used.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    found: dict[str, Any] = {"mode": [f"upstream:{parts.scheme}://{host}:{port}"]}
    if parts.username:
        found["upstream_auth"] = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return found


async def _child(
    command: Sequence[str],
    env: Mapping[str, str],
    watcher: subprocess.Popen[bytes],
    beside: Callable[[int], Coroutine[Any, Any, None]] | None,
) -> int:
    path = shutil.which(command[0], path=env.get("PATH"))
    if path is None:
        raise RunError(f"{command[0]}: command not found.", _NOT_FOUND)
    try:
        child = await asyncio.create_subprocess_exec(path, *command[1:], env=env)
    except OSError as exc:
        raise RunError(f"{command[0]} can't be started ({exc.strerror}).", _NOT_EXECUTABLE) from None
    _tell(watcher, f"child {child.pid}")
    loop = asyncio.get_running_loop()

    def pass_on(number: int) -> None:
        if child.returncode is None:
            with suppress(PermissionError):  # it has become another user's, as sudo does
                child.send_signal(number)

    def pass_on_unless_it_has_it(number: int) -> None:
        if not _sent_by_terminal():
            pass_on(number)

    taken = []
    for name in _SIGNALS:
        if (number := getattr(signal, name, None)) is None or signal.getsignal(number) is signal.SIG_IGN:
            continue  # what is ignored, as nohup does, stays ignored, here and in the child
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, pass_on_unless_it_has_it if name in _FROM_TERMINAL else pass_on, number)
            taken.append(number)
    companion = asyncio.create_task(beside(child.pid)) if beside else None
    try:
        code = await child.wait()
    finally:
        if companion is not None:
            companion.cancel()
        for number in taken:
            loop.remove_signal_handler(number)
    return 128 - code if code < 0 else code


def _sent_by_terminal() -> bool:
    """Whether Ctrl-C comes from a terminal that sends it to the child, too: sent twice, many tools quit."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextmanager
def private_folder() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A folder only its owner can enter, and the process that removes it should this one be killed."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(tempfile.mkdtemp(prefix="kimi-mitm-", dir=base if base and os.access(base, os.W_OK) else None))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        watcher = subprocess.Popen(  # noqa: S603  # our own file
            [sys.executable, "-I", "-S", str(Path(janitor.__file__)), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield folder, watcher
        finally:
            _tell(watcher, "done")
            if watcher.stdin is not None:
                with suppress(BrokenPipeError):
                    watcher.stdin.close()
            watcher.wait()


def _tell(watcher: subprocess.Popen[bytes], line: str) -> None:
    assert watcher.stdin is not None
    with suppress(BrokenPipeError):
        watcher.stdin.write(f"{line}\n".encode())
        watcher.stdin.flush()


@contextmanager
def noticing(handler: logging.Handler) -> Iterator[None]:
    """Let `handler` have the redirector's warnings."""
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger(__package__)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class Kept(logging.Handler):
    """Keeps warnings for later: a line in the middle would spoil a tool's screen."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one of each, and not too many."""
        if len(self.lines) < 20 and (line := record.getMessage()) not in self.lines:
            self.lines.append(line)


class Said(logging.Handler):
    """Says warnings at once."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line on standard error."""
        say(record.getMessage())
