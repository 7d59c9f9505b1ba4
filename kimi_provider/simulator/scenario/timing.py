"""Answers on either protocol whose point is time, volume or memory: silence, floods, chosen text, what is known."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from ..playing import Pause, Script
from .row import Params, Scenario, TurnT
from .speaker import Speaker

KEPT_CHARS = 65536


def _heartbeats_only(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    while True:
        yield turn.heartbeat()
        yield Pause(seconds=params.number("every_s"))


def _slow(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Before the pause, ")
    left_s, every_s = params.number("pause_s"), params.number("heartbeat_s")
    while every_s and left_s > every_s:
        yield Pause(seconds=every_s)
        yield turn.heartbeat()
        left_s -= every_s
    yield Pause(seconds=left_s)
    yield turn.text("after the pause.")
    yield from turn.closing()


def _hang_before_headers(turn: Speaker, params: Params) -> Script:
    yield Pause(seconds=params.number("for_s") or None, before_headers=True)
    yield from _short(turn)


def _hang_before_first_frame(turn: Speaker, params: Params) -> Script:
    yield Pause(seconds=params.number("for_s") or None)
    yield from _short(turn)


def _hang_mid_text(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Then silence")
    yield Pause(seconds=params.number("for_s") or None)
    yield from turn.closing()


def _short(turn: Speaker) -> Script:
    yield from turn.opening()
    yield turn.text("Late, but here.")
    yield from turn.closing()


def _fast(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    frames, chars, rate = params.count("frames"), params.count("chars"), params.number("rate")
    batch = max(1, params.count("batch"))
    content = ("benchmark " * (chars // 10 + 1))[:chars]
    yield turn.text("")
    pieces = turn.repeating(content)
    began_s = time.monotonic()
    for sent in range(0, frames, batch):
        yield pieces(min(batch, frames - sent))
        if rate:
            yield Pause(seconds=max(0.0, began_s + (sent + batch) / rate - time.monotonic()))
    # Benchmarks ask for gigabytes; the chat keeps the beginning only.
    turn.answer.blocks[-1]["text"]["content"] = content * min(frames, 1 + KEPT_CHARS // max(1, chars))
    yield from turn.closing()


def _say(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    for name, write in (("think", turn.think), ("text", turn.text)):
        words, cut = params.text(name), params.count("cut")
        size = params.count("piece") or len(words) or 1
        pieces = [words[:cut], words[cut:]] if cut else [words[at : at + size] for at in range(0, len(words), size)]
        for piece in filter(None, pieces):
            yield write(piece)
            if params.number("every_s"):
                yield Pause(seconds=params.number("every_s"))
    yield from turn.closing()


def _recall(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    found = re.findall(re.escape(params.text("word")) + r" [\w-]+", turn.view())
    yield turn.text("\n".join(found) or "Nothing.")
    yield from turn.closing()


def split_of(table: Callable[[], Mapping[str, Scenario[TurnT]]]) -> Scenario[TurnT]:
    """`split`: another scenario's bytes in pieces of `size`, each a body message of its own."""

    def play(turn: TurnT, params: Params) -> Script:
        row, size = table()[params.text("of")], max(1, params.count("size"))
        # Cut across frame borders, too: a piece may hold the end of one frame and the start of the next.
        held = b""
        for step in row.play(turn, row.checked({})):
            if not isinstance(step, bytes):
                yield step
                continue
            held += step
            whole = len(held) - len(held) % size
            yield from (held[at : at + size] for at in range(0, whole, size))
            held = held[whole:]
        if held:
            yield held

    return Scenario(
        name="split",
        description="scenario `of` cut into pieces of `size` bytes, inside heads, characters and marks",
        play=play,
        params={"size": 1, "of": "search_turn"},
    )


TABLE: tuple[Scenario[Speaker], ...] = (
    Scenario(
        name="heartbeats_only",
        description="opening, then heartbeats for ever",
        play=_heartbeats_only,
        params={"every_s": 0.2},
    ),
    Scenario(
        name="slow",
        description="a pause in the answer, with heartbeats every heartbeat_s if not 0",
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
        description="a long stream: rate frames a second (0: as fast as it goes), batch frames per send",
        play=_fast,
        params={"frames": 1000, "chars": 20, "rate": 0.0, "batch": 1},
    ),
    Scenario(
        name="say",
        description="given text (and thinking) in pieces of `piece` characters (0: whole), or in two, cut behind `cut`",
        play=_say,
        params={"text": "Hello.", "think": "", "piece": 0, "cut": 0, "every_s": 0.0},
    ),
    Scenario(
        name="recall",
        description="what the model sees in this chat: `word` and the word after it wherever they stand, one a line",
        play=_recall,
        params={"word": "note"},
    ),
)
