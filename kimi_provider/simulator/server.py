"""Runs a simulator on a real socket: in a thread for tests and the demo, or as the whole process.

The socket is bound before anything starts, so port 0 is known at once and two servers never race. Stopping breaks off
what still streams; it never waits for a hanging scenario.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn

from ..lifeline import when_parent_ends
from . import control
from .app import create_app
from .state import Simulator

STOP_TIMEOUT_S = 10.0
_T = TypeVar("_T")


class _Server(uvicorn.Server):
    """Tells when it accepts connections."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    def end_at_once(self) -> None:
        """Stop without waiting for anything."""
        self.should_exit = self.force_exit = True


class SimulatorServer:
    """A simulator in a thread: `with SimulatorServer() as server: httpx.get(server.url)`.

    `state` is the live Simulator: read it from any thread, change it through `call` or the methods here, which run on
    the server's own loop.
    """

    def __init__(self, simulator: Simulator | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.state = simulator or Simulator()
        self._host = host
        self._port = port
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        """Bind, start, and wait until connections are accepted."""
        self._socket = bound(self._host, self._port)
        self._server = _Server(_config(self.state), self._started)
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._thread.start()
        if not self._ready.wait(STOP_TIMEOUT_S):
            raise RuntimeError("the simulator did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, whatever is running."""
        self.call(self.state.streams.stop_all)
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()

    @property
    def url(self) -> str:
        """Base address without a slash at the end."""
        return f"http://{self._host}:{self._socket.getsockname()[1]}"

    def call(self, action: Callable[..., _T], *arguments: Any) -> _T:
        """Run `action` on the server's loop and return what it returns."""
        if self._loop is None:
            raise RuntimeError("the simulator is not running")

        async def run() -> _T:
            return action(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(STOP_TIMEOUT_S)

    def wait(self) -> None:
        """Block until the server ends."""
        while self._thread.is_alive():
            self._thread.join(1.0)  # in slices, so that Ctrl-C is heard everywhere

    def login(self, user: str | None = None, **more: Any) -> dict[str, str]:
        """As `POST /_sim/login`."""
        return self.call(control.login, self.state, {"user": user, **more})

    def reset(self) -> None:
        """As `POST /_sim/reset`."""
        self.call(self.state.reset)

    def change(self, **settings: Any) -> None:
        """As `POST /_sim/settings`."""
        self.call(lambda: setattr(self.state, "settings", self.state.settings.changed(settings)))

    def queue(self, name: str | None, times: int | None = 1, **params: Any) -> None:
        """As `POST /_sim/scenario`; `times` defaults to 1 here."""
        self.call(control.queue_scenario, self.state, {"name": name, "params": params, "times": times})

    def make_chats(self, user: str, count: int = 1) -> list[str]:
        """As `POST /_sim/chats`; the ids."""
        ids: list[str] = self.call(control.make_chats, self.state, {"user": user, "count": count})["ids"]
        return ids

    def snapshot(self) -> dict[str, Any]:
        """As `GET /_sim/state`."""
        return self.call(self.state.snapshot)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            runner.run(self._server.serve(sockets=[self._socket]))

    def _started(self) -> None:
        self._ready.set()


def bound(host: str, port: int) -> socket.socket:
    """A bound TCP socket; OSError when the port is taken."""
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def run(simulator: Simulator, *, host: str, port: int, exit_with_parent: bool = False) -> None:
    """Serve until a signal, or until standard input ends; prints one line when ready."""
    listening = bound(host, port)

    def tell() -> None:
        sys.stdout.write(f"simulator ready on http://{host}:{listening.getsockname()[1]}\n")
        sys.stdout.flush()

    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # aborted answers are meant
    server = _Server(_config(simulator), tell)
    if exit_with_parent:
        when_parent_ends(server.end_at_once)
    server.run(sockets=[listening])


class _Config(uvicorn.Config):
    """Leaves the process's loggers alone: in the demo they are another server's."""

    def configure_logging(self) -> None:
        pass


def _config(simulator: Simulator) -> uvicorn.Config:
    return _Config(
        create_app(simulator),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
