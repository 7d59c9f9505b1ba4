"""`kimi-provider serve`: check, start LiteLLM's proxy as a child, say when it is ready.

The proxy is LiteLLM's own command in a process of its own: this one only prepares its environment, hosts the
simulator in demo mode, passes signals on and returns its exit code. What a user can have got wrong is `preflight`'s.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .accounts import Pool
from .preflight import (
    check_credentials,
    check_handler,
    check_port,
    has_own_credential,
    kimi_rows,
    master_key,
    packaged_config,
    read_config,
)
from .settings import Settings
from .simulator.server import SimulatorServer
from .upstream import Upstream

#: LiteLLM's proxy needs 8-10 s; a slow machine several times that.
READY_TIMEOUT_S = 180.0

#: Never through a proxy of the environment: it is this machine that is asked.
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """What is started. `key_file` is None when the key is not ours; `key_source` then says whose it is. `accounts`
    are the short ids behind KIMI_TOKEN, `models` the names of this gateway that lead to Kimi.
    """

    url: str
    key_file: Path | None
    key_source: str
    config: Path
    demo: bool
    accounts: tuple[str, ...]
    models: tuple[str, ...]


def run(
    *,
    host: str,
    port: int,
    config: Path | None,
    workers: int,
    on_start: Callable[[Gateway], None],
    on_ready: Callable[[Gateway], None],
    on_stop: Callable[[], None],
) -> int:
    """Serve until stopped; the exit code, 0 after an orderly stop. Raises ServeError, SettingsError and
    CredentialMissing before anything runs.
    """
    settings = Settings.load()
    upstream = Upstream.load(settings.kimi_upstream_file)
    check_credentials(settings, upstream)
    path = config or (Path("litellm_config.yaml") if Path("litellm_config.yaml").is_file() else packaged_config())
    rows = kimi_rows(data := read_config(path))
    check_handler(path, data)
    check_port(host, port)
    accounts = stored_accounts(settings, upstream)
    environment = _environment_with_file()
    key, key_file, key_source = master_key(environment, data)
    gateway = Gateway(
        url=f"http://{_reachable(host)}:{port}",
        key_file=key_file,
        key_source=key_source,
        config=path,
        demo=not accounts and not any(has_own_credential(row, environment) for row in rows.values()),
        accounts=accounts,
        models=tuple(rows),
    )
    on_start(gateway)
    environment |= {"ROOT_REDIRECT_URL": "/kimi", "KIMI_DEMO": "false", "KIMI_SERVED": "true"}
    if key is not None:
        environment["LITELLM_MASTER_KEY"] = key
    environment.setdefault("DOCS_URL", "/docs")
    environment.setdefault("LITELLM_DONT_SHOW_FEEDBACK_BOX", "true")
    command = [sys.executable, "-m", f"{__package__}.proxy", "--config", str(path)]
    command += ["--host", host, "--port", str(port), "--num_workers", str(workers)]
    with ExitStack() as stack:
        if gateway.demo:
            environment |= demo_environment(stack.enter_context(SimulatorServer()))
            # Workers share their accounts, until the demo ends.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kimi-demo-"))
            environment["KIMI_STATE_URL"] = f"sqlite:///{folder}/accounts.db"
        if workers > 1 and not environment.get("PROMETHEUS_MULTIPROC_DIR"):
            # Workers share what they count, too.
            shared = tempfile.TemporaryDirectory(prefix="kimi-metrics-", ignore_cleanup_errors=True)
            environment["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(shared)
        return _supervise(command, environment, gateway, on_ready, on_stop)


def stored_accounts(settings: Settings, upstream: Upstream) -> tuple[str, ...]:
    """Short ids of the accounts that will answer: those of the account store, which KIMI_TOKEN seeds. Raises
    StoreError.
    """
    pool = Pool.from_settings(settings, upstream)
    try:
        return tuple(account.short_id for account in pool.accounts)
    finally:
        pool.close()


def _reachable(host: str) -> str:
    """How this machine itself reaches a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"[{host}]" if ":" in host else host


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


def _supervise(
    command: list[str],
    environment: Mapping[str, str],
    gateway: Gateway,
    on_ready: Callable[[Gateway], None],
    on_stop: Callable[[], None],
) -> int:
    """Run the child to its end. The first stop signal is passed on, a second one ends everything at once."""
    asked = 0
    child: subprocess.Popen[bytes] | None = None

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            on_stop()
        if child is not None and child.poll() is None:
            child.terminate() if asked == 1 else _kill_group(child)

    # A signal that is ignored, as nohup does, stays ignored.
    previous = {n: signal.signal(n, stop) for n in _STOP_SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        # A group of its own: Ctrl-C reaches us alone and becomes one orderly stop of the child.
        # Its standard input is the lifeline: killed, we take it with us.
        child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, process_group=0)  # noqa: S603  # our own module
        if asked:
            child.terminate()
        threading.Thread(target=_announce, args=(child, gateway, on_ready), daemon=True).start()
        code = child.wait()
        if asked > 1:
            return 128 + signal.SIGINT
        if asked and code in (0, -signal.SIGTERM):
            return 0
        return 128 - code if code < 0 else code
    finally:
        if child is not None:
            _kill_group(child)
            with child:  # waits, and closes its standard input
                pass
        for number, handler in previous.items():
            signal.signal(number, handler)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and its workers, if any are left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _announce(child: subprocess.Popen[bytes], gateway: Gateway, on_ready: Callable[[Gateway], None]) -> None:
    give_up_at = time.monotonic() + READY_TIMEOUT_S
    while child.poll() is None and time.monotonic() < give_up_at:
        if alive(gateway.url):
            return on_ready(gateway)
        time.sleep(0.2)


def alive(url: str) -> bool:
    """Whether a LiteLLM proxy answers at `url`."""
    try:
        with _LOCAL.open(f"{url}/health/liveliness", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False
