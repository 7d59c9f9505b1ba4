"""Turns that end well: the numbered turns of protocol C.12 and every shape of block that C.5 to C.7 describe."""

from __future__ import annotations

from typing import Any

import orjson

from .. import envelopes
from ..playing import Script
from ..turn import HEARTBEAT, Turn
from .row import Params, Scenario

OSLO = {"title": "Oslo forecast", "url": "https://example.com/oslo"}
OSLO_CARD = {
    **OSLO,
    "siteName": "Example",
    "iconUrl": "https://example.com/i.png",
    "snippet": "Rain, 9 C",
    "publishTime": "2026-09-01",
}
THINKING = "STAGE_NAME_THINKING"
TOOL_RUNS = "block.tool.args,block.tool.status,block.tool.toolCallId"
TOOL_DONE = "block.tool.contents,block.tool.status"


def stage(turn: Turn, status: str) -> bytes:
    """Frames 08 and 17."""
    block = {"id": "2", "parentId": "1", "stage": {"name": THINKING, "status": f"STAGE_STATUS_{status}"}}
    return turn.block("set", "block.stage", block)


def stages_open(turn: Turn) -> Script:
    """Frames 07 and 08."""
    started = {"name": THINKING, "status": "STAGE_STATUS_START", "createTime": turn.simulator.chats.now()}
    block = {"id": "1", "parentId": "", "multiStage": {"stages": [started]}}
    yield turn.block("set", "block.multiStage", block)
    yield stage(turn, "START")


def tool_call(turn: Turn, name: str, args: list[str], contents: list[dict[str, Any]], **failure: object) -> Script:
    """A native tool from PENDING to DONE (frames 11 to 15), its arguments in pieces."""
    pending = {"toolCallId": f"{name}_0", "name": name, "status": "STATUS_PENDING"}
    yield turn.block("set", None, {"id": "4", "parentId": "2", "tool": pending})
    for piece in args:
        yield turn.block("append", "block.tool.args", {"id": "4", "tool": {"args": piece}})
    running = {"toolCallId": f"{name}:1", "args": "".join(args), "status": "STATUS_RUNNING"}
    yield turn.block("set", TOOL_RUNS, {"id": "4", "tool": running})
    result = {"contents": contents, "status": "STATUS_DONE", **failure}
    yield turn.block("set", TOOL_DONE, {"id": "4", "tool": result})


def search_result(number: int, card: dict[str, str]) -> dict[str, Any]:
    """One source, `number` counted from 0 (protocol C.7)."""
    return {"id": f"r{number + 1}", "refIndex": f"web_search:1#{number}", "base": card}


