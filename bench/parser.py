"""Reading calls out of an answer's text, beside merely passing the text on: `python -m bench.parser`.

Nanoseconds per character, best of a few runs, by the size of the pieces that arrive: 4 characters are a token, 400
what a busy gateway takes at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from kimi_provider.events import Event, TextDelta
from kimi_provider.request import ToolCall, ToolSpec
from kimi_provider.tools import Toolbox
from kimi_provider.upstream import Upstream

CHARS = 200_000
RUNS = 5
PROSE = "The quick brown fox jumps, over the lazy dog. Then a Test of [lists] and `code`; x < y.\n\n"
CODE = "def f(a, b):\n    return {'a': [1, 2], \"b\": a < b}  # Tested\n"
SPEC = ToolSpec(name="write", parameters={"type": "object", "properties": {"content": {"type": "string"}}})


def _best_ns(read: Callable[[str], list[Event]], pieces: list[str]) -> float:
    best = float("inf")
    for _ in range(RUNS):
        begun = time.perf_counter()
        for piece in pieces:
            read(piece)
        best = min(best, time.perf_counter() - begun)
    return best * 1e9 / sum(map(len, pieces))


def main() -> None:
    tools = Upstream.load().tools
    code = CODE * (CHARS // len(CODE))
    call = [ToolCall(id="1", name="write", arguments=json.dumps({"content": code}))]
    boxes = {name: Toolbox([SPEC], tools, dialect=name) for name in tools.dialects}
    answers = {"prose": PROSE * (CHARS // len(PROSE)), "code as text": code}
    answers |= {f"a call as {name}": box.calls_text(call) for name, box in boxes.items()}
    print(f"{'ns per character':24}" + "".join(f"{size:>10} ch" for size in (4, 40, 400)) + "    passed on")
    for label, text in answers.items():
        by_size = {size: [text[at : at + size] for at in range(0, len(text), size)] for size in (4, 40, 400)}
        found = [_best_ns(boxes["invoke"].parser().feed, pieces) for pieces in by_size.values()]
        plain = _best_ns(lambda piece: [TextDelta(piece)], by_size[40])
        print(f"{label:24}" + "".join(f"{ns:13.1f}" for ns in found) + f"{plain:13.1f}")


if __name__ == "__main__":
    main()
