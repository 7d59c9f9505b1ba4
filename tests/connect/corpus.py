"""Streams to break: the golden turns, turns made of the rarer shapes, and mutations of both from one seed."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Iterator
from typing import Any

import orjson

from .frames import ASSISTANT, CHAT, COMPLETED, ECHO, END, GOLDEN, OPENING, env, golden, split, text, think, tool

SEED = 20260901

S, M, E = "\ue3a0", "\ue3a3", "\ue3a8"
CARD = {"id": "r", "refIndex": "web_search:1#0", "base": {"url": "https://a.example/", "title": "A"}}
OVERLOADED = {"id": "9", "exception": {"error": {"reason": "REASON_COMPLETION_OVERLOADED"}}}
FILTERED = {"id": "9", "exception": {"error": {"reason": "REASON_CONTENT_FILTERED"}}}


def _numbered(frames: list[dict[str, Any]]) -> list[bytes]:
    return [env({**frame, "eventOffset": number}) for number, frame in enumerate(frames)]


_ASKED = json.dumps(
    {"questions": [0, {"question": "Which?", "options": [1, {"option": "A", "description": "a", "recommended": True}]}]}
)


def _rare() -> list[bytes]:
    """Whole turns of what the golden ones do not show (protocol C.4-C.7)."""
    opening: list[dict[str, Any]] = [CHAT, ECHO, ASSISTANT]
    refs = {"message": {"id": "m-asst", "refs": {"searchChunks": [CARD], "usedSearchChunks": [CARD]}}}
    whole = {"id": "5", "text": {"content": "Hello"}}
    turns: list[list[dict[str, Any]]] = [
        [
            text("a"),
            text("b"),
            think("c"),
            think("d"),
            text("e"),
            think("f", "7"),
            think("g"),
            text("h", "8"),
            text("i"),
        ],
        [text("Hello"), text("He", op="set"), text("l"), text("lo you"), text("other", op="set"), text("!")],
        [refs, text(f"x{S}cite{M}web_search:1#0{E}"), text("y["), text("[web_search:1#0]]"), text("z[^web_sea")],
        [refs, text(f"x{S}cite{M}web_search:1#0\ny{S}"), text(f"z{M}w"), text(f"{S}cite{M} {E}"), text("[[n]] [^9^]")],
        [refs, text(f"x{S}cite{M}web_search:1#0" + "a" * 500), text("[^" + "1" * 500), text(f"q{S}cite{M}今{S}")],
        [
            tool({"name": "web_search", "args": '{"queries":["a"'}),
            tool({"args": '"]}'}, op="append"),
            tool({"contents": [{}]}),
        ],
        [text("Well."), tool({"name": "ask_user", "args": _ASKED, "status": "STATUS_RUNNING"})],
        [
            tool({"toolCallId": "shell:1", "status": "STATUS_FAILED"}),
            tool({"args": "["}, op="append"),
            tool({"args": "]"}, op="append"),
        ],
        [
            tool({"name": "web_search", "args": "[", "status": "STATUS_RUNNING"}),
            tool({"status": "NEW"}),
            tool({"errorCode": 1}),
        ],
        [
            {"block": {"id": "0_1", "search": {"keywords": ["q"], "webPages": [{"url": "https://b.example/"}] * 2}}},
            text("[^2^]"),
        ],
        [
            text("x"),
            {"message": {"id": "m-2", "role": "assistant"}},
            text("y"),
            {**text("z"), "block": {"id": "5", "messageId": "m-asst", **whole}},
        ],
        [text("x"), {"message": {"id": "m-asst", "blocks": [whole, None, FILTERED, whole]}}],
        [{"message": {"id": "m-asst", "blocks": [OVERLOADED]}}],
        [
            {"block": {"id": "5", "text": {"content": "t", "flags": ["thinking"]}}},
            {"block": {"id": "5", "text": {"flags": "x"}}},
            text("u"),
        ],
        [text("x"), {"notification": {"type": "TYPE_CONTENT_FILTER", "message": "m"}}],
        [
            {"notification": {"source": "new", "message": "m"}},
            {"block": {"id": "1", "stage": {}, "new": {}}},
            text("x"),
        ],
        [{"exception": {"error": {"reason": "R"}}}],
        [{"error": {"code": "internal"}}],
    ]
    ends = [
        env({"done": {}}) + END,
        env(COMPLETED),
        env({"error": {}}, 2),
        env(b"", 2),
        env({"error": {"code": "internal"}}, 2),
    ]
    streams = [b"".join(_numbered([*opening, *turn])) + ends[n % len(ends)] for n, turn in enumerate(turns)]
    streams += [b"".join(map(env, [*opening, *turn])) + END for turn in turns]
    named = {"id": "1", "messageId": "m-asst", "text": {"content": "early"}}
    streams += [
        env({"block": named}) + env(text("no")) + OPENING + END,
        env(ECHO) + env({"block": {**named, "messageId": "m-user"}}) + env({"block": named}) + END,
        env({"message": {"role": "assistant"}}) + env(text("x")) + END,
        OPENING + env(b"not json") + env(b"[]") + env(b"") + env(gzip.compress(b'{"heartbeat":{}}'), 1) + END,
        OPENING + env(text("x")) + env({"error": {"code": "internal"}}, 0x80),
        OPENING + env(text("x")) + env(b"not json", 2),
        OPENING + env(text("x")) + env(b"not gzip", 1),
        OPENING + env(b"", 1) + env(text("x")) + END,
        OPENING + env(text("x")) + env(gzip.compress(b"{}")[:-1], 1),
        OPENING + env(text("x")) + env(gzip.compress(bytes(9_000_000)), 1),
        env(text("x" * 7_000_000)) * 2,
        b"\x00\xff\xff\xff\xff",
    ]
    return streams


def originals() -> list[bytes]:
    """Every stream that is mutated."""
    return [golden(path.stem) for path in sorted(GOLDEN.glob("[!b]*.bin")) if not path.stem.endswith("-http")] + _rare()


_VALUES: list[Any] = [
    None,
    0,
    -1,
    7,
    1.5,
    10**18,
    True,
    False,
    "",
    "x",
    "[^1^]",
    "\ue3a0",
    [],
    {},
    ["x"],
    [None],
    {"x": 1},
]

_Frame = tuple[int, bytes, Any, list[tuple[Any, ...]]]


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from _paths(inner, (*at, key))


def _parsed(stream: bytes) -> list[_Frame]:
    frames: list[_Frame] = []
    for flag, payload in split(stream):
        try:
            value = json.loads(payload)
        except ValueError:
            value = None
        frames.append((flag, payload, value, list(_paths(value))))
    return frames


def mutations(count: int, seed: int = SEED) -> Iterator[list[bytes]]:
    """`count` broken streams, each as the chunks it arrives in."""
    dice = random.Random(seed)
    sources = [_parsed(stream) for stream in originals() if len(stream) < 20_000 and stream[1] == 0]
    for _ in range(count):
        frames = dice.choice(sources).copy()
        raw: dict[int, bytes] = {}
        for _ in range(dice.choice((1, 1, 2, 3))):
            at = dice.randrange(len(frames)) if frames else -1
            kind = dice.randrange(8) if frames else 7
            flag, payload, value, paths = frames[at] if frames else (0, b"", None, [])
            if kind == 0:
                frames[at] = (dice.choice((0, 1, 2, 3, 0x80, 0x82, dice.randrange(256))), payload, value, paths)
            elif kind == 1:
                wrong = max(0, len(payload) + dice.choice((-5, -1, 1, 5, 300, 2**31)))
                raw[id(frames[at])] = bytes([flag]) + wrong.to_bytes(4, "big") + payload
            elif kind in (2, 3, 4) and paths:
                path = dice.choice(paths)
                changed = copy.deepcopy(value)
                inner = changed
                for step in path[:-1]:
                    inner = inner[step]
                if dice.random() < 0.2:
                    del inner[path[-1]]
                else:
                    inner[path[-1]] = dice.choice(_VALUES)
                frames[at] = (flag, orjson.dumps(changed), changed, list(_paths(changed)))
            elif kind == 5:
                frames.pop(at)
            elif kind == 6:
                frames.insert(dice.randrange(len(frames) + 1), frames[at])
            elif frames:
                other = dice.randrange(len(frames))
                frames[at], frames[other] = frames[other], frames[at]
        stream = b"".join(raw.get(id(frame)) or env(frame[1], frame[0]) for frame in frames)
        fate = dice.random()
        if fate < 0.1:
            stream = stream[: dice.randrange(len(stream) + 1)]
        elif fate < 0.2 and stream:
            at = dice.randrange(len(stream))
            stream = stream[:at] + bytes([dice.randrange(256)]) + stream[at + 1 :]
        cut = dice.randrange(len(stream) + 1)
        yield [stream[:cut], stream[cut:]]
