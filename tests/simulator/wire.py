"""The tests' own reading of the wire: a small parser and a caller, written apart from the simulator's writer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import httpx

from kimi_provider.simulator import SimulatorServer

CHAT = "/apiv2/kimi.gateway.chat.v1.ChatService/Chat"
CHAT_V1 = "/apiv2/kimi.chat.v1.ChatService/Chat"
UPLOAD = "/apiv2-files/file/upload"
UNARY = "/apiv2/kimi.gateway.chat.v1.ChatService/"


def pack(value: Any, flag: int = 0) -> bytes:
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


def unpack(data: bytes) -> list[tuple[int, Any]]:
    """(flag, JSON) of every envelope; raw bytes where the payload is no JSON; a rest that is too short fails."""
    found: list[tuple[int, Any]] = []
    while data:
        flag, length = data[0], int.from_bytes(data[1:5], "big")
        payload, data = data[5 : 5 + length], data[5 + length :]
        if len(payload) < length:
            raise AssertionError(f"frame of {length} bytes has {len(payload)}")
        plain = gzip.decompress(payload) if flag == 1 else payload
        try:
            found.append((flag, json.loads(plain)))
        except ValueError:
            found.append((flag, plain))
    return found


def body(prompt: str = "Weather in Oslo?", **changes: Any) -> dict[str, Any]:
    """A valid request; keyword arguments replace top-level fields."""
    return {
        "scenario": "SCENARIO_CHAT",
        "tools": [],
        "message": {
            "role": "user",
            "blocks": [{"message_id": "", "text": {"content": prompt}}],
            "scenario": "SCENARIO_CHAT",
        },
        "options": {"thinking": False, "model": "k2d6-chat"},
    } | changes


class Answer:
    """A finished Chat answer, taken apart."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.frames = unpack(response.content)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [value for flag, value in self.frames if flag in (0, 1) and isinstance(value, dict)]

    @property
    def trailer(self) -> Any:
        flag, value = self.frames[-1]
        assert flag == 2, f"the last frame has flag {flag}"
        return value

    @property
    def chat_id(self) -> str:
        return str(next(event["chat"]["id"] for event in self.events if "chat" in event))

    @property
    def faces(self) -> dict[str, dict[str, Any]]:
        return {one["message"]["role"]: one["message"] for one in self.events if one.get("message", {}).get("role")}

    @property
    def answer_id(self) -> str:
        return str(self.faces["assistant"]["id"])

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """The events after the opening; none when there was no opening."""
        opening = (at for at, one in enumerate(self.events) if one.get("message", {}).get("role") == "assistant")
        opened = next(opening, len(self.events))
        return self.events[opened + 1 :]

    @property
    def text(self) -> str:
        """All text pieces in order; right for answers that only set first and then append."""
        return "".join(one["block"]["text"].get("content", "") for one in self.blocks if "text" in one.get("block", {}))


class Caller:
    """One logged-in account."""

    def __init__(self, server: SimulatorServer, **login: Any) -> None:
        self.server = server
        self.tokens = server.login(**login)
        self.token = self.tokens.get("access_token") or self.tokens.get("kimi_auth") or ""
        self.http = httpx.Client(base_url=server.url, trust_env=False, timeout=20)

    def close(self) -> None:
        self.http.close()

    def headers(self, **more: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}", "content-type": "application/connect+json"} | more

    def resume(self) -> None:
        """End the pause of every stream that is in one."""
        assert self.http.post("/_sim/resume", json={}).json() == {}

    def in_steps(self, play: str, mark: bytes, counts: Iterable[int]) -> None:
        """Check that `mark` stands so many times in what has come before each resume; the pauses last for ever."""
        with self.stream(play) as response:
            chunks, data = response.iter_raw(), b""
            for wanted in counts:
                while (seen := data.count(mark)) < wanted:
                    data += next(chunks)
                assert seen == wanted
                self.resume()

    def post(self, content: bytes, *, path: str = CHAT, **headers: str) -> httpx.Response:
        return self.http.post(path, content=content, headers=self.headers(**headers))

    def chat(self, prompt: str = "Weather in Oslo?", play: str = "", **changes: Any) -> Answer:
        more = {"x-sim-scenario": play} if play else {}
        return Answer(self.post(pack(body(prompt, **changes)), **more))

    def go_on(self, before: Answer, prompt: str, **changes: Any) -> Answer:
        message = body(prompt)["message"] | {"parent_id": before.answer_id}
        return self.chat(prompt, chat_id=before.chat_id, message=message, **changes)

    def stream(self, play: str) -> AbstractContextManager[httpx.Response]:
        headers = self.headers(**{"x-sim-scenario": play})
        return self.http.stream("POST", CHAT, content=pack(body()), headers=headers)

    def unary(self, method: str, value: Any, **headers: str) -> httpx.Response:
        path = method if method.startswith("/") else UNARY + method
        more = {"content-type": "application/json"} | headers
        return self.http.post(path, content=json.dumps(value), headers=self.headers(**more))

    def upload(self, name: str, content: bytes, media_type: str) -> httpx.Response:
        """One file the Connect way."""
        headers = {"authorization": f"Bearer {self.token}"}
        return self.http.post(UPLOAD, files={"file": (name, content, media_type)}, headers=headers)
