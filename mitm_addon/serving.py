"""Proxies that stay: `kimi-mitm serve`, and `run --print-env` for a shell.

Like `run`, without a tool. `serve` keeps its CA and password in the user's state folder, so that devices and trust
stores need to be told once.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from . import environment, proxy, runner
from .gateway import key_file

_ONLY_YOURS = (
    "Only for devices that you administer, with the knowledge of the people who use them: this proxy reads what their "
    "tools send to the listed hosts."
)


async def serve(options: argparse.Namespace, settings: runner.Settings) -> int:
    """Run until Ctrl-C. Raises RunError and ProxyError."""
    secret = os.environ.get("KIMI_MITM_PASSWORD", "")
    if not _is_loopback(options.listen):
        if len(secret) < 12:
            raise runner.RunError(
                f"--listen {options.listen} opens this proxy to other devices: set KIMI_MITM_PASSWORD to a password of "
                "12 characters or more."
            )
        runner.say(_ONLY_YOURS)
    if not secret.isalnum() and not all(sign in "-_.~" for sign in secret if not sign.isalnum()):
        raise runner.RunError("KIMI_MITM_PASSWORD may hold letters, digits and -_.~ only: it stands in a URL.")
    folder = _kept_folder()
    secret = secret or _kept_password(folder / "proxy.password")
    runner.say(runner.origin_line(settings.gateway))
    stop = _stop_signal()
    listen = {"host": options.listen, "port": options.port, "secret": secret}
    with runner.noticing(runner.Said()):
        async with runner.prepared(folder, settings, os.environ, **listen) as ready:
            runner.say(f"Listening on {options.listen}:{ready.proxy.port}. CA certificate: {ready.proxy.ca}")
            (script := folder / "env.sh").touch(mode=0o600)
            script.chmod(0o600)
            script.write_text(environment.as_shell(ready.changed, "sh"), "utf-8")
            runner.say(f"For a shell: . {script}   (holds the proxy's password). Ctrl-C stops.")
            await _first_of(stop, ready.proxy.stopped)
    return 0


async def print_env(shell: str, settings: runner.Settings) -> int:
    """Print the environment on standard output, then keep the proxy until Ctrl-C. Raises ProxyError."""
    runner.say(runner.origin_line(settings.gateway))
    stop = _stop_signal()
    with runner.noticing(runner.Said()), runner.private_folder() as (folder, _):
        async with runner.prepared(folder, settings, os.environ) as ready:
            sys.stdout.write(environment.as_shell(ready.changed, shell))
            sys.stdout.flush()
            runner.say("The proxy runs until Ctrl-C; the lines hold its password.")
            await _first_of(stop, ready.proxy.stopped)
    return 0


def _stop_signal() -> asyncio.Event:
    """Set by Ctrl-C and its like from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            with suppress(NotImplementedError):
                loop.add_signal_handler(getattr(signal, name), stop.set)
    return stop


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _kept_folder() -> Path:
    folder = key_file(os.environ).parent / "mitm"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as exc:
        raise runner.RunError(f"{folder} can't be used ({exc.strerror}).") from None
    return folder


def _kept_password(path: Path) -> str:
    try:
        if kept := path.read_text("ascii").strip():
            return kept
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(made := proxy.password(), "ascii")
    return made
