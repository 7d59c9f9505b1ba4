"""Another provider for tests: an OpenAI-compatible server on loopback that answers what it is told."""

from __future__ import annotations

import json
from typing import Any

from .listener import Listener, QuietHandler

KEY = "sk-other"


class OtherProvider(Listener):
    """`with OtherProvider() as other:` serves `other.url` with `other.status`; `other.bodies` is what came."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        provider = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.headers.get("authorization") != f"Bearer {KEY}":
                    return self._send(401, {"error": {"message": "no key", "type": "auth", "code": "401"}})
                provider.bodies.append({"path": self.path, **body})
                provider.headers.append({name.lower(): value for name, value in self.headers.items()})
                if provider.status != 200:
                    self._send(provider.status, {"error": {"message": "no", "type": "invalid", "code": "x"}})
                elif body.get("stream"):
                    self._stream(_response_events(body) if self.path.endswith("/responses") else _chunks(body))
                elif self.path.endswith("/responses"):
                    self._send(200, _response(body, "completed"))
                else:
                    self._send(200, _answer(body, "message", "Another answer.", "stop"))
                return None

            def _send(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, pieces: list[dict[str, Any]]) -> None:
                data = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data.encode())

        super().__init__(Handler)

    def reset(self) -> None:
        self.status = 200
        self.bodies.clear()
        self.headers.clear()


def _answer(body: dict[str, Any], key: str, text: str, finish: str | None) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {
        "id": "chatcmpl-other",
        "object": "chat.completion" if key == "message" else "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, key: {"role": "assistant", "content": text}, "finish_reason": finish}],
        **({"usage": usage} if key == "message" or finish else {}),
    }


def _chunks(body: dict[str, Any]) -> list[dict[str, Any]]:
    pieces = [_answer(body, "delta", text, None) for text in ("Another ", "answer.")]
    return [*pieces, _answer(body, "delta", "", "stop")]


def _response(body: dict[str, Any], status: str) -> dict[str, Any]:
    text = {"type": "output_text", "text": "Another answer.", "annotations": []}
    message = {"type": "message", "id": "msg_other", "role": "assistant", "status": status, "content": [text]}
    return {
        "id": "resp_other",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": status,
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5} if status == "completed" else None,
    }


def _response_events(body: dict[str, Any]) -> list[dict[str, Any]]:
    place = {"item_id": "msg_other", "output_index": 0, "content_index": 0}
    done = _response(body, "completed")
    item = done["output"][0]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response(body, "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**item["content"][0], "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": text} for text in ("Another ", "answer.")),
        {"type": "response.output_text.done", **place, "text": "Another answer."},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": done},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]
