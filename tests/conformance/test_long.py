"""An answer longer than the service's output cap comes in pieces there, and is one answer here (protocol B.5)."""

from __future__ import annotations

import pytest

from .surfaces import Surface, ask, asking
from .world import World

pytestmark = pytest.mark.parametrize("protocol", ["rest"])  # the other protocol has no such cut

PIECES, LINES = 3, 40
WHOLE = "".join(f"{n}. Line {n} of {PIECES * LINES}.\n" for n in range(1, PIECES * LINES + 1))


@pytest.mark.parametrize("ends", [0, 1])
@pytest.mark.parametrize("new_segment", [0, 1])
async def test_a_cut_answer_is_one(world: World, surface: Surface, stream: bool, new_segment: int, ends: int) -> None:
    before = world.state["total_streams"]
    world.play("long", pieces=PIECES, lines=LINES, new_segment=new_segment, ends=ends)
    answer = await ask(surface, asking("Write a lot."), stream=stream)
    assert answer.text == WHOLE
    assert answer.finish == "stop"
    assert world.state["total_streams"] - before == PIECES
