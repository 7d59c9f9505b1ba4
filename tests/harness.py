"""Real processes for tests: the simulator, and a gateway in front of it. Loopback only; ended by their own pid."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
MASTER_KEY = "sk-test-0123456789abcdef0123456789abcdef"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(tmp: Path, **changes: str) -> dict[str, str]:
    """The machine's environment without anything that would reach our settings or a network."""
    kept = {
        k: v for k, v in os.environ.items() if not re.match(r"(KIMI|LITELLM|OPENAI|ANTHROPIC|GEMINI)_|.*_PROXY$", k)
    }
    kept |= {
        "HOME": str(tmp),
        "XDG_STATE_HOME": str(tmp / "state"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_PROXY": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
    }
    return kept | changes


class Process:
    """A child with its output in a file; stopped on exit, killed when it does not listen."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            # A test run in the background of a script ignores SIGINT, and its children would, too.
            self.child = subprocess.Popen(
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str]:
        try:
            return self._seen(pattern, timeout_s)
        except BaseException:
            Process.stop(self)
            raise

    def _seen(self, pattern: str, timeout_s: float) -> re.Match[str]:
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            if found := re.search(pattern, self.output):
                return found
            if self.child.poll() is not None:
                raise AssertionError(f"ended with {self.child.returncode}:\n{self.output[-4000:]}")
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} within {timeout_s} s:\n{self.output[-4000:]}")

    def stop(self) -> int:
        if self.child.stdin:
            self.child.stdin.close()
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
        return self.child.wait(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Simulator(Process):
    """The simulator in a process of its own, with its control endpoint."""

    def __init__(self, tmp: Path) -> None:
        tmp.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "kimi_provider.simulator", "--port", "0", "--exit-with-parent"]
        super().__init__(command, tmp / "simulator.log", clean_environment(tmp), tmp)
        self.url = self.wait_for(r"simulator ready on (http://\S+)", 30)[1]
        self.http = httpx.Client(base_url=self.url, trust_env=False)

    def control(self, path: str, **body: Any) -> Any:
        answer = self.http.post(f"/_sim/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.http.get("/_sim/state").json()
        return state

    def chat_bodies(self) -> list[dict[str, Any]]:
        """What Connect's chat calls sent, oldest first."""
        return [one["body"] for one in self.state()["requests"] if one["path"].endswith("ChatService/Chat")]

    def login(self, user: str = "ada", **more: Any) -> dict[str, Any]:
        tokens: dict[str, Any] = self.control("login", user=user, **more)
        return tokens

    def scenario(self, name: str | None, times: int | None = 1, **params: Any) -> None:
        self.control("scenario", name=name, params=params, times=times)

    def reset(self) -> None:
        self.control("reset")
        self.control("settings", pace=0)

    def until(self, what: str, wanted: Any, timeout_s: float) -> None:
        """Wait until state[what] == wanted."""
        give_up_at = time.monotonic() + timeout_s
        while (seen := self.state()[what]) != wanted:
            assert time.monotonic() < give_up_at, f"{what} is {seen!r}, not {wanted!r}, after {timeout_s} s"
            time.sleep(0.02)

    def stop(self) -> int:
        self.http.close()
        return super().stop()


def shipped_config_without_limits(tmp: Path) -> Path:
    """The shipped configuration; only the requests per minute are taken out, which a test run exceeds."""
    tmp.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "litellm_config.yaml").read_text("utf-8")
    (path := tmp / "config.yaml").write_text(re.sub(r", rpm: \d+", "", text), "utf-8")
    return path


def shipped_config_with_cache(tmp: Path) -> Path:
    """The same with LiteLLM's cache switched on."""
    cached = "litellm_settings:\n  cache: true\n  cache_params: {type: local}\n"
    (path := shipped_config_without_limits(tmp)).write_text(path.read_text().replace("litellm_settings:\n", cached))
    return path


def quick_overlay(tmp: Path) -> Path:
    """An upstream.yaml overlay without the pauses of real life, so that one account serves a whole test run."""
    tmp.mkdir(parents=True, exist_ok=True)
    (path := tmp / "quick.yaml").write_text(
        "service: {done_grace_s: 0.5}\n"
        "retry: {backoff_s: [0.01], quota_s: 0.01, rate_limited_s: 0.01, concurrency_s: 0.01, overloaded_s: 0.01}\n"
    )
    return path


class Gateway(Process):
    """`kimi-provider serve` in front of a simulator."""

    def __init__(
        self, tmp: Path, simulator_url: str, token: str, config: Path | None = None, *, workers: int = 1, **env: str
    ) -> None:
        tmp.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = clean_environment(
            tmp,
            LITELLM_MASTER_KEY=MASTER_KEY,
            KIMI_TOKEN=token,
            KIMI_BASE_URL=simulator_url,
            KIMI_AUTH_URL=simulator_url,
            KIMI_UPSTREAM_FILE=str(quick_overlay(tmp)),
        )
        command = [sys.executable, "-m", "kimi_provider", "serve", "--port", str(self.port)]
        command += ["--config", str(config or shipped_config_without_limits(tmp)), "--workers", str(workers)]
        super().__init__(command, tmp / "gateway.log", environment | env, tmp)
        self.wait_for(r"Ready:", 90)
        self.http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {MASTER_KEY}"}, trust_env=False, timeout=60
        )

    def processes(self) -> list[psutil.Process]:
        """`serve` and all that it has started."""
        serve = psutil.Process(self.child.pid)
        return [serve, *serve.children(recursive=True)]

    def crash(self) -> None:
        """kill -9 of every process at once, so that none can tidy up."""
        for process in (dying := self.processes()):
            process.kill()
        psutil.wait_procs(dying[1:], timeout=15)
        self.stop()

    def stop(self) -> int:
        if hasattr(self, "http"):
            self.http.close()
        return super().stop()
