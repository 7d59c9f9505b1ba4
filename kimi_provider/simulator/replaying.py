"""Plays a recording of the service (docs/doctor.md): what it answered then, in place of what the simulator makes up.

A chat call gets the recorded answer whose request asked for the same thing (scenario, model, agent, search, thinking,
new or continued), one after the other when there are several, then the last one again; a call that is not in the
recording is refused with what is. Ids are made anew for each answer, so that a chat can be removed or gone on with. Of
other calls the failures are played, and the answers that only tell something; what makes or changes state is the
simulator's own, because a recording has no credential and no state.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..recordings import PLACEHOLDER, Call, Frame, Recording
from . import envelopes
from .playing import Abort, HttpAnswer, Script
from .refusals import UNARY_TYPE, Refusal
from .scenario.row import Params, Scenario
from .settings import SimulatorSettings
from .state import Simulator
from .tokens import new_xid

CallT = TypeVar("CallT")

#: Answers that tell something and change nothing: played also when they are no failures.
_TELLING: Final = ("/GetAvailableModels", "/GetCurrentUser", "/api/user", "/api/chat/research/usage")
_FILLER: Final = b"x"


class Asking(Protocol):
    """What a recorded answer needs of a turn of either protocol."""

    simulator: Simulator
    media_type: str
    call: Any
    chat: Any
    answer: Any

    def opening(self) -> Any: ...  # noqa: D102  # its name says it

    def refused(self, refusal: Refusal, **headers: str) -> HttpAnswer: ...  # noqa: D102  # its name says it


def recorded_row(
    path_end: str,
    read: Callable[[dict[str, Any], SimulatorSettings], CallT],
    wish: Callable[[CallT], tuple[object, ...]],
) -> Scenario[Any]:
    """The row that plays a protocol's chat calls; `wish` is what a call asks for, as far as it chooses the answer."""

    def play(turn: Asking, params: Params) -> Script:
        simulator = turn.simulator
        if simulator.recording is None:
            yield turn.refused(Refusal("invalid_argument", "no recording is being played"))
            return
        calls = [call for call in simulator.recording.calls if call.path.endswith(path_end)]
        if number := params.count("call"):
            fitting = [call for call in calls if call is simulator.recording.calls[number - 1]]
        else:
            asked = wish(turn.call)
            fitting = [call for call in calls if wish(read(call.request, simulator.settings)) == asked]
        if not fitting:
            known = ", ".join(dict.fromkeys(call.model or call.call for call in calls)) or "no chat"
            yield turn.refused(Refusal("invalid_argument", f"the recording has no such call; it has {known}"))
            return
        yield from _answer(turn, fitting[_turn_of(simulator, (path_end, number, *map(id, fitting)), len(fitting))])

    return Scenario(
        name="recorded",
        description="a recorded answer: call=N of the file, 0: the one that was asked for alike",
        play=play,
        params={"call": 0},
    )


def _turn_of(simulator: Simulator, key: tuple[object, ...], count: int) -> int:
    """Which of `count` answers is next; the last one stays."""
    at = simulator.played[key]
    simulator.played[key] += 1
    return min(at, count - 1)


def _answer(turn: Asking, call: Call) -> Script:
    if call.status != 200 or call.type != turn.media_type:
        yield HttpAnswer(status=call.status, body=_body(call), media_type=call.type)
        return
    ids: dict[str, str] = {}
    chat_id, answer_id = _own_ids(call.frames)
    if answer_id is not None:
        for _ in turn.opening():
            pass  # the chat keeps the exchange as it keeps any other; what is sent is the recording
        ids = {answer_id: turn.answer.id}
    if chat_id is not None:
        ids[chat_id] = turn.chat.id
    for frame in call.frames:
        yield _sent(frame, ids)
    if call.bytes_ is not None:
        yield _body(call)
    if call.cut:
        yield Abort()


def _own_ids(frames: tuple[Frame, ...]) -> tuple[str | None, str | None]:
    """Ids of the chat and of the assistant's message, in either protocol's frames (protocol B.5, C.5)."""
    chat_id = answer_id = None
    for frame in frames:
        value = frame.json_ if isinstance(frame.json_, dict) else {}
        chat, message = value.get("chat"), value.get("message")
        if isinstance(chat, dict):
            chat_id = chat_id or chat.get("id")
        if isinstance(message, dict) and message.get("role") == "assistant":
            answer_id = answer_id or message.get("id")
        if value.get("event") == "resp":
            answer_id = answer_id or value.get("id")
    return chat_id, answer_id


def _sent(frame: Frame, ids: dict[str, str]) -> bytes:
    """The bytes of a frame, ids made anew."""
    if frame.bytes_ is not None:
        payload = _FILLER * frame.bytes_
    else:
        payload = PLACEHOLDER.sub(lambda found: _fresh(found[0], ids), orjson.dumps(frame.json_).decode()).encode()
    if frame.flag is None:
        return b"data: " + payload + b"\n\n"
    return envelopes.envelope(frame.flag & ~envelopes.GZIPPED, payload)


def _fresh(placeholder: str, ids: dict[str, str]) -> str:
    if placeholder not in ids:
        shapes = {36: lambda: str(uuid.uuid4()), 20: new_xid}
        ids[placeholder] = shapes.get(len(placeholder), lambda: placeholder)()
    return ids[placeholder]


def _body(call: Call) -> bytes:
    return _FILLER * call.bytes_ if call.bytes_ is not None else b"" if call.body is None else orjson.dumps(call.body)


class Replayer:
    """Wraps the application: recorded answers to calls that are no chats."""

    def __init__(self, app: ASGIApp, simulator: Simulator) -> None:
        self._app = app
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        recording = self._simulator.recording
        fitting = [] if recording is None or scope["type"] != "http" else _recorded(recording, scope)
        if not fitting:
            await self._app(scope, receive, send)
            return
        call = fitting[_turn_of(self._simulator, (scope["method"], scope["path"]), len(fitting))]
        if call.status == 200 and not call.path.endswith(_TELLING):
            await self._app(scope, receive, send)
            return
        refused = False

        async def instead(message: Message) -> None:
            """The simulator's own refusal stays: it says that the credential is wrong, which no recording knows."""
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = message["status"] == 401
            if refused:
                await send(message)

        await self._app(scope, receive, instead)
        if not refused:
            headers = [(b"content-type", (call.type or UNARY_TYPE).encode())]
            await send({"type": "http.response.start", "status": call.status, "headers": headers})
            await send({"type": "http.response.body", "body": _body(call)})


def _recorded(recording: Recording, scope: Scope) -> list[Call]:
    """Calls of that method and path, whatever ids are in it."""
    return [
        call
        for call in recording.calls
        if call.model is None and call.method == scope["method"] and _pattern(call.path).fullmatch(scope["path"])
    ]


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("/".join("[^/]+" if PLACEHOLDER.fullmatch(part) else re.escape(part) for part in path.split("/")))
