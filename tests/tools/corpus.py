"""Answers with calls in them, spelled in every known way, and what they mean: the generator is the oracle.

Spelling is done here with plain string operations, from the descriptions of protocol E.5 and without any code of the
package, so that a misunderstanding is not shared.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kimi_provider.events import Event, TextDelta, ToolCallDelta
from kimi_provider.request import ToolSpec
from kimi_provider.tools import Toolbox
from kimi_provider.upstream import Upstream

UPSTREAM = Upstream.load()

Call = tuple[str, dict[str, Any]]


def _spec(name: str, required: list[str], **properties: Any) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=f"What {name} does.",
        parameters={"type": "object", "properties": properties, "required": required},
    )


STRING = {"type": "string"}
SPECS = (
    _spec("Read", ["path"], path=STRING, limit={"type": "integer"}),
    _spec("Bash", ["command"], command=STRING, background={"type": "boolean"}),
    _spec(
        "Edit",
        ["path", "edits"],
        path=STRING,
        edits={
            "type": "array",
            "items": {"type": "object", "properties": {"old": STRING, "new": STRING, "count": {"type": "integer"}}},
        },
        mode={"type": "string", "enum": ["once", "all"]},
        ratio={"type": "number"},
    ),
    _spec("mcp__notes__add", ["title"], title=STRING, tags={"type": "array", "items": STRING}, meta={"type": "object"}),
    _spec("list_all", []),
)

CALLS: tuple[Call, ...] = (
    ("Read", {"path": "/home/me/a b.txt", "limit": 20}),
    ("Bash", {"command": "grep -n \"x < y && z > 1\" *.py | head -3\necho 'done'", "background": False}),
    ("Edit", {"path": "ü/日本.md", "edits": [{"old": "a\n\tb", "new": "c\\d", "count": 2}, {"old": "", "new": "[x]"}]}),
    ("Edit", {"path": "p", "edits": [], "mode": "all", "ratio": -2.5e-3}),
    ("mcp__notes__add", {"title": "T: {1}", "tags": ["a", "b,c"], "meta": {"deep": {"er": [1, None, True]}}}),
    ("list_all", {}),
)


def dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def call_json(call: Call) -> str:
    return dumped({"name": call[0], "arguments": call[1]})


def value_text(value: Any) -> str:
    return value if isinstance(value, str) else dumped(value)


def parameters(call: Call, tag: str = "parameter") -> str:
    return "".join(f'<{tag} name="{key}">{value_text(value)}</{tag}>\n' for key, value in call[1].items())


# --- families: how a list of calls is spelled -----------------------------------------------------------------------


def invoke(calls: list[Call]) -> str:
    inner = "\n".join(f'<invoke name="{c[0]}">\n{parameters(c)}</invoke>' for c in calls)
    return f"<function_calls>\n{inner}\n</function_calls>"


def invoke_escaped(calls: list[Call]) -> str:
    """Values as HTML would have them."""
    return "".join(
        f'<invoke name="{c[0]}">'
        + "".join(f'<parameter name="{k}">{html.escape(value_text(v))}</parameter>' for k, v in c[1].items())
        + "</invoke>"
        for c in calls
    )


def invoke_with_prefix(calls: list[Call]) -> str:
    inner = "".join(f'<ns:invoke name="{c[0]}">{parameters(c, "ns:parameter")}</ns:invoke>' for c in calls)
    return f"<ns:function_calls>{inner}</ns:function_calls>"


def invoke_json(calls: list[Call]) -> str:
    return "".join(f'<invoke name="{c[0]}">{dumped(c[1])}</invoke>' for c in calls)


def action(calls: list[Call]) -> str:
    return "\n".join(f"<action>{call_json(c)}</action>" for c in calls)


def tool_call_tags(calls: list[Call]) -> str:
    return "\n".join(f"<tool_call>\n{call_json(c)}\n</tool_call>" for c in calls)


def tool_calls_list(calls: list[Call]) -> str:
    return f"<tool_calls>[{', '.join(map(call_json, calls))}]</tool_calls>"


def seeded(calls: list[Call]) -> str:
    return f"<|tool_calls_begin|>[[{','.join(map(call_json, calls))}]]<|tool_calls_end|>"


def native(calls: list[Call]) -> str:
    inner = "".join(
        f"<|tool_call_begin|>functions.{c[0]}:{n}<|tool_call_argument_begin|>{dumped(c[1])}<|tool_call_end|>"
        for n, c in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inner}<|tool_calls_section_end|>"


def brackets(calls: list[Call]) -> str:
    inner = "".join(f"[call:{c[0]}]{dumped(c[1])}[/call]" for c in calls)
    return f"[function_calls]{inner}[/function_calls]"


def tool_and_parameter(calls: list[Call]) -> str:
    return "\n".join(f"<tool>{c[0]}</tool><parameter>{dumped(c[1])}</parameter>" for c in calls)


def bare_array(calls: list[Call]) -> str:
    return f"[{', '.join(map(call_json, calls))}]"


def bare_fenced(calls: list[Call]) -> str:
    return (
        f"```json\n{json.dumps([{'name': c[0], 'arguments': c[1]} for c in calls], indent=2, ensure_ascii=False)}\n```"
    )


def own_fence(calls: list[Call]) -> str:
    return "\n".join(f"```agent_action\n{call_json(c)}\n```" for c in calls)


def line(calls: list[Call]) -> str:
    return "\n".join(f"TOOL_CALL: {call_json(c)}" for c in calls)


def equals(calls: list[Call]) -> str:
    return "\n".join(
        f"<tool_call>\n<function={c[0]}>\n"
        + "".join(f"<parameter={k}>{value_text(v)}</parameter>\n" for k, v in c[1].items())
        + "</function>\n</tool_call>"
        for c in calls
    )


def openai_objects(calls: list[Call]) -> str:
    listed = [
        {"id": f"call_{n}", "type": "function", "function": {"name": c[0], "arguments": dumped(c[1])}}
        for n, c in enumerate(calls)
    ]
    return dumped({"tool_calls": listed})


def named_tags(calls: list[Call]) -> str:
    return "\n".join(
        f"<{c[0]}>\n" + "".join(f"<{k}>{value_text(v)}</{k}>\n" for k, v in c[1].items()) + f"</{c[0]}>" for c in calls
    )


def named_tag_json(calls: list[Call]) -> str:
    return "\n".join(f"<{c[0]}>{dumped(c[1])}</{c[0]}>" for c in calls)


Family = Callable[[list[Call]], str]

JSON_FAMILIES: tuple[Family, ...] = (
    invoke_json,
    action,
    tool_call_tags,
    tool_calls_list,
    seeded,
    native,
    brackets,
    tool_and_parameter,
    own_fence,
    line,
    bare_array,
    bare_fenced,
    named_tag_json,
)
MARKUP_FAMILIES: tuple[Family, ...] = (invoke, invoke_escaped, invoke_with_prefix, equals, named_tags)
FAMILIES: tuple[Family, ...] = (*JSON_FAMILIES, *MARKUP_FAMILIES, openai_objects)


# --- what models get wrong ------------------------------------------------------------------------------------------


def _without_last(*tags: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        for tag in tags:
            text = text.removesuffix(tag).rstrip("\n")
        return text

    return change


ENDS = (
    "</function_calls>",
    "</ns:function_calls>",
    "<|tool_calls_section_end|>",
    "[/function_calls]",
    "</tool_call>",
    "</function>",
    "</invoke>",
    "</ns:invoke>",
    "</action>",
    "</tool_calls>",
    "<|tool_calls_end|>",
    "<|tool_call_end|>",
    "[/call]",
    "</parameter>",
    "```",
)
OUTER_ENDS = ENDS[:4]


@dataclass(frozen=True)
class Slip:
    """A malformation: a change of the spelled text, for families that it makes sense in."""

    name: str
    change: Callable[[str], str]
    families: tuple[Family, ...] = FAMILIES


def _doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


#: Values without braces, quotes or line breaks: some slips make no sense of others.
PLAIN_CALLS: tuple[Call, ...] = (
    ("Read", {"path": "/a/b.txt", "limit": 7}),
    ("Bash", {"command": "ls -la", "background": True}),
    ("mcp__notes__add", {"title": "one two", "tags": ["x", "y"], "meta": {"k": 1.5}}),
)

_SOLE_END_FREE = tuple(f for f in FAMILIES if f not in (bare_array, bare_fenced, openai_objects))

#: Slips that any value survives.
SLIPS = (
    Slip("as described", lambda t: t),
    Slip(
        "in a fence",
        lambda t: f"```xml\n{t}\n```",
        tuple(f for f in FAMILIES if f not in (bare_fenced, own_fence, line)),
    ),
    Slip("outer end tag missing", _without_last(*OUTER_ENDS)),
    Slip("all end tags missing", _without_last(*ENDS), tuple(f for f in _SOLE_END_FREE if f is not invoke_with_prefix)),
)
#: Slips for plain values only.
PLAIN_SLIPS = (
    Slip("double braces", _doubled, JSON_FAMILIES),
    Slip("trailing commas", lambda t: t.replace("}", ",}"), JSON_FAMILIES),
    Slip(
        "single quotes",
        lambda t: t.replace('"', "'"),
        (action, seeded, native, brackets, tool_and_parameter, own_fence),
    ),
    Slip("Python's words", lambda t: t.replace("true", "True"), JSON_FAMILIES),
    Slip("last brace missing", lambda t: t.replace("}</action>", "</action>").replace("}<|", "<|"), (action, native)),
    Slip("numbers as text", lambda t: t.replace(": 7", ': "7"').replace(": true", ': "true"'), JSON_FAMILIES),
    Slip(
        "prefixed names",
        lambda t: t.replace("Read", "functions.Read").replace("Bash", "bridge_Bash"),
        JSON_FAMILIES[:-1],
    ),
    Slip(
        "other keys",
        lambda t: t.replace('"name"', '"tool"').replace('"arguments"', '"input"'),
        (action, seeded, bare_array, line),
    ),
    Slip("lower case", lambda t: t.replace("Read", "read").replace("Bash", "bash"), JSON_FAMILIES),
)

BEFORE, AFTER = "I'll look <b>first</b> [1], `a < b`:\n\n", "\n\nDone, {not} a call."


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    calls: tuple[Call, ...]
    shown: str


def cases() -> Iterator[Case]:
    """Family x slip x (one call, all calls) x (alone, behind text)."""
    for slips, calls in ((SLIPS, CALLS), (PLAIN_SLIPS, PLAIN_CALLS)):
        for slip in slips:
            for family in slip.families:
                for some in (*((call,) for call in calls), calls):
                    spelled = slip.change(family(list(some)))
                    if spelled == family(list(some)) and slip.name != "as described":
                        continue
                    which = "all" if some is calls else f"{calls.index(some[0])} {some[0][0]}"
                    label = f"{family.__name__}/{slip.name}/{which}"
                    yield Case(label, spelled, some, "")
                    yield Case(f"{label}/behind text", BEFORE + spelled, some, BEFORE.rstrip())
                    if slip.name == "as described":
                        yield Case(f"{label}/between texts", BEFORE + spelled + AFTER, some, BEFORE + AFTER)


@dataclass(frozen=True)
class Heard:
    """What a client hears in the end."""

    text: str
    calls: tuple[Call, ...]


def heard(events: list[Event]) -> Heard:
    text: list[str] = []
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
            case ToolCallDelta():
                if event.index not in names:
                    assert event.id, "the first delta brings the id"
                    assert event.name, "the first delta brings the name"
                    names[event.index] = event.name
                else:
                    assert event.name is None, "the name comes once"
                arguments[event.index] = arguments.get(event.index, "") + event.arguments
    return Heard("".join(text), tuple((names[i], json.loads(arguments[i])) for i in sorted(names)))


def toolbox(**options: Any) -> Toolbox:
    return Toolbox(SPECS, UPSTREAM.tools, **options)


def parse(pieces: list[str], box: Toolbox | None = None) -> tuple[list[Event], Any]:
    parser = (box or toolbox()).parser(new_id=lambda: "call_x")
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close(), parser.outcome
