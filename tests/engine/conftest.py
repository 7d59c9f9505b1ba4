from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from kimi_provider.conversations import tidying
from kimi_provider.engine import KimiEngine
from kimi_provider.events import Event, TextDelta
from kimi_provider.request import ChatRequest, Message, TextPart
from kimi_provider.settings import Settings
from kimi_provider.simulator import SimulatorServer
from kimi_provider.upstream import Upstream

CHAT = "/apiv2/kimi.gateway.chat.v1.ChatService/Chat"

#: The pauses of real life, shortened.
QUICK = """
service: {done_grace_s: 0.1}
chats: {renew_s: 600}
retry: {backoff_s: [0.01, 0.02], quota_s: 30, rate_limited_s: 30, concurrency_s: 7, overloaded_s: 0.01}
"""


def asking(prompt: str = "Hi", **more: Any) -> ChatRequest:
    messages = (Message(role="user", parts=(TextPart(text=prompt),)),)
    return ChatRequest(**{"model": "kimi", "messages": messages, **more})


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def collect(
    engine: KimiEngine, prompt: str = "Hi", *, into: list[Event] | None = None, **more: Any
) -> list[Event]:
    """All events of an answer; those before a failure are in `into`."""
    seen: list[Event] = [] if into is None else into
    async with aclosing(engine.chat(asking(prompt, **more))) as events:
        async for event in events:
            seen.append(event)
    return seen


async def tidied() -> None:
    """Wait for what the engine does behind an answer."""
    await asyncio.to_thread(concurrent.futures.wait, set(tidying._tidying), 5)
    assert not tidying._tidying


class World:
    """A simulated service as new, and engines in front of it."""

    def __init__(self, server: SimulatorServer, tmp: Path) -> None:
        self.server = server
        self._overlay = tmp / "overlay.yaml"
        self._states = (f"sqlite:///{tmp}/state-{number}/accounts.db" for number in itertools.count())

    def token(self, user: str, **more: Any) -> str:
        """A pair, so that nothing is refreshed before the first call."""
        pair = self.server.login(user, **more)
        return f"{pair['access_token']} {pair['refresh_token']}"

    def engine(self, *users: str, overlay: str = "", **changes: Any) -> KimiEngine:
        given = {
            "kimi_base_url": self.server.url,
            "kimi_auth_url": self.server.url,
            "kimi_state_url": next(self._states),
            "kimi_token": "\n".join(map(self.token, users or ("ada",))),
        }
        self._overlay.write_text(overlay or QUICK, "utf-8")
        settings = Settings.without_file(**{**given, **changes})
        return KimiEngine(settings, Upstream.load(self._overlay))

    @property
    def state(self) -> dict[str, Any]:
        return self.server.snapshot()

    @property
    def chats(self) -> list[dict[str, Any]]:
        """The Chat calls so far."""
        return [one for one in self.state["requests"] if one["path"] == CHAT]

    @property
    def callers(self) -> list[str]:
        """Whose Chat calls they were: one id for each access token."""
        return [one["headers"]["authorization"] for one in self.chats]

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        give_up_at = time.monotonic() + 30
        while not wanted(state := self.state):
            assert time.monotonic() < give_up_at, state
            await asyncio.sleep(0.01)
        return state


@pytest.fixture(scope="session")
def server_thread() -> Iterator[SimulatorServer]:
    with SimulatorServer() as server:
        yield server


@pytest.fixture
def world(server_thread: SimulatorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    server_thread.reset()
    server_thread.change(pace=0)
    yield World(server_thread, tmp_path)
    concurrent.futures.wait(set(tidying._tidying), 5)
