"""The children: the upstream, and a gateway in front of it. Loopback only; ended by their own process id."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol, Self

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-bench-0123456789abcdef0123456789abcdef"

_OPENAI_ROW = (
    "- {{model_name: builtin, litellm_params: {{model: openai/bench, api_base: '{url}/v1', api_key: sk-none}}}}"
)
_KIMI_ROW = "- {model_name: kimi, litellm_params: {model: kimi/kimi-latest}}"
_REST = """
router_settings: {num_retries: 0, disable_cooldowns: true}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY, cancel_on_disconnect: true}
"""
_SETTINGS = "litellm_settings: {drop_params: true%s}"
_MAP = ", custom_provider_map: [{provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler}]"


#: Nothing of ours, no network; and bytecode is kept, for LiteLLM tries an import that fails with each request.
_NOT_PASSED_ON = re.compile(r"(KIMI|LITELLM|OPENAI)_|.*_PROXY$|PYTHONDONTWRITEBYTECODE$", re.IGNORECASE)


def config(url: str, *, kimi: bool) -> str:
    """A proxy configuration with the built-in provider, and Kimi beside it."""
    rows = [_OPENAI_ROW.format(url=url), *([_KIMI_ROW] if kimi else [])]
    return "\n".join(("model_list:", *rows, _SETTINGS % (_MAP if kimi else ""), _REST))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """A process with its output in a file; its standard input ends with it."""

    def __init__(self, command: list[str], folder: Path, name: str, **env: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not _NOT_PASSED_ON.match(k)}
        kept |= {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)}
        kept |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY, "PYTHONUNBUFFERED": "1"}
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, env=kept | env, cwd=folder, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str]:
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at and self.process.poll() is None:
            if found := re.search(pattern, self.log.read_text("utf-8", "replace")):
                return found
            time.sleep(0.05)
        raise RuntimeError(f"{self.log.stem} did not start:\n{self.log.read_text('utf-8', 'replace')[-3000:]}")

    def stop(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class UpstreamProcess(Child):
    """`bench.upstream`."""

    def __init__(self, folder: Path) -> None:
        super().__init__([sys.executable, "-m", "bench.upstream"], folder, "upstream")
        found = self.wait_for(r"upstream ready on (\S+) token (\S+)", 30)
        self.url, self.token = found[1], found[2]
        self.port = int(self.url.rpartition(":")[2])


class Behind(Protocol):
    """What a gateway talks to."""

    url: str
    token: str


class Gateway(Child):
    """A proxy of one worker: `kimi-provider serve`, or with `bare` LiteLLM's own command without Kimi.

    `text` is its configuration, by default both providers' rows.
    """

    def __init__(
        self, folder: Path, upstream: Behind, *, bare: bool = False, text: str | None = None, **env: str
    ) -> None:
        self.port = free_port()
        name = "bare" if bare else "gateway"
        (path := folder / f"{name}.yaml").write_text(text or config(upstream.url, kimi=not bare), "utf-8")
        what = ["-c", "from litellm import run_server; run_server()"] if bare else ["-m", "kimi_provider", "serve"]
        options = ["--config", str(path), "--host", "127.0.0.1", "--port", str(self.port)]
        self.started_at = time.monotonic()
        super().__init__(
            [sys.executable, *what, *options, "--num_workers" if bare else "--workers", "1"],
            folder,
            name,
            KIMI_TOKEN=upstream.token,
            KIMI_BASE_URL=upstream.url,
            KIMI_AUTH_URL=upstream.url,
            KIMI_MAX_STREAMS="64",
            # As `serve` sets it: the first-run banner is no part of a start.
            LITELLM_DONT_SHOW_FEEDBACK_BOX="true",
            **env,
        )

    def wait_until_alive(self, timeout_s: float = 120) -> float:
        """Seconds from its start to the first answer of /health/liveliness."""
        ask = b"GET /health/liveliness HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
        while time.monotonic() < self.started_at + timeout_s:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
                    line.sendall(ask)
                    if b" 200 " in line.recv(64):
                        return time.monotonic() - self.started_at
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"the gateway did not start:\n{self.log.read_text('utf-8', 'replace')[-3000:]}")

    def pid(self) -> int:
        """The process that serves: the proxy is a child of `kimi-provider serve`."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else self.process.pid


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_mb(pid: int) -> float:
    """The most memory that a process has had resident so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024
