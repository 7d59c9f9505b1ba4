"""What the model may not call, and what it is told then."""

from __future__ import annotations

import pytest

from kimi_provider.errors import BadRequest
from kimi_provider.events import TextDelta, ToolCallDelta
from kimi_provider.request import ToolChoice
from kimi_provider.tools import RefusedCall

from . import corpus
from .corpus import Heard, heard, parse, toolbox

UNKNOWN = ("Fly", {"to": "the moon", "speed": 3})
READ = corpus.CALLS[0]
BASH = corpus.CALLS[1]


@pytest.mark.parametrize(
    "family",
    # Without a tag of its own, or with the tool's name as the tag, a call of an unknown tool is just text.
    [f for f in corpus.FAMILIES if f not in (corpus.bare_array, corpus.bare_fenced, corpus.openai_objects)
     and f not in (corpus.named_tags, corpus.named_tag_json)],
    ids=lambda family: family.__name__,
)  # fmt: skip
def test_an_unknown_name_is_refused_and_its_markup_not_shown(family: corpus.Family) -> None:
    text = "Let me see.\n" + family([UNKNOWN])
    for pieces in ([text], list(text)):
        events, outcome = parse(pieces)
        assert heard(events) == Heard("Let me see.", ())
        assert outcome.refused == (RefusedCall(name=outcome.refused[0].name, reason="unknown_tool"),)
        assert "Fly" in outcome.refused[0].name
        assert outcome.needs_repair


def test_a_known_call_beside_an_unknown_one_is_made() -> None:
    text = corpus.action([UNKNOWN, READ, UNKNOWN])
    for pieces in ([text], list(text)):
        events, outcome = parse(pieces)
        assert heard(events).calls == (READ,)
        assert len(outcome.refused) == 2
        assert not outcome.needs_repair


def test_the_model_is_told_what_was_wrong_and_what_there_is() -> None:
    box = toolbox()
    _, outcome = parse([corpus.action([UNKNOWN])], box)
    text = box.repair_text(outcome)
    assert "'Fly'" in text
    assert all(spec.name in text for spec in corpus.SPECS)


def test_numbering_goes_on_after_a_repair() -> None:
    parser = toolbox().parser(first_index=2, new_id=lambda: "call_9")
    events = parser.feed(corpus.action([READ])) + parser.close()
    assert [e.index for e in events if isinstance(e, ToolCallDelta)] == [2]


def test_only_allowed_tools_are_called_when_the_choice_names_them() -> None:
    box = toolbox(choice=ToolChoice(mode="required", names=("Read",)))
    events, outcome = parse([corpus.action([BASH])], box)
    assert events == []
    assert outcome.refused == (RefusedCall(name="Bash", reason="not_allowed"),)
    assert outcome.needs_repair
    assert "Bash" in box.repair_text(outcome)
    _, outcome = parse([corpus.action([READ])], box)
    assert not outcome.needs_repair


def test_a_required_call_that_is_missing_needs_repair() -> None:
    box = toolbox(choice=ToolChoice(mode="required"))
    events, outcome = parse(["No, I won't."], box)
    assert events == [TextDelta("No, I won't.")]
    assert (outcome.missing, outcome.needs_repair) == (True, True)
    assert "No action was written" in box.repair_text(outcome)
    _, outcome = parse(["No, I won't."])
    assert not outcome.needs_repair


@pytest.mark.parametrize("family", corpus.FAMILIES, ids=lambda family: family.__name__)
def test_without_parallel_calls_the_first_is_all(family: corpus.Family) -> None:
    text = family([READ, BASH]) + "\n\nMore text."
    for pieces in ([text], list(text)):
        parser = toolbox(parallel=False).parser(new_id=lambda: "call_x")
        events = []
        for piece in pieces:
            events += parser.feed(piece)
        assert parser.stopped
        assert heard(events + parser.close()).calls == (READ,)


@pytest.mark.parametrize(
    "text",
    [
        "<action>{]</action>",
        "<action>[]</action>",
        '<invoke name="Edit">nothing readable</invoke>',
        "<action>{</action>",
    ],
)
def test_a_call_that_says_nothing_is_refused_as_malformed(text: str) -> None:
    for pieces in ([text], list(text)):
        events, outcome = parse(pieces)
        assert heard(events) == Heard("", ())
        assert [one.reason for one in outcome.refused] in (["malformed"], [])
        assert heard(events).calls == ()


def test_a_choice_that_no_tool_can_meet_is_the_callers_mistake() -> None:
    with pytest.raises(BadRequest, match="'Write'"):
        toolbox(choice=ToolChoice(mode="required", names=("Write",)))


def test_a_choice_of_none_leaves_the_answer_alone() -> None:
    box = toolbox(choice=ToolChoice(mode="none"))
    assert not box.active
    assert (box.instructions, box.example, box.device_tools, box.system_prompt) == ("", (), (), None)
    assert box.calls_text([]) == ""
