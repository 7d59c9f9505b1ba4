"""What a large file costs the proxy, and how often the service is asked before an answer begins.

Memory is that of a fresh process: its peak after one request with the file, ours beside that of a provider which does
nothing, both loaded in either process. The service is the simulator, in a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import sys
import urllib.request
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson

from kimi_provider.engine import KimiEngine
from kimi_provider.request import ChatRequest, Message, TextPart
from kimi_provider.settings import Settings
from kimi_provider.simulator import SimulatorServer
from kimi_provider.upstream import Upstream

from .processes import KEY, Child, Gateway, free_port, peak_rss_mb

FILE_BYTES = 50 * 1024 * 1024

_CONFIG = """
model_list:
- {model_name: kimi, litellm_params: {model: kimi/kimi-latest}}
- {model_name: "null", litellm_params: {model: null/null}}
litellm_settings:
  drop_params: true
  custom_provider_map:
  - {provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler}
  - {provider: "null", custom_handler: bench.null_provider.handler}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}
"""


class Service(Child):
    """`kimi-provider simulate`, with an account."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__([sys.executable, "-m", "kimi_provider", "simulate", "--port", str(port)], folder, "simulator")
        self.wait_for(re.escape(self.url), 30)
        pair = self.call("login", {"user": "bench"})
        self.token = f"{pair['access_token']} {pair['refresh_token']}"
        self.call("settings", {"pace": 0, "parse_delay_s": 0})

    def files(self) -> int:
        """How many were uploaded so far."""
        return len(self.state()["files"])

    def state(self) -> dict[str, Any]:
        """What the simulator knows."""
        with urllib.request.urlopen(f"{self.url}/_sim/state") as answer:
            state: dict[str, Any] = orjson.loads(answer.read())
            return state

    def call(self, action: str, body: dict[str, object]) -> dict[str, str]:
        """One of the simulator's control endpoints."""
        request = urllib.request.Request(f"{self.url}/_sim/{action}", orjson.dumps(body))
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request) as answer:
            got: dict[str, str] = orjson.loads(answer.read())
            return got


async def peak_memory_mb(folder: Path, service: Callable[[], Service]) -> tuple[float, float]:
    """Peak RSS of a proxy after a request with a 50 MB file, ours and the null provider's."""
    content = base64.b64encode(b"%PDF-1.7\n" + bytes(range(256)) * (FILE_BYTES // 256)).decode()
    part = {"type": "file", "file": {"filename": "large.pdf", "file_data": f"data:application/pdf;base64,{content}"}}

    async def one(model: str) -> float:
        with Gateway(folder, service(), text=_CONFIG) as gateway:
            gateway.wait_until_alive()
            for warm in ("kimi", "null"):
                await asyncio.to_thread(_ask, gateway.port, warm, [{"type": "text", "text": "Hello"}])
            before = service().files()
            await asyncio.to_thread(_ask, gateway.port, model, [{"type": "text", "text": "Read"}, part])
            assert service().files() - before == (model == "kimi")
            return peak_rss_mb(gateway.pid())

    return await one("kimi"), await one("null")


def _ask(port: int, model: str, content: list[dict[str, object]]) -> None:
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": content}]})
    with socket.create_connection(("127.0.0.1", port), timeout=120) as line:
        line.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %s\r\nconnection: close\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % (KEY.encode(), len(body))
        )
        line.sendall(body)
        got = bytearray()
        while piece := line.recv(65536):
            got += piece
    if b" 200 " not in got[:20]:
        raise RuntimeError(f"{model}: {bytes(got[:600])!r}")


async def round_trips(protocol: str) -> float:
    """Requests of an account until the first byte of its answer, counted by the simulator."""
    with SimulatorServer() as server:
        server.change(pace=0)
        pair = server.login("bench")
        settings = Settings.without_file(
            kimi_base_url=server.url,
            kimi_auth_url=server.url,
            kimi_token=f"{pair['access_token']} {pair['refresh_token']}",
            kimi_protocol=protocol,
            kimi_keep_chats=True,  # the service ends with the answer
            kimi_state_url="sqlite://",  # nothing of it may last
        )
        engine = KimiEngine(settings, Upstream.load())
        asked = ChatRequest(model="kimi", messages=(Message(role="user", parts=(TextPart(text="Hi"),)),))
        async with aclosing(engine.chat(asked)) as events:
            async for _ in events:
                pass
        (call,) = server.snapshot()["calls"]
        return float(call["round_trips_before_first_byte"])
