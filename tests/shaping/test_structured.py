"""JSON out of answers that hold it somewhere."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.errors import BadRequest
from kimi_provider.request import JsonFormat
from kimi_provider.shaping import JsonAnswer, json_format
from kimi_provider.upstream import Upstream

TOOLS = Upstream.load().tools

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOGLE = {
    "type": "OBJECT",
    "properties": {"choice": {"type": "STRING", "enum": ["a", "b"]}, "n": {"type": "INTEGER"}},
    "required": ["choice"],
}
PERSON = {"name": 'Ada "L"\n', "age": 36, "tags": ["x", "{y}"]}


def read(
    pieces: list[str], schema: dict[str, Any] | None = SCHEMA, *, collected: bool = False
) -> tuple[str, str | None]:
    answer = JsonAnswer(JsonFormat(schema=schema), TOOLS, collected=collected)
    text = "".join(map(answer.feed, pieces))
    return text + answer.close(), answer.problem


def both(text: str, schema: dict[str, Any] | None = SCHEMA) -> tuple[Any, str | None]:
    """The value, the same whole, cut into characters, and collected."""
    whole, cut = read([text], schema), read(list(text), schema)
    assert whole == cut
    if whole[1] is None:
        assert read([text], schema, collected=True) == whole
    else:
        assert read(list(text), schema, collected=True) == ("", whole[1])
    return (json.loads(whole[0]) if whole[0] else None), whole[1]


WRAPPINGS = [
    "{}",
    "```json\n{}\n```",
    "```\n{}```",
    "Here is the JSON [1] you {{want}}:\n\n{}\n\nI hope this helps {{you}}.",
    "Sure!\n```json\n{}\n```\nIt has 3 keys.",
]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_prose_and_fences_around_it_are_left_out(wrapping: str) -> None:
    for written in (json.dumps(PERSON), json.dumps(PERSON, indent=2, ensure_ascii=False)):
        text = wrapping.replace("{{", "\0").replace("{}", written).replace("\0", "{").replace("}}", "}")
        assert both(text) == (PERSON, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"name": "a", "age": "7"}', {"name": "a", "age": 7}),
        ("{'name': 'a', 'age': 7}", {"name": "a", "age": 7}),
        ('{name: "a", age: 7,}', {"name": "a", "age": 7}),
        ('{{"name": "a", "age": 7}}', {"name": "a", "age": 7}),
        ('{"name": "say "hi" now", "age": 7}', {"name": 'say "hi" now', "age": 7}),
        ('{"name": "a\nb", "age": 7', {"name": "a\nb", "age": 7}),
        ('{"name": "a", "age": 7, "tags": "x"}', {"name": "a", "age": 7, "tags": ["x"]}),
        ('{"name": "a ``` b", "age": 7}', {"name": "a ``` b", "age": 7}),
    ],
)
def test_slips_are_mended(text: str, value: Any) -> None:
    assert both(text) == (value, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("I can't do that.", "no JSON"),
        ("", "no JSON"),
        ('{"name": "a"}', "'age' is a required property"),
        ('{"name": "a", "age": -1}', "$.age: -1 is less than the minimum"),
        ('{"name": "a", "age": 1, "more": 2}', "Additional properties"),
        ('{"name": "a", "age": "old"}', "'old' is not of type 'integer'"),
    ],
)
def test_what_is_not_valid_is_named(text: str, problem: str) -> None:
    assert problem in str(both(text)[1])


def test_google_words_are_understood() -> None:
    assert both('{"choice": "A", "n": "3"}', GOOGLE) == ({"choice": "a", "n": 3}, None)


def test_any_object_will_do_without_a_schema() -> None:
    assert both('Well: {"a": [1, {"b": null}]}', None) == ({"a": [1, {"b": None}]}, None)
    assert both("[1, 2]", None)[1] is not None


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "array", "items": {"type": "integer"}}, "Numbers:\n[1, 2, 3]", [1, 2, 3]),
        ({"type": "integer"}, " 42 ", 42),
        ({"type": "string"}, "plain", "plain"),
        ({"type": "boolean"}, "```json\ntrue\n```", True),
    ],
)
def test_other_values_than_objects(schema: dict[str, Any], text: str, value: Any) -> None:
    assert both(text, schema) == (value, None)


def test_it_streams_what_is_surely_inside() -> None:
    answer = JsonAnswer(JsonFormat(schema=SCHEMA), TOOLS)
    assert answer.feed("Here {is} it: ") == ""
    assert answer.feed('{"na') == ""
    assert not answer.shown
    assert answer.feed('me": "Ad') == '{"name":"Ad'
    assert answer.shown
    assert answer.feed("a") == "a"
    assert answer.feed('", "age": 3') == '"'
    assert answer.feed("6}") == ',"age":36}'
    assert answer.feed(" and more {}") == ""
    assert (answer.close(), answer.problem) == ("", None)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=6), below, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=4), values, max_size=4),
    st.sampled_from(["", "Text: ", "```json\n"]),
)
def test_valid_json_comes_out_as_it_is(value: dict[str, Any], before: str) -> None:
    text = before + json.dumps(value, ensure_ascii=False)
    for pieces in ([text], list(text)):
        out, problem = read(pieces, None)
        assert (json.loads(out), problem) == (value, None)


@settings(deadline=None)
@given(
    st.sampled_from([json.dumps(PERSON), json.dumps(PERSON, indent=2), f"Text {json.dumps(PERSON)} more"]),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 4), st.sampled_from([*'{}[]",:\\`a1\n', ""])), max_size=4),
)
def test_damaged_json_is_read_alike_however_cut(text: str, damage: list[tuple[int, int, str]]) -> None:
    """Whatever has streamed is JSON in the end."""
    for at, removed, inserted in damage:
        text = text[:at] + inserted + text[at + removed :]
    both(text)


def test_the_model_is_told_what_is_wanted_and_what_was_wrong() -> None:
    answer = JsonAnswer(JsonFormat(schema=GOOGLE), TOOLS, collected=True)
    assert json.dumps("choice") in answer.instructions
    assert '"type": "object"' in answer.instructions
    answer.feed('{"n": 1}')
    assert answer.close() == ""
    assert "'choice' is a required property" in answer.repair_text
    assert not answer.shown
    answer.begin()
    answer.feed('{"choice": "b"}')
    assert (answer.close(), answer.problem) == ('{"choice":"b"}', None)
    assert "JSON object" in JsonAnswer(JsonFormat(), TOOLS).instructions


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonFormat()),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}, JsonFormat(schema=SCHEMA)),
        ({"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, JsonFormat(schema=SCHEMA)),
    ],
)
def test_the_parameter_response_format(value: Any, meant: JsonFormat | None) -> None:
    assert json_format(value) == meant


@pytest.mark.parametrize("value", ["json", {"type": "xml"}, {"type": "json_schema"}, {}, []])
def test_an_unusable_response_format_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="response_format"):
        json_format(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"pattern": "(a"}}},
        {"type": "object", "patternProperties": {"(a": {}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}},
    ],
)
def test_a_schema_that_is_none_is_the_callers_mistake(schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="response_format"):
        JsonAnswer(JsonFormat(schema=schema), TOOLS)


def test_nothing_is_fetched_for_a_reference() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        with pytest.raises(BadRequest, match="not a place inside"):
            JsonAnswer(JsonFormat(schema={"type": "object", "properties": {"a": {"$ref": url}}}), TOOLS)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_pattern_can_not_stop_the_process() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a|a)*$"}}}
    value = {"a": "a" * 60 + "b"}
    text, problem = read([json.dumps(value)], schema)
    assert (json.loads(text), problem) == (value, None)
    assert "does not match" in str(read(['{"a": "bc"}'], schema)[1])


def test_a_schema_without_end_is_given_up() -> None:
    schema = {"type": "object", "allOf": [{"$ref": "#"}]}
    assert read(['{"a": 1}'], schema) == ('{"a":1}', None)
