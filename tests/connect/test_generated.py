"""Generated turns, whose oracle is the generator: what it meant to say is what must come out, for any cut."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.events import (
    ChatOpened,
    Citation,
    Event,
    Finished,
    NativeTool,
    Notice,
    SearchResults,
    Source,
    TextDelta,
    ThinkingDelta,
    merged,
)

from .frames import ASSISTANT, CHAT, ECHO, END, decode, env

PLAIN = st.text(st.characters(exclude_characters="[", exclude_categories=["Co", "Cs"]), min_size=1, max_size=8)
SOURCES = [Source(url=f"https://{n}.example/", title=str(n)) for n in range(4)]


@dataclass
class Script:
    """Writes frames in one of the allowed ways and notes what they mean."""

    draw: Any
    frames: list[bytes] = field(default_factory=list)
    meant: list[Event] = field(default_factory=list)
    offset: int = 0
    blocks: dict[str, tuple[str, str]] = field(default_factory=dict)
    thinking: bool = False
    cited: list[int] = field(default_factory=list)
    next_id: int = 10

    def put(self, frame: dict[str, Any], *, repeatable: bool = True) -> None:
        self.offset += self.draw(st.integers(1, 3))
        frame = {**frame, "eventOffset": self.offset}
        payload = json.dumps(frame, ensure_ascii=self.draw(st.booleans())).encode()
        data = env(gzip.compress(payload), 1) if self.draw(st.integers(0, 9)) == 0 else env(payload)
        self.frames.append(data)
        noise = self.draw(st.integers(0, 9))
        if noise == 0:
            self.frames.append(env({"heartbeat": {}}))
        elif noise == 1:
            self.frames.append(env(b""))
        elif noise == 2:
            self.frames.append(env({"op": "set", "mask": "future", "future": {"a": [1]}}))
        elif noise == 3 and repeatable:
            self.frames.append(data)

    def grow(self, kind: str, piece: str, *, new_block: bool) -> None:
        """Let the block of `kind` grow by `piece`, as append or as a set of the whole."""
        if new_block or kind not in self.blocks:
            self.next_id += 1
            self.blocks[kind] = (str(self.next_id), "")
            if self.draw(st.booleans()):
                self.put({"op": "set", "mask": f"block.{kind}", "block": {"id": str(self.next_id), kind: {}}})
        block_id, whole = self.blocks[kind]
        self.blocks[kind] = (block_id, whole + piece)
        append = self.draw(st.integers(0, 4)) > 0
        block: dict[str, Any] = {"id": block_id, kind: {"content": piece if append else whole + piece}}
        if self.draw(st.booleans()):
            block["messageId"] = "m-asst"
        mask = self.draw(st.sampled_from([f"block.{kind}.content", f"block.{kind}.content", f"block.{kind}"]))
        self.put({"op": "append" if append else "set", "mask": mask, "block": block})

    def say(self, piece: str, *, new_block: bool) -> None:
        self.grow("text", piece, new_block=new_block)
        self.meant.append(TextDelta(piece))

    def think(self, piece: str, *, new_block: bool) -> None:
        joint = self.thinking and (new_block or "think" not in self.blocks)
        self.grow("think", piece, new_block=new_block)
        self.meant.append(ThinkingDelta("\n\n" + piece if joint else piece))
        self.thinking = True

    def cite(self, number: int, form: str, at: int) -> None:
        mark = form.format(f"web_search:1#{number}")
        for piece in filter(None, (mark[:at], mark[at:])):
            self.grow("text", piece, new_block=False)
        if number not in self.cited:
            self.cited.append(number)
        shown = self.cited.index(number) + 1
        self.meant += [TextDelta(f"[{shown}]"), Citation(number=shown, source=SOURCES[number])]

    def run_tool(self, arguments: str, output: str) -> None:
        self.next_id += 1
        block = str(self.next_id)
        call = f"shell_{block}"
        self.put(
            {
                "op": "set",
                "block": {"id": block, "tool": {"toolCallId": call, "name": "shell", "status": "STATUS_PENDING"}},
            }
        )
        for at in range(0, len(arguments), 3):
            piece = arguments[at : at + 3]
            self.put({"op": "append", "mask": "block.tool.args", "block": {"id": block, "tool": {"args": piece}}})
        done = {"contents": [{"text": output}], "status": "STATUS_DONE"}
        self.put({"op": "set", "mask": "block.tool.contents,block.tool.status", "block": {"id": block, "tool": done}})
        self.meant += [
            NativeTool(call_id=call, name="shell", state="started"),
            NativeTool(call_id=call, name="shell", state="done", arguments=arguments, output=output),
        ]


FORMS = ["\ue3a0cite\ue3a3{}\ue3a8", "\ue3a0article\ue3a3{}:~:text=a%20b\ue3a8", "[^{}^]", "[[{}]]", "[[cite:{}]]"]

STEPS = st.one_of(
    st.tuples(st.just("say"), PLAIN, st.booleans()),
    st.tuples(st.just("think"), PLAIN, st.booleans()),
    st.tuples(st.just("cite"), st.integers(0, 3), st.sampled_from(FORMS), st.integers(0, 20)),
    st.tuples(st.just("tool"), st.text('{}"a:1', max_size=9), PLAIN),
    st.tuples(st.just("notice"), st.just("busy")),
)


@st.composite
def turns(draw: Any) -> tuple[bytes, list[Event]]:
    script = Script(draw)
    for frame in (CHAT, ECHO, ASSISTANT):
        script.put(frame)
    script.meant += [ChatOpened(chat_id="c1"), ChatOpened(message_id="m-asst")]
    cards = [
        {"id": str(n), "refIndex": f"web_search:1#{n}", "base": {"url": s.url, "title": s.title}}
        for n, s in enumerate(SOURCES)
    ]
    script.put({"op": "append", "message": {"id": "m-asst", "refs": {"searchChunks": cards}}})
    script.meant.append(SearchResults(sources=tuple(SOURCES)))
    for name, *values in draw(st.lists(STEPS, min_size=1, max_size=12)):
        if name == "say":
            script.say(values[0], new_block=values[1])
        elif name == "think":
            script.think(values[0], new_block=values[1])
        elif name == "cite":
            script.cite(*values)
        elif name == "tool":
            script.run_tool(*values)
        else:
            script.put({"notification": {"type": "TYPE_NEW", "message": values[0]}}, repeatable=False)
            script.meant.append(Notice(code="unknown", message=values[0]))
    script.say("That is all.", new_block=False)
    ending = draw(st.sampled_from(["trailer", "empty error", "close after done"]))
    script.put({"done": {}})
    end = {"trailer": END, "empty error": env({"error": {}}, 2), "close after done": b""}[ending]
    return b"".join(script.frames) + end, merged([*script.meant, Finished()])


@settings(max_examples=300, deadline=None)
@given(turns(), st.data())
def test_what_was_meant_comes_out(turn: tuple[bytes, list[Event]], data: Any) -> None:
    stream, meant = turn
    assert decode([stream]) == (meant, None)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    assert decode(stream[a:b] for a, b in itertools.pairwise(edges)) == (meant, None)
    assert decode(stream[at : at + 1] for at in range(len(stream))) == (meant, None)
