"""Legacy answers that end well: the events of protocol B.5 in order, their other spellings, and the long answer.

Order: `req`, `resp`, `search_plus`, thinking, `cmpl`, `ref_docs`, `rename` in a new chat, `all_done`.
"""

from __future__ import annotations

from .. import reply
from ..playing import Pause, Script
from ..scenario.answers import OSLO
from ..scenario.row import Params, Scenario
from ..state import NATURAL_PAUSE_S
from .turn import RestTurn

_BERGEN = {"title": "Bergen forecast", "url": "https://example.com/bergen"}
_ABOUT = {"title": "About this simulator", "url": "https://example.com/simulator"}
_PIECE_CHARS = 17


def searched(turn: RestTurn, cards: list[dict[str, str]]) -> Script:
    """Search progress, one `get_res` for each source."""
    turn.found(cards)
    yield turn.event("search_plus", msg={"type": "start"})
    for number, card in enumerate(cards, 1):
        yield turn.event("search_plus", msg={"type": "get_res", "successNum": number, "snippet": "Found.", **card})
    yield turn.event("search_plus", msg={"type": "answer"})


def sources(turn: RestTurn, cards: list[dict[str, str]]) -> bytes:
    """The cards after the answer."""
    return turn.event("ref_docs", ref_cards=cards)


def _demo(turn: RestTurn, params: Params) -> Script:
    call = turn.call
    prompt = reply.understand(call.text, earlier=turn.earlier_prompts())
    prompt = reply.with_files(prompt, turn.files(), turn.earlier_files())
    yield from turn.opening()
    if call.searches:
        yield from searched(turn, [_ABOUT])
        yield from _beat(turn)
    for piece in reply.thoughts(prompt) if call.thinking else ():
        yield turn.think(piece)
        yield from _beat(turn)
    for piece in reply.pieces(reply.answer(prompt, citation="[^1^]" if call.searches else "")):
        yield turn.text(piece)
        yield from _beat(turn)
    if call.searches:
        yield sources(turn, [_ABOUT])
    yield from turn.closing(name=" ".join(prompt.newest.split()[:6]))


def _beat(turn: RestTurn) -> Script:
    if turn.simulator.settings.pace:
        yield Pause(seconds=NATURAL_PAUSE_S * turn.simulator.settings.pace)


def _search_turn(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield from searched(turn, [OSLO])
    yield turn.think("I should")
    yield turn.think(" look this up.")
    yield turn.text("Rain today, ")
    yield turn.text("about 9 °C.[^")
    yield turn.text("1^]")
    yield sources(turn, [OSLO])
    yield from turn.closing(name="Oslo weather")


def _degraded(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Sure.")
    yield from turn.closing()


def _caret_citations(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield from searched(turn, [OSLO, _BERGEN])
    for piece in ("Rain in Oslo[^1^], sun in Bergen[", "^2^", "], nothing known of Voss[^9^]."):
        yield turn.text(piece)
    yield from turn.closing()


def _echo_words(turn: RestTurn, params: Params) -> Script:
    words = " error overloaded openai.completion.stream chat.forbidden auth.token.invalid"
    yield from turn.opening(echo=turn.call.text + words)
    yield turn.text("All is well.")
    yield from turn.closing()


def _unknown_things(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.event("debug", message={"need2search": False, "search_target": "", "search_language": ""})
    yield turn.event("weather", text="NOT TEXT")
    yield turn.text("Known")
    yield turn.event("search_plus", msg={"type": "hologram"})
    yield turn.event("loading")
    yield b"data: {}\n\n"
    yield turn.text(" text.")
    yield from turn.closing()


def _spellings(turn: RestTurn, params: Params) -> Script:
    def spelled(step: bytes) -> bytes:
        """The event with an `event:` line, a split `data` field name, a comment before it, and CRLF."""
        payload = step.removeprefix(b"data: ").rstrip(b"\n")
        kind = payload.split(b'"')[3]
        lines = [b": keep-alive", b"id: 7", b"event: " + kind, b"data:" + payload, b"", b""]
        return (b"\r\n" if params.count("crlf") else b"\n").join(lines)

    for step in turn.opening():
        yield spelled(step)
    yield spelled(turn.event("zone_set", zone_type="thought"))
    yield spelled(turn.think("Thinking, ", "think"))
    yield spelled(turn.think("spelt otherwise.", "think"))
    yield spelled(turn.event("zone_set", zone_type="answer"))
    yield spelled(turn.event("ping"))
    yield spelled(turn.text("Same text, "))
    yield spelled(turn.text("other spelling: 9 °C."))
    yield spelled(turn.event("done"))
    for step in turn.closing():
        yield spelled(step)


def _echo(turn: RestTurn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text(turn.call.text)
    yield from turn.closing()


def long_text(pieces: int, lines: int) -> str:
    """The whole long answer: numbered lines, so that a loss or a repetition shows."""
    total = pieces * lines
    return "".join(f"{number}. Line {number} of {total}.\n" for number in range(1, total + 1))


def _long(turn: RestTurn, params: Params) -> Script:
    pieces = max(1, params.count("pieces"))
    text = long_text(pieces, params.count("lines"))
    size = -(-len(text) // pieces)  # cut by characters, so also inside a line
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    yield from turn.opening()
    yield from _part(turn, parts, new_segment=bool(params.count("new_segment")), ends=bool(params.count("ends")))


def rest_of(turn: RestTurn) -> Script:
    """What a continue call gets."""
    cut = turn.cut
    if cut is None:
        raise RuntimeError("a continue call without a cut answer passed the check")
    yield from turn.reopening(cut)
    yield from _part(turn, cut.pieces, new_segment=cut.new_segment, ends=cut.ends)


def _part(turn: RestTurn, parts: list[str], *, new_segment: bool, ends: bool) -> Script:
    part, *left = parts
    for at in range(0, len(part), _PIECE_CHARS):
        yield turn.text(part[at : at + _PIECE_CHARS])
    if left:
        yield from turn.length(left, new_segment=new_segment, ends=ends)
    else:
        yield from turn.closing()


TABLE: tuple[Scenario[RestTurn], ...] = (
    Scenario(name="demo", description="the default: a friendly answer that begins with [simulator]", play=_demo),
    Scenario(name="search_turn", description="search, thinking, cited answer, sources", play=_search_turn),
    Scenario(name="degraded", description="a plain answer: no such notice exists here", play=_degraded),
    Scenario(name="caret_citations", description="[^N^] marks, one split, one unresolvable", play=_caret_citations),
    Scenario(name="echo", description="repeats the prompt", play=_echo),
    Scenario(name="echo_words", description="the req echo holds error words; the answer is fine", play=_echo_words),
    Scenario(name="unknown_things", description="unknown and ignorable events around text", play=_unknown_things),
    Scenario(
        name="spellings",
        description="think, zone_set, event: and id: lines, comments, CRLF, no space after data:",
        play=_spellings,
        params={"crlf": 1},
    ),
    Scenario(
        name="long",
        description="numbered lines cut by length into pieces; ends=0: no all_done after length; new_segment=0: a "
        "continued answer has no req of its own and keeps its segment_id",
        play=_long,
        params={"pieces": 3, "lines": 40, "ends": 1, "new_segment": 1},
    ),
)
