"""What an agent uploads to the service: a loop of 30 turns that reads, edits and runs, with results of 4 KB.

Once with the whole history in each message, once going on in the chat it began (KIMI_CONTINUE). Bytes of the request
bodies are counted by the simulator; they are the same on every machine.
"""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import orjson

from .files import Service
from .processes import KEY, Gateway

TURNS = 30
RESULT_BYTES = 4096

_CONFIG = """
model_list: [{model_name: kimi, litellm_params: {model: kimi/kimi-latest}}]
litellm_settings:
  drop_params: true
  custom_provider_map: [{provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler}]
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}
"""
_ARGUMENTS = {
    "read_file": {"path": "src/app.py"},
    "edit_file": {"path": "src/app.py", "old": "x = 1", "new": "x = 2"},
    "run": {"command": "pytest -q"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Bytes that each turn uploads."""

    continuing: tuple[int, ...]
    flattening: tuple[int, ...]

    def plot(self) -> str:
        """Both as characters, a column for each turn."""
        top = max(self.flattening)
        lines = ["upload of each turn, KB: o the whole history, * going on in the chat"]
        for step in range(_PLOT_LINES, 0, -1):
            points = (
                "o" if _line_of(whole, top) == step else "*" if _line_of(tail, top) == step else " "
                for whole, tail in zip(self.flattening, self.continuing, strict=True)
            )
            lines.append(f"{top * step / _PLOT_LINES / 1024:6.0f} |{''.join(points)}")
        lines.append(f"  turn 1{len(self.flattening):>{len(self.flattening)}}")
        return "\n".join(lines)


_PLOT_LINES = 12


def _line_of(value: int, top: int) -> int:
    return max(1, round(value / top * _PLOT_LINES))


def measured(folder: Path, service: Service) -> Curves:
    """Two loops, each through a proxy of its own."""
    return Curves(flattening=_loop(folder, service, "off"), continuing=_loop(folder, service, "auto"))


def _loop(folder: Path, service: Service, mode: str) -> tuple[int, ...]:
    names = list(islice(cycle(_ARGUMENTS), TURNS - 1))
    for name in names:
        service.call("scenario", {"name": "say", "params": {"text": _written(name)}, "times": 1})
    service.call("scenario", {"name": "say", "params": {"text": "Done."}, "times": 1})
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Make the tests pass."}]
    with Gateway(folder, service, text=_CONFIG, KIMI_CONTINUE=mode) as gateway:
        gateway.wait_until_alive()
        for number in range(TURNS):
            message = _ask(gateway.port, messages)
            calls = message.get("tool_calls") or []
            if len(calls) != (number < TURNS - 1):
                raise RuntimeError(f"turn {number + 1}: {message}")
            messages.append(message)
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": _result(number)} for call in calls]
    return tuple(call["uploaded_bytes"] for call in service.state()["calls"][-TURNS:])


def _ask(port: int, messages: list[dict[str, Any]]) -> dict[str, Any]:
    tools = [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": "A tool for the files of a project.",
                "parameters": {
                    "type": "object",
                    "properties": {key: {"type": "string"} for key in arguments},
                    "required": list(arguments),
                },
            },
        }
        for name, arguments in _ARGUMENTS.items()
    ]
    body = orjson.dumps({"model": "kimi", "messages": messages, "tools": tools})
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body)
    request.add_header("content-type", "application/json")
    request.add_header("authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(request, timeout=120) as answer:
        message: dict[str, Any] = orjson.loads(answer.read())["choices"][0]["message"]
        return message


def _written(name: str) -> str:
    """A call as the model writes it."""
    parameters = "".join(f'<parameter name="{key}">{value}</parameter>' for key, value in _ARGUMENTS[name].items())
    return f'<function_calls><invoke name="{name}">{parameters}</invoke></function_calls>'


def _result(number: int) -> str:
    return (f"line of result {number}\n" * (RESULT_BYTES // 10))[:RESULT_BYTES]
