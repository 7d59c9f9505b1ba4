"""`kimi-provider serve`: check, start LiteLLM's proxy as a child, say when it is ready.

The proxy is LiteLLM's own command in a process of its own: this one only prepares its environment, hosts the
simulator in demo mode, passes signals on and returns its exit code. Everything a user can have got wrong is checked
before anything starts and raises `ServeError`, one sentence with the cure.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from .settings import Settings, SettingsError, state_dir
from .simulator.server import SimulatorServer
from .upstream import Upstream

#: LiteLLM's proxy needs 8-10 s; a slow machine several times that.
READY_TIMEOUT_S = 180.0

_STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class ServeError(Exception):
    """The gateway can't start; the text is one sentence with the cure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """What was started: address, key, and where the key is kept (None: it came from the environment)."""

    url: str
    key: str
    key_file: Path | None
    config: Path
    demo: bool
    models: tuple[str, ...]


def packaged_config() -> Path:
    """The shipped litellm_config.yaml: inside the installed package, or beside it in a checkout."""
    inside = Path(str(resources.files(__package__).joinpath("litellm_config.yaml")))
    return inside if inside.is_file() else inside.parent.parent / "litellm_config.yaml"


def read_config(path: Path) -> dict[str, Any]:
    """A LiteLLM configuration as a mapping. Raises ServeError."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as exc:
        raise ServeError(f"{path} can't be read ({exc.strerror}). Name another file with --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(exc, "problem", None) or "not valid UTF-8"
        raise ServeError(
            f"{path}{where} is not valid YAML: {problem}. Correct it or name another with --config."
        ) from None
    if not isinstance(data, dict) or not isinstance(data.get("model_list", []), list):
        raise ServeError(
            f"{path} is no LiteLLM configuration: it needs a mapping with model_list. See {packaged_config()}."
        )
    return data


def kimi_rows(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The litellm_params of deployments that lead to Kimi."""
    rows = [row.get("litellm_params") for row in config.get("model_list") or () if isinstance(row, dict)]
    return [row for row in rows if isinstance(row, dict) and str(row.get("model", "")).startswith("kimi/")]


def has_own_credential(row: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether a deployment names an api_key that exists."""
    key = row.get("api_key")
    if not isinstance(key, str):
        return False
    return bool(environment.get(key.removeprefix("os.environ/"))) if key.startswith("os.environ/") else bool(key)


def check_port(host: str, port: int) -> None:
    """Raise ServeError when `port` can't be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise ServeError(f"Port {port} on {host} is in use. Choose another with --port.") from None
            raise ServeError(f"{host}:{port} can't be bound ({exc.strerror}). Check --host and --port.") from None


def master_key(environment: Mapping[str, str]) -> tuple[str, Path | None]:
    """The gateway's key: from the environment, else made once and kept in a file only its owner can read."""
    if given := environment.get("LITELLM_MASTER_KEY"):
        return given, None
    path = state_dir() / "gateway.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if kept := path.read_text("utf-8").strip():
                return kept, path
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        key = "sk-" + secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
    except OSError as exc:
        raise ServeError(f"{path} can't be used ({exc.strerror}). Set LITELLM_MASTER_KEY instead.") from None
    return key, path


def run(
    *,
    host: str,
    port: int,
    config: Path | None,
    workers: int,
    on_start: Callable[[Gateway], None],
    on_ready: Callable[[Gateway], None],
) -> int:
    """Serve until stopped; the proxy's exit code. Raises ServeError and SettingsError before anything runs."""
    settings = Settings.load()
    Upstream.load(settings.kimi_upstream_file)
    path = config or (Path("litellm_config.yaml") if Path("litellm_config.yaml").is_file() else packaged_config())
    rows = kimi_rows(data := read_config(path))
    check_port(host, port)
    key, key_file = master_key(_environment_with_file())
    demo = settings.token is None and not any(has_own_credential(row, os.environ) for row in rows)
    shown_host = f"[{host}]" if ":" in host else host
    gateway = Gateway(
        url=f"http://{shown_host}:{port}",
        key=key,
        key_file=key_file,
        config=path,
        demo=demo,
        models=tuple(str(row.get("model_name")) for row in data.get("model_list") or () if isinstance(row, dict)),
    )
    on_start(gateway)
    environment = {**os.environ, "LITELLM_MASTER_KEY": key, "ROOT_REDIRECT_URL": "/kimi"}
    environment.setdefault("DOCS_URL", "/docs")
    environment.setdefault("LITELLM_DONT_SHOW_FEEDBACK_BOX", "true")
    with ExitStack() as stack:
        if demo:
            simulator = stack.enter_context(SimulatorServer())
            environment |= demo_environment(simulator)
        # LiteLLM's own console entry; -c rather than its script, which need not be on PATH.
        command = [sys.executable, "-c", "from litellm import run_server; run_server()", "--config", str(path)]
        command += ["--host", host, "--port", str(port), "--num_workers", str(workers)]
        # A group of its own: Ctrl-C reaches us alone and becomes one orderly stop of the child.
        child = subprocess.Popen(command, env=environment, process_group=0)  # noqa: S603
        return _supervise(child, gateway, on_ready)


def demo_environment(simulator: SimulatorServer) -> dict[str, str]:
    """Variables that point everything at the simulator; its accounts are throw-away."""
    return {
        "KIMI_DEMO": "true",
        "KIMI_BASE_URL": simulator.url,
        "KIMI_AUTH_URL": simulator.url,
        "KIMI_TOKEN": ",".join(simulator.login(user=user)["refresh_token"] for user in ("demo-a", "demo-b")),
        "KIMI_STATE_URL": "sqlite://",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _environment_with_file() -> dict[str, str]:
    """LITELLM_MASTER_KEY may stand in .env beside the KIMI_ variables."""
    from dotenv import dotenv_values

    return {**{k: v for k, v in dotenv_values(".env").items() if v}, **os.environ}


def _supervise(child: subprocess.Popen[bytes], gateway: Gateway, on_ready: Callable[[Gateway], None]) -> int:
    def stop(_number: int, _frame: FrameType | None) -> None:
        if child.poll() is None:
            child.terminate()

    previous = {number: signal.signal(number, stop) for number in _STOP_SIGNALS}
    try:
        threading.Thread(target=_announce, args=(child, gateway, on_ready), daemon=True).start()
        code = child.wait()
        return 0 if code == -signal.SIGTERM else 128 - code if code < 0 else code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if child.poll() is None:
            child.kill()
            child.wait()


def _announce(child: subprocess.Popen[bytes], gateway: Gateway, on_ready: Callable[[Gateway], None]) -> None:
    give_up_at = time.monotonic() + READY_TIMEOUT_S
    while child.poll() is None and time.monotonic() < give_up_at:
        try:
            with urllib.request.urlopen(f"{gateway.url}/ping", timeout=2) as answer:  # noqa: S310
                if answer.read() == b"pong":
                    return on_ready(gateway)
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)


__all__ = ["Gateway", "ServeError", "SettingsError", "run"]
