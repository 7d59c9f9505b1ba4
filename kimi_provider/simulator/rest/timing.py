"""Legacy answers whose point is time or volume, under the names and parameters of the Connect table."""

from __future__ import annotations

import itertools
import time

from ..playing import Pause, Script
from ..scenario.row import Params, Scenario
from ..scenario.timing import KEPT_CHARS
from .turn import RestTurn, sse

COMMENT = b": keep-alive\n\n"


def _heartbeats_only(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    for beat in itertools.cycle((COMMENT, sse({"event": "ping"}), sse({"event": "loading"}))):
        yield beat
        yield Pause(seconds=params.number("every_s"))


def _slow(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Before the pause, ")
    left_s, every_s = params.number("pause_s"), params.number("heartbeat_s")
    while every_s and left_s > every_s:
        yield Pause(seconds=every_s)
        yield COMMENT
        left_s -= every_s
    yield Pause(seconds=left_s)
    yield turn.text("after the pause.")
    yield from turn.closing()


def _hang_before_headers(turn: RestTurn, params: Params) -> Script:
    yield Pause(seconds=params.number("for_s") or None, before_headers=True)
    yield from _short(turn)


def _hang_before_first_frame(turn: RestTurn, params: Params) -> Script:
    yield Pause(seconds=params.number("for_s") or None)
    yield from _short(turn)


def _hang_mid_text(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Then silence")
    yield Pause(seconds=params.number("for_s") or None)
    yield from turn.closing()


def _short(turn: RestTurn) -> Script:
    yield from turn.opening()
    yield turn.text("Late, but here.")
    yield from turn.closing()


def _fast(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    frames, chars, rate = params.count("frames"), params.count("chars"), params.number("rate")
    batch = max(1, params.count("batch"))
    content = ("benchmark " * (chars // 10 + 1))[:chars]
    yield turn.text("")
    piece = sse({"event": "cmpl", "idx_s": 0, "idx_z": 0, "text": content, "view": "cmpl"})
    began_s = time.monotonic()
    for first in range(0, frames, batch):
        yield piece * min(batch, frames - first)
        if rate:
            yield Pause(seconds=max(0.0, began_s + (first + batch) / rate - time.monotonic()))
    # Benchmarks ask for gigabytes; the chat keeps the beginning only.
    turn.answer.blocks[-1]["text"]["content"] = content * min(frames, 1 + KEPT_CHARS // max(1, chars))
    yield from turn.closing()


def _say(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    for name, write in (("think", turn.think), ("text", turn.text)):
        words, size = params.text(name), params.count("piece") or len(params.text(name)) or 1
        for at in range(0, len(words), size):
            yield write(words[at : at + size])
            if params.number("every_s"):
                yield Pause(seconds=params.number("every_s"))
    yield from turn.closing()


def _echo(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text(turn.call.text)
    yield from turn.closing()


TABLE: tuple[Scenario[RestTurn], ...] = (
    Scenario(
        name="heartbeats_only",
        description="opening, then comments, ping and loading for ever",
        play=_heartbeats_only,
        params={"every_s": 0.2},
    ),
    Scenario(
        name="slow",
        description="a pause in the answer, with comments every heartbeat_s if not 0",
        play=_slow,
        params={"pause_s": 2.0, "heartbeat_s": 0.0},
    ),
    Scenario(
        name="hang_before_headers",
        description="no answer at all for for_s (0: for ever)",
        play=_hang_before_headers,
        params={"for_s": 0.0},
    ),
    Scenario(
        name="hang_before_first_frame",
        description="headers, then nothing for for_s (0: for ever)",
        play=_hang_before_first_frame,
        params={"for_s": 0.0},
    ),
    Scenario(
        name="hang_mid_text",
        description="silence after the first text for for_s (0: for ever)",
        play=_hang_mid_text,
        params={"for_s": 0.0},
    ),
    Scenario(
        name="fast",
        description="a long stream: rate events a second (0: as fast as it goes), batch events per send",
        play=_fast,
        params={"frames": 1000, "chars": 20, "rate": 0.0, "batch": 1},
    ),
    Scenario(
        name="say",
        description="given text (and thinking) in pieces of `piece` characters (0: whole)",
        play=_say,
        params={"text": "Hello.", "think": "", "piece": 0, "every_s": 0.0},
    ),
    Scenario(name="echo", description="repeats the prompt", play=_echo),
)
