"""The tests' own reading of the legacy protocol: a small SSE parser and the calls, written apart from the simulator."""

from __future__ import annotations

import json
from typing import Any

import httpx

from .wire import Caller


def parse(content: bytes) -> list[Any]:
    """The JSON of every event; raw text where it is none. Comments and other fields are skipped."""
    found: list[Any] = []
    for block in content.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
        if not lines:
            continue
        try:
            found.append(json.loads(b"\n".join(lines)))
        except ValueError:
            found.append(b"\n".join(lines))
    return found


class RestAnswer:
    """A finished completion, taken apart."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.events = parse(response.content) if "event-stream" in response.headers.get("content-type", "") else []

    @property
    def kinds(self) -> list[str]:
        """The events' names in order, neighbours of one kind once."""
        kinds = [one.get("event", "") for one in self.events if isinstance(one, dict)]
        return [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.events if isinstance(one, dict) and one.get("event") == kind]

    @property
    def text(self) -> str:
        return "".join(one["text"] for one in self.all("cmpl"))

    @property
    def thinking(self) -> str:
        return "".join(one["text"] for kind in ("k1", "think") for one in self.all(kind))

    @property
    def segment_id(self) -> str:
        return str(self.all("req")[-1]["id"])

    @property
    def answer_id(self) -> str:
        return str(self.all("resp")[-1]["id"])

    @property
    def error_type(self) -> str:
        """Of the error event, or of the JSON body."""
        errors = self.all("error")
        body = errors[0]["error"] if errors else self.response.json()
        assert set(body) == {"error_type", "message", "detail"}
        assert body["message"]
        return str(body["error_type"])


def completion(prompt: str = "Weather in Oslo?", **changes: Any) -> dict[str, Any]:
    """A valid body (protocol B.4)."""
    return {
        "kimiplus_id": "kimi",
        "messages": [{"role": "user", "content": prompt}],
        "refs": [],
        "use_math": False,
        "use_research": False,
        "use_search": False,
        "extend": {"sidebar": True},
    } | changes


class RestCaller:
    """A logged-in account on the legacy protocol."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.http = caller.http
        self.server = caller.server

    def headers(self, **more: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.caller.token}"} | more

    def post(self, path: str, value: Any, **headers: str) -> httpx.Response:
        return self.http.post(path, json=value, headers=self.headers(**headers))

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path, headers=self.headers())

    def delete(self, path: str) -> httpx.Response:
        return self.http.delete(path, headers=self.headers())

    def new_chat(self, **changes: Any) -> str:
        value = {"enter_method": "new_chat", "is_example": False, "kimiplus_id": "kimi", "name": "A chat"} | changes
        return str(self.post("/api/chat", value).json()["id"])

    def complete(self, chat_id: str, prompt: str = "Weather in Oslo?", play: str = "", **changes: Any) -> RestAnswer:
        more = {"x-sim-scenario": play} if play else {}
        return RestAnswer(self.post(stream_of(chat_id), completion(prompt, **changes), **more))

    def ask(self, prompt: str = "Weather in Oslo?", play: str = "", **changes: Any) -> RestAnswer:
        """In a new chat."""
        return self.complete(self.new_chat(), prompt, play, **changes)

    def go_on(self, chat_id: str, segment_id: str) -> RestAnswer:
        value = {
            "segment_id": segment_id,
            "action": "continue",
            "messages": [{"role": "user", "content": " "}],
            "kimiplus_id": "kimi",
            "extend": {"sidebar": True},
        }
        return RestAnswer(self.post(stream_of(chat_id), value))

    def presign(self, name: str, action: str = "file") -> dict[str, Any]:
        found: dict[str, Any] = self.post("/api/pre-sign-url", {"action": action, "name": name}).json()
        return found

    def put(self, place: dict[str, Any], content: bytes, media_type: str) -> httpx.Response:
        return self.http.put(place["url"], content=content, headers={"content-type": media_type})

    def register(self, place: dict[str, Any], name: str, action: str = "file") -> httpx.Response:
        if action == "image":
            return self.post("/api/file", {"type": "image", "file_id": place["file_id"], "name": name})
        named = {"type": "file", "name": name, "object_name": place["object_name"], "file_id": "", "chat_id": ""}
        return self.post("/api/file", named)

    def upload(self, name: str, content: bytes, media_type: str, action: str = "file") -> httpx.Response:
        place = self.presign(name, action)
        assert self.put(place, content, media_type).status_code == 200
        return self.register(place, name, action)


def stream_of(chat_id: str) -> str:
    return f"/api/chat/{chat_id}/completion/stream"
