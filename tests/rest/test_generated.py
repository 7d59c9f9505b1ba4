"""Generated answers: whoever writes the frames also says what they mean; the decoder has no part in it."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.errors import KimiError
from kimi_provider.events import ChatOpened, Citation, Event, Finished, SearchResults, Source, TextDelta, ThinkingDelta
from kimi_provider.events import merged as joined
from kimi_provider.protocols.rest.answer import Answer
from kimi_provider.protocols.rest.wire import AnswerDecoder

from .frames import UPSTREAM, decode

#: No sign of a mark and nothing that JSON can't carry.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="["), min_size=1, max_size=12)
STEP = st.one_of(
    st.tuples(st.sampled_from(["say", "think", "k1", "zone", "query"]), TEXT),
    st.tuples(st.sampled_from(["find", "cite", "cite", "cite_unknown", "noise", "done"]), st.integers(0, 20)),
)
NOISE: list[bytes] = [
    b": keep-alive\n\n",
    b"event: ping\ndata: {}\n\n",
    b'data: {"event":"ping"}\n\n',
    b'data: {"event":"rename","text":"x"}\n\n',
    b'data: {"event":"future","text":"x"}\n\n',
    b"data: no json\n\n",
    b"\n\r\n",
    b"id: 5\nretry: 7\n\n",
]


class Script:
    """Writes frames and what they mean."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.stream = bytearray()
        self.events: list[Event] = []
        self.pages: list[Source] = []
        self.numbers: dict[str, int] = {}
        self.queries: set[str] = set()

    def write(self, data: dict[str, Any]) -> None:
        ending = self.dice.choice([b"\n", b"\r\n", b"\r"])
        payload = json.dumps(data, ensure_ascii=self.dice.random() < 0.5, indent=self.dice.choice([None, 1])).encode()
        if self.dice.random() < 0.3:
            self.stream += b"event: " + str(data["event"]).encode() + ending
        for line in payload.split(b"\n"):
            self.stream += b"data:" + b" " * self.dice.randrange(2) + line + ending
        self.stream += ending

    def step(self, kind: str, value: Any) -> None:
        match kind:
            case "say":
                self.write({"event": "cmpl", "text": value, "view": "cmpl"})
                self.events.append(TextDelta(value))
            case "think" | "k1":
                self.write({"event": kind, "text": value})
                self.events.append(ThinkingDelta(value))
            case "zone":
                self.write({"event": "zone_set", "zone_type": "thinking"})
                self.step("say", value)
                self.events[-1] = ThinkingDelta(value)
                self.write({"event": "zone_set", "zone_type": "answer"})
            case "query":
                self.write({"event": "search_plus", "msg": {"type": "start", "queries": [value]}})
                if value not in self.queries:
                    self.queries.add(value)
                    self.events.append(SearchResults(queries=(value,)))
            case "find":
                page = Source(url=f"https://{len(self.pages)}.example/", title=str(value))
                self.pages.append(page)
                self.write({"event": "search_plus", "msg": {"type": "get_res", "url": page.url, "title": page.title}})
                self.events.append(SearchResults(sources=(page,)))
            case "cite" if self.pages:
                place = value % len(self.pages)
                page = self.pages[place]
                mark = f"[^{place + 1}^]"
                at = self.dice.randrange(len(mark))
                for piece in (mark[:at], mark[at:]):
                    self.write({"event": "cmpl", "text": piece})
                number = self.numbers.setdefault(page.url, len(self.numbers) + 1)
                self.events += [TextDelta(f"[{number}]"), Citation(number=number, source=page)]
            case "cite_unknown":
                self.write({"event": "cmpl", "text": f"[^{900 + value}^]"})
            case "noise":
                self.stream += NOISE[value % len(NOISE)]
            case "done":
                self.write({"event": "done"})

    def cuts(self) -> list[bytes]:
        stream = bytes(self.stream)
        places = sorted(self.dice.randrange(len(stream) + 1) for _ in range(self.dice.randrange(12)))
        return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def written(steps: list[tuple[str, Any]], seed: int) -> Script:
    script = Script(seed)
    script.write({"event": "req", "id": "u", "content": "never shown"})
    script.write({"event": "resp", "id": "a"})
    script.events.append(ChatOpened(message_id="a"))
    script.step("say", "x")
    for kind, value in steps:
        script.step(kind, value)
    return script


@settings(max_examples=400, deadline=None)
@given(st.lists(STEP, max_size=25), st.integers(0, 2**32))
def test_any_answer_in_any_pieces(steps: list[tuple[str, Any]], seed: int) -> None:
    script = written(steps, seed)
    script.write({"event": "all_done"})
    wanted = (joined([*script.events, Finished()]), None)
    assert decode(script.cuts()) == wanted
    assert decode(bytes([byte]) for byte in bytes(script.stream)) == wanted


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(STEP, max_size=8), min_size=2, max_size=4), st.integers(0, 2**32))
def test_any_answer_in_several_calls(calls: list[list[tuple[str, Any]]], seed: int) -> None:
    """The pieces between cuts at the output cap are one answer: numbers and held-back marks go over the seam."""
    script = written([], seed)
    answer, got = Answer(UPSTREAM), list[Event]()
    for number, steps in enumerate(calls, 1):
        for kind, value in steps:
            script.step(kind, value)
        script.write({"event": "length"} if number < len(calls) else {"event": "all_done"})
        decoder = AnswerDecoder(UPSTREAM, answer=answer, may_continue=True)
        for chunk in script.cuts():
            got += decoder.feed(chunk)
        got += decoder.close()
        assert decoder.cut == (number < len(calls))
        script.stream.clear()
    assert joined(got) == joined([*script.events, Finished()])


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, max_size=15), st.integers(0, 2**32))
def test_an_answer_without_an_end_fails_behind_all_it_said(steps: list[tuple[str, Any]], seed: int) -> None:
    script = written([step for step in steps if step[0] != "done"], seed)
    events, error = decode(script.cuts())
    assert events == joined(script.events)
    assert error is not None
    assert issubclass(error, KimiError)
