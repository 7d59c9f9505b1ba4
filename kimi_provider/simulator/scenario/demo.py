"""The answer when no scenario is asked for: a chat that reads like one, at natural speed (settings: `pace`)."""

from __future__ import annotations

from .. import reply
from ..playing import Pause, Script
from ..state import NATURAL_PAUSE_S
from ..turn import HEARTBEAT, Turn
from .answers import search_result, stage, stages_open, tool_call
from .row import Params, Scenario

_CARD = {
    "title": "About this simulator",
    "url": "https://example.com/simulator",
    "siteName": "Example",
    "snippet": "A simulator searches nothing.",
    "publishTime": "2026-09-01",
}
_MARK = "\ue3a0cite\ue3a3web_search:1#0\ue3a8"


def _demo(turn: Turn, params: Params) -> Script:
    call = turn.call
    prompt = reply.understand(call.text, system_prompt=call.system_prompt, earlier=turn.earlier_prompts())
    prompt = reply.with_files(prompt, turn.files(), turn.earlier_files())
    yield from turn.opening()
    if call.thinking or call.searches:
        yield from stages_open(turn)
    if call.thinking:
        for piece in reply.thoughts(prompt):
            yield turn.think(piece, "3", "2")
            yield from _beat(turn)
    if call.searches:
        result = search_result(0, _CARD)
        query = reply.query(prompt)
        yield from tool_call(turn, "web_search", [query[:12], query[12:]], [{"searchResult": result}])
        yield turn.refs("append", "searchChunks", [result])
        yield from _beat(turn)
    if call.thinking or call.searches:
        yield stage(turn, "END")
    for piece in reply.pieces(reply.answer(prompt, citation=_MARK if call.searches else "")):
        yield turn.text(piece, "5")
        yield from _beat(turn)
    yield HEARTBEAT
    if call.searches:
        yield turn.refs("set", "usedSearchChunks", [{"id": "r1", "refIndex": "web_search:1#0"}])
    yield from turn.closing(name=" ".join(prompt.newest.split()[:6]))


def _beat(turn: Turn) -> Script:
    if turn.simulator.settings.pace:
        yield Pause(seconds=NATURAL_PAUSE_S * turn.simulator.settings.pace)


TABLE = (Scenario(name="demo", description="the default: a friendly answer that begins with [simulator]", play=_demo),)
