"""The filters of an answer in their order: calls out of the text, then JSON out of it, then `stop` and `max_tokens`."""

from __future__ import annotations

import json

import pytest

from kimi_provider.events import Event, TextDelta, ToolCallDelta
from kimi_provider.request import JsonFormat
from kimi_provider.shaping import JsonAnswer, Shaper

from . import corpus
from .corpus import UPSTREAM, heard, toolbox

ANSWER = 'I will read {it}.\n\n<action>{"name": "Read", "arguments": {"path": "/a STOP b"}}</action>\n\nNow STOP here.'


def piped(pieces: list[str], shaper: Shaper) -> list[Event]:
    parser = toolbox(dialect="action").parser(new_id=lambda: "call_1")
    events: list[Event] = []
    for piece in pieces:
        events += shaper.feed(parser.feed(piece))
        if shaper.finish or parser.stopped:
            return events
    return events + shaper.feed(parser.close()) + shaper.close()


def test_stop_strings_are_looked_for_in_text_not_in_arguments() -> None:
    for pieces in ([ANSWER], list(ANSWER)):
        shaper = Shaper(stop=["STOP"])
        found = heard(piped(pieces, shaper))
        assert found.text == "I will read {it}.\n\n\n\nNow "
        assert found.calls == (("Read", {"path": "/a STOP b"}),)
        assert shaper.finish == "stop"


@pytest.mark.parametrize("limit", range(12))
def test_a_limit_inside_the_arguments_leaves_their_beginning(limit: int) -> None:
    full = json.dumps({"path": "/a STOP b"}, separators=(",", ":"))
    shown = set()
    for pieces in ([ANSWER], list(ANSWER)):
        shaper = Shaper(max_tokens=limit)
        events = piped(pieces, shaper)
        assert shaper.finish == "length"
        arguments = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))
        text = "".join(e.text for e in events if isinstance(e, TextDelta))
        assert full.startswith(arguments)
        assert len((text + arguments).encode()) == limit * 4
        shown.add((text, arguments))
    assert len(shown) == 1


def test_an_answer_in_json_may_be_a_call_instead() -> None:
    parser = toolbox(dialect="action").parser()
    answer = JsonAnswer(JsonFormat(schema={"type": "object", "required": ["a"]}), UPSTREAM.tools)
    text = "".join(answer.feed(e.text) for e in parser.feed(ANSWER) + parser.close() if isinstance(e, TextDelta))
    assert text + answer.close() == ""
    assert parser.outcome.calls == 1  # so that `answer.problem` does not matter
    assert answer.problem is not None


def test_a_second_answer_goes_on_where_the_first_was_refused() -> None:
    """The one round of repair: a refused answer, what the model is told, and its second answer."""
    box = toolbox(dialect="action")
    first = box.parser()
    assert first.feed(corpus.action([("Fly", {})])) + first.close() == []
    assert first.outcome.needs_repair
    assert "There is no action 'Fly'." in box.repair_text(first.outcome)
    second = box.parser(first_index=first.outcome.calls)
    found = heard(second.feed(corpus.action([corpus.CALLS[0]])) + second.close())
    assert found.calls == (corpus.CALLS[0],)
    assert not second.outcome.needs_repair