def _search_turn(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield from stages_open(turn)
    yield turn.think("I should", "3", "2")
    yield turn.think(" look this up.", "3", "2")
    found = {"searchResult": search_result(0, OSLO_CARD)}
    yield from tool_call(turn, "web_search", ['{"queries":["Oslo', ' weather"]}'], [found])
    yield turn.refs("append", "searchChunks", [{"id": "r1", "refIndex": "web_search:1#0", "base": OSLO}])
    yield stage(turn, "END")
    yield turn.text("Rain today, ", "5")
    yield turn.text("about 9 °C.\ue3a0cite\ue3a3web_sea", "5")
    yield turn.text("rch:1#0\ue3a8", "5")
    yield HEARTBEAT
    yield turn.refs("set", "usedSearchChunks", [{"id": "r1", "refIndex": "web_search:1#0"}])
    yield from turn.closing(name="Oslo weather")


def _native_tool(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield from tool_call(turn, "ipython", ['{"code":', '"6*7"}'], [{"text": "42"}])
    yield turn.text("6 x 7 = 42", "6")
    yield turn.done()
    yield envelopes.trailer()


def _failing_tool(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield from tool_call(turn, "ipython", ['{"code":', '"1/0"}'], [{"text": "Traceback"}], isError=True)
    yield turn.text("The calculation failed.", "6")
    yield turn.done()
    yield envelopes.trailer()


def _ask_user(turn: Turn, params: Params) -> Script:
    option = {"option": "Oslo", "description": "", "recommended": True}
    args = orjson.dumps({"questions": [{"question": "Which city?", "type": "single", "options": [option]}]}).decode()
    yield from turn.opening()
    pending = {"toolCallId": "ask_user_0", "name": "ask_user", "status": "STATUS_PENDING"}
    yield turn.block("set", None, {"id": "4", "parentId": "", "tool": pending})
    for piece in (args[:20], args[20:]):
        yield turn.block("append", "block.tool.args", {"id": "4", "tool": {"args": piece}})
    running = {"toolCallId": "ask_user:1", "args": args, "status": "STATUS_RUNNING"}
    yield turn.block("set", TOOL_RUNS, {"id": "4", "tool": running})
    yield turn.done()
    turn.settle()
    turn.chat.status = "STATUS_ASK_USER_QUESTION"
    yield envelopes.trailer()


def _degraded(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    notice = {"type": "TYPE_MODEL_DEGRADE", "message": "High demand: switched to the fast model"}
    yield turn.event({"notification": notice}, op="set")
    yield turn.text("Sure.")
    yield from turn.closing()


def _oddities(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.block("set", "block.text", {"id": "2", "parentId": "", "text": {}})
    yield turn.block("set", "block.text.content", {"id": "2", "text": {"content": "He"}})
    yield turn.block("append", "block.text.content", {"id": "2", "text": {"content": "llo"}})
    yield envelopes.envelope(envelopes.MESSAGE, b"")
    last = orjson.loads(turn.block("append", "block.text.content", {"id": "2", "text": {"content": "!"}})[5:])
    yield envelopes.gzipped(last)
    yield envelopes.envelope(envelopes.WEB_TRAILER, b"grpc-status: 0")
    yield envelopes.trailer({})


def _replaced_text(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Hel", "2")
    yield turn.text("lo", "2")
    yield turn.block("set", "block.text.content", {"id": "2", "text": {"content": params.text("to")}})
    yield turn.text("!", "2")
    yield from turn.closing()


def _older_search(turn: Turn, params: Params) -> Script:
    page = {**OSLO, "siteName": "Example", "snippet": "Rain"}
    yield from turn.opening()
    yield turn.block("append", "block.search.keywords", {"id": "0_1", "search": {"keywords": ["Oslo weather"]}})
    yield turn.block("append", "block.search.webPages", {"id": "0_1", "search": {"webPages": [page]}})
    yield turn.block("append", "block.text.content", {"id": "0_2", "text": {"content": "Rain today[^1^]."}})
    yield from turn.closing()


def _think_blocks(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield from stages_open(turn)
    yield turn.think("First thought.", "3", "2")
    yield from tool_call(turn, "ipython", ['{"code":', '"2"}'], [{"text": "2"}])
    yield turn.think("Second ", "5", "2")
    yield turn.think("thought.", "5", "2")
    yield stage(turn, "END")
    yield turn.text("Part one. ", "6")
    yield turn.text("Part two.", "7")
    yield turn.text(" The end.", "7")
    yield from turn.closing()


def _cited(turn: Turn, pieces: list[str]) -> Script:
    yield from turn.opening()
    cards = [OSLO_CARD, {**OSLO_CARD, "title": "Bergen forecast", "url": "https://example.com/bergen"}]
    # Plain numbers as refIndex, as agents and K3 have them (protocol C.7).
    results = [{"id": f"r{n}", "refIndex": str(n), "base": card} for n, card in enumerate(cards, 1)]
    contents = [{"searchResult": result} for result in results]
    yield from tool_call(turn, "web_search", ['{"queries":', '["weather"]}'], contents)
    yield turn.refs("append", "searchChunks", results)
    for piece in pieces:
        yield turn.text(piece, "5")
    yield turn.refs("set", "usedSearchChunks", [{"id": "r1", "refIndex": "1"}])
    yield from turn.closing()


def _caret_citations(turn: Turn, params: Params) -> Script:
    yield from _cited(turn, ["Rain in Oslo[^1^], sun in Bergen[", "^2^", "], nothing known of Voss[^9^]."])


def _bracket_citations(turn: Turn, params: Params) -> Script:
    yield from _cited(turn, ["Rain in Oslo[[1]], sun in Bergen[", "[cite:2", "]], nothing known of Voss[[cite:9]]."])


def _split_markers(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    results = [search_result(n, {**OSLO_CARD, "url": f"https://example.com/{n}"}) for n in range(3)]
    contents = [{"searchResult": result} for result in results]
    yield from tool_call(turn, "web_search", ['{"queries":', '["weather"]}'], contents)
    yield turn.refs("append", "searchChunks", results)
    text = (
        "Rain\ue3a0cite\ue3a3web_search:1#2\ue3a3web_search:1#0\ue3a8 and "
        "wind\ue3a0article\ue3a3web_search:1#1:~:text=wind%20north\ue3a8, 9 °C.\ue3a0cite\ue3a3web_search:1#0"
    )
    for character in text:
        yield turn.text(character, "5")
    yield from turn.closing()


def _unknown_things(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.event({"weather": {"sunny": True}}, op="set", mask="weather")
    yield turn.event({"block": {"id": "8", "hologram": {"content": "NOT TEXT"}}}, op="set", mask="block.hologram")
    yield turn.text("Known")
    yield turn.event({"block": {"id": "1", "sparkle": 3}}, op="merge", mask="block.sparkle")
    yield turn.event({"chat": {"id": turn.chat.id, "mood": "fine"}}, op="set", mask="chat.mood")
    yield envelopes.message({"op": "set"})
    yield turn.text(" text.")
    yield from turn.closing()


def _echo_words(turn: Turn, params: Params) -> Script:
    words = " error overloaded REASON_COMPLETION_OVERLOADED resource_exhausted content_filter exception"
    yield from turn.opening(echo=turn.call.text + words)
    yield turn.text("All is well.")
    yield from turn.closing()


def _message_ids(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    mine, other = turn.answer.id, "00000000-0000-7000-8000-00000000beef"

    def piece(owner: str, op: str, mask: str, content: str) -> bytes:
        block = {"id": "1", "messageId": owner, "text": {"content": content}}
        return turn.event({"block": block}, op=op, mask=mask)

    yield piece(mine, "set", "block.text", "Mine, ")
    yield piece(other, "set", "block.text", "NOT MINE, ")
    yield piece(mine, "append", "block.text.content", "still mine, ")
    yield piece(other, "append", "block.text.content", "STILL NOT MINE")
    yield piece(mine, "append", "block.text.content", "mine to the end.")
    turn.answer.blocks.append({"id": "1", "text": {"content": "Mine, still mine, mine to the end."}})
    yield from turn.closing()


def _no_message_id(turn: Turn, params: Params) -> Script:
    yield from turn.opening(with_answer_id=False)
    yield turn.text("Nameless ")
    yield turn.text("answer.")
    turn.settle()
    yield turn.event({"message": {"status": "MESSAGE_STATUS_COMPLETED"}}, op="set", mask="message.status")
    yield turn.done()
    yield envelopes.trailer()


def _duplicate_offsets(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    for piece in ("Once ", "and only ", "once."):
        frame = turn.text(piece)
        yield frame
        yield frame
    yield from turn.closing()


def _echo(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    if turn.call.system_prompt:
        yield turn.text(f"<system>{turn.call.system_prompt}</system>\n")
    yield turn.text(turn.call.text)
    yield from turn.closing()


TABLE = (
    Scenario(name="search_turn", description="thinking, web search, cited answer (frames 01-26)", play=_search_turn),
    Scenario(name="native_tool", description="server-side Python, then text (27-34)", play=_native_tool),
    Scenario(name="failing_tool", description="a native tool that reports isError, then text", play=_failing_tool),
    Scenario(name="ask_user", description="an agent asks the user and stops (65)", play=_ask_user),
    Scenario(name="degraded", description="notification: a lesser model answers (51-52)", play=_degraded),
    Scenario(
        name="oddities",
        description="set and append mixed, empty frame, gzip frame, 0x80 frame, empty error trailer (55-61)",
        play=_oddities,
    ),
    Scenario(
        name="replaced_text",
        description="set after append, extending the text or replacing it",
        play=_replaced_text,
        params={"to": "Hello there"},
    ),
    Scenario(name="older_search", description="search block of 2025-12 with [^1^] (62-64)", play=_older_search),
    Scenario(name="think_blocks", description="two thinking blocks around a tool, two text blocks", play=_think_blocks),
    Scenario(name="caret_citations", description="[^N^] marks, one split, one unresolvable", play=_caret_citations),
    Scenario(name="bracket_citations", description="[[N]] and [[cite:N]] marks", play=_bracket_citations),
    Scenario(
        name="split_markers",
        description="private-use citation signs one character a frame; two sources, text fragment, missing end sign",
        play=_split_markers,
    ),
    Scenario(
        name="unknown_things", description="unknown payloads, blocks, ops and masks around text", play=_unknown_things
    ),
    Scenario(name="echo", description="repeats the prompt, system prompt first in <system>", play=_echo),
    Scenario(name="echo_words", description="the user echo holds error words; the answer is fine", play=_echo_words),
    Scenario(name="message_ids", description="block.messageId, another message interleaved", play=_message_ids),
    Scenario(name="no_message_id", description="the assistant message has no id", play=_no_message_id),
    Scenario(
        name="duplicate_offsets", description="each text event twice with one eventOffset", play=_duplicate_offsets
    ),
)
