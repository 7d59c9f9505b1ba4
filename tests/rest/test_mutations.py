"""Broken streams: only KimiErrors or a proper end, in bounded time."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_provider.events import Finished, TextDelta, ThinkingDelta

from .frames import END, GOLDEN, REQ, RESP, decode, error, found, frame, golden, text

MUTATIONS = 20_000

RARE: list[object] = [
    REQ, RESP, END, text("Hi"), text("[^1^] [^"), text("[[1]]"), text("\ue3a0cite\ue3a3web_search:1#0\ue3a8"),
    found("https://a.example/"), found("x", ref_id=3), error("chat.forbidden"), error("x", "content filter"),
    {"event": "length"}, {"event": "done"}, {"event": "zone_set", "zone_type": "thinking"},
    {"event": "ref_docs", "ref_cards": [{"url": "https://b.example/", "title": "B"}]}, {"event": "k1", "text": "k"},
    {"error_type": "auth.token.invalid"}, b"\xff", b"{", b"a\ndata: b",
]  # fmt: skip
VALUES: list[Any] = [None, 0, -1, 1e300, "", "x", [], {}, [[]], [{}], {"a": 1}, True, "\x00", "[^1^]", "error", "cmpl"]


def mutations(count: int, seed: int = 5) -> Iterator[list[bytes]]:
    dice = random.Random(seed)
    streams = [golden(path.stem) for path in sorted(GOLDEN.glob("b5-*.bin")) if not path.stem.endswith("-http")]
    for _ in range(count):
        kind = dice.randrange(5)
        if kind == 0:  # frames of any kind in any order
            picked = [frame(dice.choice(RARE), dice.choice([b"\n", b"\r\n"])) for _ in range(dice.randrange(12))]
            stream = bytearray(b"".join(picked))
        elif kind == 1:  # a value of another type
            stream = bytearray()
            for line in dice.choice(streams).split(b"\n\n"):
                data = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if data and dice.random() < 0.3:
                    _change(data, dice)
                stream += frame(data)
        else:
            stream = bytearray(dice.choice(streams))
        if kind >= 2:
            for _ in range(dice.randrange(1, 5)):
                _damage(stream, dice)
        at = dice.randrange(len(stream) + 1)
        yield [bytes(stream[:at]), bytes(stream[at:])]


def _change(data: dict[str, Any], dice: random.Random) -> None:
    name = dice.choice(list(data))
    if isinstance(data[name], dict) and data[name] and dice.random() < 0.7:
        _change(data[name], dice)
    else:
        data[name] = dice.choice(VALUES)


def _damage(stream: bytearray, dice: random.Random) -> None:
    if not stream:
        return
    at, size = dice.randrange(len(stream)), dice.randrange(1, 40)
    match dice.randrange(5):
        case 0:
            stream[at] = dice.randrange(256)
        case 1:
            del stream[at : at + size]
        case 2:
            stream[at:at] = stream[at : at + size]
        case 3:
            del stream[at:]
        case 4:
            stream[at:at] = dice.choice([b"\n", b"\r", b"\n\n", b"data: ", b":", b"\xe6\x9d", b"\x00", b'"', b"}"])


@pytest.mark.timeout(900)  # many; none of them may hang
def test_nothing_but_kimi_errors_and_proper_ends() -> None:
    ended = failed = 0
    for chunks in mutations(MUTATIONS):
        events, error = decode(chunks)
        finishes = sum(isinstance(event, Finished) for event in events)
        if error is None:
            assert finishes == 1
            assert isinstance(events[-1], Finished)
            assert any(isinstance(event, TextDelta | ThinkingDelta) for event in events)
            ended += 1
        else:
            assert finishes == 0
            failed += 1
        spoken = sum(len(event.text) for event in events if isinstance(event, TextDelta | ThinkingDelta))
        assert spoken <= sum(map(len, chunks))
    # The mutations are neither all harmless nor all fatal.
    assert ended > MUTATIONS // 20
    assert failed > MUTATIONS // 20


def test_the_cut_changes_nothing() -> None:
    for chunks in mutations(1_000, seed=7):
        stream = b"".join(chunks)
        whole = decode([stream])
        assert decode(chunks) == whole
        assert decode(bytes([byte]) for byte in stream) == whole
