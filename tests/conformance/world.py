"""One protocol's world: a simulated service, an account with chats of its owner, and a gateway that speaks to it.

Read in words that both protocols share: what was asked, which files were named, what is in the account. The simulator
is never reset while a world lives, so that the owner's chats are the same ones at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from tests.harness import Gateway, Simulator, shipped_config_without_limits

PROTOCOLS = ("connect", "rest")
OWNER = "ada"
OWNERS_CHATS = 20
AGENT = "cagent0translator000"
#: An account that the service suspends: nothing brings it back, so it is no other test's.
SUSPENDED = "kimi-suspended"

#: A limit on every wait for an event; generous, because it only matters when something is broken.
PATIENCE_S = 30


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question as it reached the service."""

    text: str
    file_ids: tuple[str, ...]
    #: All that was sent with it, in the protocol's own words.
    body: dict[str, Any]


class World:
    def __init__(self, protocol: str, tmp: Path) -> None:
        self.protocol = protocol
        self.max_streams = {"connect": 2, "rest": 1}[protocol]
        self.simulator = Simulator(tmp / "simulator")
        self.play(None)
        token = self.simulator.login(OWNER)["refresh_token"]
        self.simulator.control("chats", user=OWNER, count=OWNERS_CHATS)
        self.account = next(chat["account"] for chat in self.state["chats"])
        self.owners_chats = self.chats
        config = shipped_config_without_limits(tmp / "gateway")
        suspended = self.simulator.login("mallory")["refresh_token"]
        config.write_text(config.read_text().replace("model_list:\n", "model_list:\n" + _rows(suspended), 1))
        # Each answer alone: no chat of it may be left. What goes on in a chat has tests of its own.
        alone = {"KIMI_PROTOCOL": protocol, "KIMI_CONTINUE": "off"}
        self.gateway = Gateway(tmp / "gateway", self.simulator.url, token, config, **alone)

    def play(self, scenario: str | None, times: int | None = 1, **params: Any) -> None:
        """What the next `times` answers (None: all) look like, in place of what was said before; None: the demo."""
        self.simulator.control("settings", pace=0, parse_delay_s=0, research_total=1000)
        self.simulator.scenario(None)
        if scenario is not None:
            self.simulator.scenario(scenario, times, **params)

    def resume(self) -> None:
        """End the pauses of all running answers."""
        self.simulator.control("resume")

    @property
    def state(self) -> dict[str, Any]:
        return self.simulator.state()

    @property
    def chats(self) -> list[dict[str, Any]]:
        """All chats in the account, with their messages."""
        return self._chats_in(self.state)

    @property
    def asked(self) -> list[Asked]:
        """The newest questions, oldest first; a continued answer asks nothing."""
        found = []
        for request in self.state["requests"]:
            body = request["body"]
            if request["path"].endswith("ChatService/Chat"):
                blocks = body["message"]["blocks"]
                (text,) = [block["text"]["content"] for block in blocks if "text" in block]
                files = [block["file"]["id"] for block in blocks if "file" in block]
            elif request["path"].endswith("/completion/stream") and "action" not in body:
                text, files = body["messages"][0]["content"], body["refs"]
            else:
                continue
            found.append(Asked(text=text, file_ids=tuple(files), body=body))
        return found

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first state that is as `wanted`."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not wanted(state := await anyio.to_thread.run_sync(self.simulator.state)):
            assert time.monotonic() < give_up_at, {name: state[name] for name in ("active_streams", "chats", "queue")}
            await anyio.sleep(0.01)
        return state

    async def until_tidy(self) -> None:
        """Nothing runs, and the account holds its owner's chats, unchanged, and no other."""
        state = await self.until(self._is_tidy)
        assert {call["protocol"] for call in state["calls"]} <= {self.protocol}
        assert state["mimicry"] == {}

    def _is_tidy(self, state: dict[str, Any]) -> bool:
        return not state["active_streams"] and self._chats_in(state) == self.owners_chats

    def _chats_in(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        # A suspended account's chat is left behind: the service would let nobody in to remove it.
        return [chat for chat in state["chats"] if chat["account"] == self.account]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gateway.stop()
        self.simulator.stop()


def _rows(suspended: str) -> str:
    return (
        f"  - model_name: {AGENT}\n    litellm_params: {{ model: kimi/{AGENT} }}\n"
        f"  - model_name: {SUSPENDED}\n    litellm_params: {{ model: kimi/kimi-latest, api_key: {suspended} }}\n"
    )
