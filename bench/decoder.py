"""The decoder alone, beside the least that any reader of these bytes must do: slice frames, parse JSON.

The bytes are written by the simulator and arrive in pieces of 16 KiB. Microseconds per frame, best of a few runs, so
that other work on the machine does not count.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from kimi_provider.protocols.connect.wire import ChatDecoder
from kimi_provider.simulator import Simulator
from kimi_provider.simulator.call import read_call
from kimi_provider.simulator.scenario.answers import OSLO_CARD, TOOL_DONE, TOOL_RUNS, search_result, stages_open
from kimi_provider.simulator.streams import RunningStream
from kimi_provider.simulator.turn import HEARTBEAT, Turn
from kimi_provider.upstream import Upstream

from .plan import words

FRAMES = 5000
PIECE_BYTES = 16 * 1024
RUNS = 5


def plain() -> list[bytes]:
    """A long text answer: the frames of it."""
    turn = _turn()
    return [*turn.opening(), *(turn.text(word) for word in words(FRAMES)), *turn.closing()]


def mixed() -> list[bytes]:
    """Thinking, a search, its sources, text with citation marks cut in two, heartbeats; over and over."""
    turn = _turn()
    stages = (step for step in stages_open(turn) if isinstance(step, bytes))
    return [*turn.opening(), *stages, *_sections(turn), *turn.closing()]


def _sections(turn: Turn) -> Iterator[bytes]:
    spoken = iter(words(FRAMES))
    for section in range(FRAMES // 48):
        for _ in range(15):
            yield turn.think(next(spoken), f"think-{section}", "2")
        found = []
        for number in range(section * 3, section * 3 + 3):
            card = {**OSLO_CARD, "url": f"https://example.com/{number}", "title": f"Page {number}"}
            found.append({"searchResult": search_result(number, card)})
        yield from _search(turn, section, found)
        yield HEARTBEAT
        for n in range(24):
            if n % 8 == 3:
                yield turn.text(f"{next(spoken)}\ue3a0cite\ue3a3web_sea", "5")
            elif n % 8 == 4:
                yield turn.text(f"rch:1#{section * 3 + n // 8}\ue3a8", "5")
            else:
                yield turn.text(next(spoken) + ("ångström " if n % 5 == 0 else ""), "5")
        yield HEARTBEAT
        yield turn.refs("append", "searchChunks", [found[0]["searchResult"]])
        yield HEARTBEAT
        yield HEARTBEAT


def _search(turn: Turn, section: int, found: list[dict[str, Any]]) -> Iterator[bytes]:
    """Five frames of a native tool, a block of its own each time (protocol C.6)."""
    block_id, args = f"tool-{section}", ('{"queries":["', f'words {section}"]}}')
    call = {"toolCallId": f"web_search_{section}", "name": "web_search", "status": "STATUS_PENDING"}
    yield turn.block("set", None, {"id": block_id, "parentId": "2", "tool": call})
    for piece in args:
        yield turn.block("append", "block.tool.args", {"id": block_id, "tool": {"args": piece}})
    running = {"toolCallId": f"web_search:{section}", "args": "".join(args), "status": "STATUS_RUNNING"}
    yield turn.block("set", TOOL_RUNS, {"id": block_id, "tool": running})
    yield turn.block("set", TOOL_DONE, {"id": block_id, "tool": {"contents": found, "status": "STATUS_DONE"}})


def _turn() -> Turn:
    simulator = Simulator()
    simulator.accounts.login(user="bench", access_ttl_s=60, refresh_ttl_s=60)
    account = next(iter(simulator.accounts._by_sub.values()))
    prompt = {"role": "user", "blocks": [{"text": {"content": "Bench"}}], "scenario": "SCENARIO_K2D5"}
    call = read_call({"scenario": "SCENARIO_K2D5", "message": prompt, "options": {}}, simulator.settings)
    return Turn(simulator, account, "bench", call, None, RunningStream(owner=account.sub))


def measure(frames: list[bytes]) -> tuple[float, float]:
    """Microseconds per frame: the decoder's, and those of slicing and parsing."""
    data = b"".join(frames)
    pieces = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
    upstream = Upstream.load(None)
    ours, least = [], []
    for _ in range(RUNS):
        ours.append(_timed(lambda: _decode(pieces, upstream)))
        least.append(_timed(lambda: _parse(data)))
    per_frame = 1e6 / len(frames)
    return min(ours) * per_frame, min(least) * per_frame


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _decode(pieces: list[bytes], upstream: Upstream) -> None:
    decoder = ChatDecoder(upstream)
    for piece in pieces:
        for _ in decoder.feed(piece):
            pass
    assert decoder.ended


def _parse(data: bytes) -> None:
    at, end, unpack, loads = 0, len(data), struct.Struct(">BI").unpack_from, orjson.loads
    while at < end:
        _, size = unpack(data, at)
        start, at = at + 5, at + 5 + size
        loads(data[start:at])
