"""Every spelling of every family, with every slip, whole and cut: the client hears what the generator meant."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_provider.events import TextDelta, ToolCallDelta
from kimi_provider.request import ToolCall

from . import corpus
from .corpus import BEFORE, Call, Case, Heard, heard, parse, toolbox

CASES = tuple(corpus.cases())


def test_the_corpus_is_large() -> None:
    assert len(CASES) > 1000
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_calls_and_text_are_what_was_meant(case: Case) -> None:
    expected = Heard(case.shown, case.calls)
    assert heard(parse([case.text])[0]) == expected
    events, outcome = parse(list(case.text))
    assert heard(events) == expected
    assert (outcome.calls, outcome.refused, outcome.needs_repair) == (len(case.calls), (), False)


@pytest.mark.parametrize("family", corpus.FAMILIES, ids=lambda family: family.__name__)
def test_one_cut_anywhere_changes_nothing(family: corpus.Family) -> None:
    calls = list(corpus.PLAIN_CALLS[:2])
    text = f"Text\n{family(calls)} more"
    whole = heard(parse([text])[0])
    assert whole.calls == tuple(calls)
    for cut in range(1, len(text)):
        assert heard(parse([text[:cut], text[cut:]])[0]) == whole, text[:cut]


# --- hostile values -------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *(
        "<",
        "</",
        ">",
        "&",
        "&lt;",
        "&amp;",
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "\\",
        "\n",
        " ",
        ",",
        ":",
        "a",
        "ü",
        "日",
        "😀",
    ),
    *("\x01", "\u2028", "null", "true", "12", "```", "```json\n", "TOOL_CALL: "),
    *("</parameter>", '<parameter name="path">', "</invoke>", '<invoke name="Read">', "<function_calls>"),
    *("</function_calls>", "</action>", "<action>", "</tool_call>", "<|tool_call_end|>", "<|tool_calls_end|>"),
    *("[/call]", "[call:Read]", "<Read>", "</Read>", "<path>", "</path>", "</command>"),
]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=8).map("".join).map(_encodable)
scalars = texts | st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
calls = st.one_of(
    st.fixed_dictionaries({"path": texts}, optional={"limit": st.integers(-(10**6), 10**20)}).map(
        lambda a: ("Read", a)
    ),
    st.fixed_dictionaries({"command": texts}, optional={"background": st.booleans()}).map(lambda a: ("Bash", a)),
    st.fixed_dictionaries(
        {"title": texts},
        optional={
            "tags": st.lists(texts, max_size=2),
            "meta": st.dictionaries(texts.filter(bool), scalars, max_size=2),
        },
    ).map(lambda a: ("mcp__notes__add", a)),
    st.just(("list_all", {})),
)
generous = settings(deadline=None, max_examples=250, suppress_health_check=list(HealthCheck))


def _cut(text: str, points: list[int]) -> list[str]:
    edges = [0, *sorted(min(point, len(text)) for point in points), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@generous
@given(st.lists(calls, min_size=1, max_size=3), st.sampled_from(["invoke", "action"]))
def test_what_the_history_shows_is_read_back(made: list[Call], dialect: str) -> None:
    """Whatever the values hold, tags of every family included."""
    box = toolbox(dialect=dialect)
    text = box.calls_text([ToolCall(id="c", name=name, arguments=json.dumps(arguments)) for name, arguments in made])
    for pieces in ([text], list(text)):
        assert heard(parse(pieces, box)[0]) == Heard("", tuple(made))


@generous
@given(
    st.lists(calls, min_size=1, max_size=3),
    # A line of its own ends at a line break only; the others have an end tag, which their strings may hold.
    st.sampled_from([f for f in corpus.JSON_FAMILIES if f is not corpus.line]),
    st.lists(st.integers(0, 300), max_size=5),
)
def test_valid_json_is_never_misread(made: list[Call], family: corpus.Family, points: list[int]) -> None:
    text = family(made)
    for pieces in ([text], list(text), _cut(text, points)):
        assert heard(parse(pieces)[0]) == Heard("", tuple(made))


OPENERS = [
    *('<invoke name="Read">', '<parameter name="path">', "<tool_call>", '{"name": "Read", "arguments": {', '"path": "'),
    *('[{"name":"Read","arguments":', "<|tool_call_begin|>", "functions.Read:0", "<|tool_call_argument_begin|>"),
    *("<tool>", "Read", "</tool>", "<parameter>", "\\u", "d83d", "<Bash>"),
]


@generous
@given(
    st.lists(st.sampled_from(FRAGMENTS + OPENERS) | st.text(max_size=2), max_size=14).map("".join).map(_encodable),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_the_cuts_never_matter(text: str, points: list[int]) -> None:
    whole = heard(parse([text])[0])
    for pieces in (list(text), _cut(text, points)):
        assert heard(parse(pieces)[0]) == whole


edits = st.tuples(st.integers(0, 400), st.integers(0, 6), st.sampled_from(FRAGMENTS) | st.just(""))


@generous
@given(st.sampled_from(CASES), st.lists(edits, min_size=1, max_size=4), st.integers(2, 9))
def test_damaged_answers_are_read_alike_however_cut(case: Case, damage: list[tuple[int, int, str]], size: int) -> None:
    """No error, arguments that are JSON, and the same for every cut."""
    text = case.text
    for at, removed, inserted in damage:
        text = text[:at] + inserted + text[at + removed :]
    whole = heard(parse([text])[0])
    for pieces in (list(text), [text[at : at + size] for at in range(0, len(text), size)]):
        assert heard(parse(pieces)[0]) == whole


@generous
@given(st.text(alphabet=st.characters(exclude_characters="<[{`T", exclude_categories=["Cs"]), max_size=60))
def test_text_without_tags_is_untouched(text: str) -> None:
    for pieces in ([text], list(text)):
        assert heard(parse(pieces)[0]) == Heard(text, ())


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d, if x <y: list[0]",
        "Use `[1, 2]` and {braces} and <b>tags</b>.\n",
        '[{"name": "Alice", "arguments": 3}]',
        '{"name": "Read it", "age": 4}',
        "```python\nprint('<x>')\n```",
        "<code>Read</code>\n<summary>x</summary>",
        "The <Read> tool reads.",
        "<Unknown>text</Unknown>",
        "TOOL_CALL is a word. Tools, Text, T",
        "Write </parameter> to close, and </action>.",
        "<action>not a call</action>",
        "\n\n  leading and trailing \n\n",
        "ends with <",
        "ends with [",
        "<invoked>",
    ],
)
def test_what_only_looks_like_a_call_is_text(text: str) -> None:
    for pieces in ([text], list(text)):
        assert heard(parse(pieces)[0]) == Heard(text, ())


# --- single slips ---------------------------------------------------------------------------------------------------


def one(text: str) -> dict[str, Any]:
    """The arguments of the only call in `text`, the same whole and cut."""
    found = [heard(parse(pieces)[0]) for pieces in ([text], list(text))]
    assert found[0] == found[1]
    ((_, arguments),) = found[0].calls
    assert found[0].text == ""
    return arguments


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        # Unescaped quotes, raw line breaks and tabs, odd escapes.
        ('<action>{"name":"Bash","arguments":{"command":"echo "hi" there","background":true}}</action>',
         {"command": 'echo "hi" there', "background": True}),
        ('<action>{"name":"Bash","arguments":{"command":"a\n\tb"}}</action>', {"command": "a\n\tb"}),
        (r'<action>{"name":"Bash","arguments":{"command":"grep \d+ \'x\'"}}</action>', {"command": r"grep \d+ 'x'"}),
        (r'<action>{"name":"Bash","arguments":{"command":"\ud83d\ude00 \ud83d."}}</action>', {"command": "😀 \ufffd."}),
        # A quote is missing before the end tag; the end tag inside a string is text.
        ('<action>{"name":"Bash","arguments":{"command":"ls</action>', {"command": "ls"}),
        ('<action>{"name":"Bash","arguments":{"command":"echo </action>"}}</action>', {"command": "echo </action>"}),
        # Keys: none quoted, arguments before the name, arguments as text, none at all, flat, keyed by the tool.
        ("<action>{name: 'Bash', arguments: {command: 'ls'}}</action>", {"command": "ls"}),
        ('<action>{"arguments":{"command":"ls"},"name":"Bash"}</action>', {"command": "ls"}),
        (r'<action>{"name":"Bash","arguments":"{\"command\": \"ls\"}"}</action>', {"command": "ls"}),
        ('<action>{"name":"list_all"}</action>', {}),
        ('<action>{"name":"Bash","command":"ls","why":"x"}</action>', {"command": "ls"}),
        ('<action>{"Bash":{"command":"ls"}}</action>', {"command": "ls"}),
        # Types by the schema.
        ('<action>{"name":"Read","arguments":{"path":5,"limit":"7"}}</action>', {"path": "5", "limit": 7}),
        ('<action>{"name":"mcp__notes__add","arguments":{"title":"t","tags":"a","meta":"{\\"k\\": 1}"}}</action>',
         {"title": "t", "tags": ["a"], "meta": {"k": 1}}),
        ('<action>{"name":"Edit","arguments":{"path":"p","edits":"[{\\"old\\": \\"a\\", \\"count\\": \\"2\\"}]","mode":"ALL"}}</action>',  # noqa: E501  # as a model writes it
         {"path": "p", "edits": [{"old": "a", "count": 2}], "mode": "all"}),
        # Numbers that JSON has no word for.
        ('<action>{"name":"Edit","arguments":{"path":"p","edits":[],"ratio":1e999}}</action>',
         {"path": "p", "edits": [], "ratio": "1e999"}),
        # Markup: escaped as a whole, not escaped, mixed.
        ('<invoke name="Bash"><parameter name="command">a &amp;&amp; b &lt; c</parameter></invoke>', {"command": "a && b < c"}),  # noqa: E501  # as a model writes it
        ('<invoke name="Bash"><parameter name="command">x < 1; echo "&lt;"</parameter></invoke>', {"command": 'x < 1; echo "&lt;"'}),  # noqa: E501  # as a model writes it
        ('<invoke name="Bash"><parameter name="command">a & b &lt;</parameter></invoke>', {"command": "a & b &lt;"}),
        # Spaces and line breaks are the value's.
        ('<invoke name="Bash"><parameter name="command">\n ls \n</parameter></invoke>', {"command": "\n ls \n"}),
        # End tags inside the value, and missing ones.
        ('<invoke name="Bash"><parameter name="command">echo "</parameter>" x</parameter></invoke>',
         {"command": 'echo "</parameter>" x'}),
        ('<invoke name="Read"><parameter name="path">a<parameter name="limit">3</invoke>', {"path": "a", "limit": 3}),
        ('<invoke name="Read"><parameter name="path">a</invoke></function_calls>', {"path": "a"}),
        # Forms of the body.
        ('<invoke name="Bash">ls -la</invoke>', {"command": "ls -la"}),
        ('<invoke name="Bash"><command>ls</command></invoke>', {"command": "ls"}),
        ('<invoke name="Bash"><arguments>{"command": "ls"}</arguments></invoke>', {"command": "ls"}),
        ("<Bash>ls -la</Bash>", {"command": "ls -la"}),
        ("<invoke name='list_all'></invoke>", {}),
        ('<invoke name="Read"><parameter name="path" type="string">a</parameter></invoke>', {"path": "a"}),
        # Types of arguments between tags.
        ('<invoke name="Edit"><parameter name="path">p</parameter><parameter name="edits">[{"old": "a", "count": "2"},]</parameter></invoke>',  # noqa: E501  # as a model writes it
         {"path": "p", "edits": [{"old": "a", "count": 2}]}),
        ('<invoke name="Bash"><parameter name="command">12</parameter><parameter name="background">True</parameter></invoke>',  # noqa: E501  # as a model writes it
         {"command": "12", "background": True}),
    ],
)  # fmt: skip
def test_a_slip_is_understood(text: str, arguments: dict[str, Any]) -> None:
    assert one(text) == arguments


def test_an_end_tag_that_nothing_proves_ends_the_call_and_the_rest_is_text() -> None:
    text = '<invoke name="Bash"><parameter name="command">ls</parameter> I listed them.'
    for pieces in ([text], list(text)):
        assert heard(parse(pieces)[0]) == Heard("I listed them.", (("Bash", {"command": "ls"}),))


def test_an_answer_cut_off_in_a_call_keeps_what_there_was() -> None:
    text = BEFORE + corpus.action([("Read", {"path": "/a/long path", "limit": 3})])
    for length in range(len(BEFORE) + 40, len(text)):
        found = heard(parse(list(text[:length]))[0])
        assert found.text == BEFORE.rstrip()
        ((name, arguments),) = found.calls
        assert name == "Read"
        assert "/a/long path".startswith(arguments.get("path", ""))


# --- streaming ------------------------------------------------------------------------------------------------------

VALUE = 'One line, "two" words\nthree < four & five\\six {7} [8] ü😀 end'


@pytest.mark.parametrize(
    "family",
    [corpus.invoke, corpus.action, corpus.native, corpus.seeded, corpus.brackets, corpus.tool_and_parameter],
    ids=lambda family: family.__name__,
)
def test_a_pause_inside_the_arguments_leaves_their_exact_beginning(family: corpus.Family) -> None:
    """Nothing but a character that could begin a tag or an escape is held back."""
    made: Call = ("Bash", {"command": VALUE, "background": True})
    text = family([made])
    begin = text.index("One line")
    final = json.dumps(made[1], ensure_ascii=False, separators=(",", ":"))
    parser = toolbox().parser()
    out, fed = "", 0
    for count in range(1, len(VALUE) + 1):
        come = VALUE[:count]
        end = begin + len(come if family is corpus.invoke else json.dumps(come, ensure_ascii=False)[1:-1])
        out += "".join(e.arguments for e in parser.feed(text[fed:end]) if isinstance(e, ToolCallDelta))
        fed = end
        assert final.startswith(out)
        shown = json.loads(out + '"}')["command"]
        assert shown == (come[:-1] if come[-1] in "<&[" and shown != come else come)
    out += "".join(e.arguments for e in parser.feed(text[fed:]) + parser.close() if isinstance(e, ToolCallDelta))
    assert out == final


def test_name_and_id_come_before_the_arguments_are_complete() -> None:
    parser = toolbox().parser(new_id=lambda: "call_1")
    assert parser.feed('Text. <action>{"name": "Bash", "arguments"') == [TextDelta("Text.")]
    assert parser.feed(': {"command": "l') == [
        ToolCallDelta(index=0, id="call_1", name="Bash", arguments='{"command":"l')
    ]
    assert parser.feed("s") == [ToolCallDelta(index=0, arguments="s")]


def test_text_before_a_call_goes_out_at_once() -> None:
    parser = toolbox().parser()
    assert parser.feed("I'll look") == [TextDelta("I'll look")]
    assert parser.feed(" at it.\n") == [TextDelta(" at it.")]
    assert parser.feed("<functi") == []
    assert parser.feed("onal>") == [TextDelta("\n<functional>")]


@pytest.mark.parametrize("case", CASES[::11], ids=lambda case: case.name)
def test_no_piece_of_a_tag_is_ever_shown(case: Case) -> None:
    parser = toolbox().parser()
    shown = ""
    for character in case.text:
        shown += "".join(e.text for e in parser.feed(character) if isinstance(e, TextDelta))
        assert case.shown.startswith(shown)


@pytest.mark.parametrize(
    "family",
    [corpus.invoke, corpus.action, corpus.native, corpus.seeded, corpus.brackets, corpus.tool_and_parameter],
    ids=lambda family: family.__name__,
)
def test_an_answer_cut_off_in_a_tag_does_not_show_it(family: corpus.Family) -> None:
    text = BEFORE + family(list(corpus.PLAIN_CALLS))
    for length in range(len(BEFORE), len(text)):
        shown = heard(parse(list(text[:length]))[0]).text
        # Up to four characters may be anything, such as a mere "<".
        assert len(shown.removeprefix(BEFORE.rstrip()).strip()) <= 4, text[:length]
        assert shown.startswith(BEFORE.rstrip())
