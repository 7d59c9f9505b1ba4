"""`kimi-mitm` as a user starts it, in a machine of its own: home, temporary folder, company proxy, providers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import trustme

from .rig import GATEWAY_KEY, LIMIT_S, CompanyProxy, Loop, Rig, Server, tls_of

MITM = (sys.executable, "-m", "mitm_addon")


class World:
    """Providers that record, reached through a company's proxy; the gateway is a recorder unless `gateway_url`."""

    def __init__(self, folder: Path, gateway_url: str | None = None, key: str = GATEWAY_KEY) -> None:
        self.folder = folder
        self.loop = Loop()
        authority = trustme.CA()
        self.roots = folder / "company-ca.pem"
        authority.cert_pem.write_to_path(self.roots)
        self.origin = Server(self.loop, tls_of(authority, *Rig.HOSTS, "unlisted.example"))
        self.gateway = Server(self.loop)
        self.company = CompanyProxy(self.loop, dict.fromkeys((*Rig.HOSTS, "unlisted.example"), self.origin.port))
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        self.env = kept | {
            "HOME": str(folder),
            "TMPDIR": str(self.tmp),
            "KIMI_GATEWAY_URL": gateway_url or self.gateway.url,
            "KIMI_GATEWAY_KEY": key,
            "HTTPS_PROXY": self.company.url,
            "SSL_CERT_FILE": str(self.roots),
            "NO_PROXY": "intern.example",
            "PYTHONUNBUFFERED": "1",
        }

    def close(self) -> None:
        self.company.stop()
        self.origin.stop()
        self.gateway.stop()
        self.loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, *command: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None, **more: Any) -> Any:
        """`kimi-mitm run OPTIONS -- COMMAND` to its end."""
        return self.mitm("run", *options, "--", *command, env=env, **more)

    def mitm(self, *arguments: str, env: dict[str, str] | None = None, **more: Any) -> Any:
        more = {"capture_output": True, "stdin": subprocess.DEVNULL if "input" not in more else None, **more}
        if "input" in more:
            del more["stdin"]
        return subprocess.run(
            [*MITM, *arguments], env=self.env | (env or {}), cwd=self.folder, text=True, timeout=110, **more
        )

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        env = self.env | more.pop("env", {})
        return subprocess.Popen(
            [*MITM, *arguments],
            env=env,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A run in the background of a script ignores SIGINT, and its children would, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **more,
        )

    def left_behind(self) -> list[str]:
        """Private folders, and processes that know one."""
        folders = [path.name for path in self.tmp.glob("kimi-mitm-*")]
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = line.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if f"{self.tmp}/kimi-mitm-" in command:
                folders.append(command)
        return folders


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    give_up_at = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
