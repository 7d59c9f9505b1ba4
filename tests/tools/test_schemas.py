from __future__ import annotations

from typing import Any

import pytest

from kimi_provider.tools.json_writer import ArgumentsWriter
from kimi_provider.tools.schemas import View, coerced, from_markup, signature, standard

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
OPTIONAL = {"anyOf": [STRING, {"type": "null"}]}
TREE = {
    "type": "object",
    "properties": {"name": STRING, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name"],
}


def test_googles_words_become_the_standards() -> None:
    written = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "nullable": True},
            "list": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "1", "maxItems": "3"},
            "any": {"type": "TYPE_UNSPECIFIED"},
            "one": {"anyOf": [{"type": "NUMBER"}, {"type": "BOOLEAN"}]},
        },
        "propertyOrdering": ["type"],
        "required": ["type"],
    }
    before = repr(written)
    assert standard(written) == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"]},
            "list": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
            "any": {},
            "one": {"anyOf": [{"type": "number"}, {"type": "boolean"}]},
        },
        "required": ["type"],
    }
    assert repr(written) == before


@pytest.mark.parametrize("odd", [None, 3, "x", [], True])
def test_what_is_no_schema_allows_anything(odd: Any) -> None:
    assert standard(odd) == {}
    assert View(odd).kinds is None


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        (STRING, "string"),
        ({}, "any"),
        ({"type": ["string", "null"]}, "null | string"),
        (OPTIONAL, "null | string"),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"const": "x"}, '"x"'),
        ({"type": "array"}, "any[]"),
        ({"type": "array", "items": OPTIONAL}, "(null | string)[]"),
        (
            {"type": "object", "properties": {"b": INTEGER, "a": STRING}, "required": ["a"]},
            "{a: string, b?: integer}",
        ),
        ({"type": "object"}, "object"),
        ({"$ref": "#/$defs/x", "$defs": {"x": INTEGER}}, "integer"),
        ({"allOf": [{"type": "object", "properties": {"a": STRING}}]}, "{a?: string}"),
    ],
)
def test_signatures(schema: dict[str, Any], shown: str) -> None:
    assert signature(View(schema)) == shown


def test_recursive_and_broken_references_end() -> None:
    assert signature(View(TREE)).startswith("{name: string, children?: {name: string, children?: {")
    assert View({"$ref": "#"}).kinds is None
    assert View({"$ref": "#/nowhere"}).kinds is None
    assert View({"$ref": "http://127.0.0.1/x"}).kinds is None
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    assert coerced(deep, View({"type": "array", "items": {"type": "array"}})) == deep


@pytest.mark.parametrize(
    ("value", "schema", "meant"),
    [
        ("5", INTEGER, 5),
        (" 5 ", INTEGER, 5),
        ("5.0", INTEGER, 5),
        ("5.5", INTEGER, "5.5"),
        (5.0, INTEGER, 5),
        ("2.5", {"type": "number"}, 2.5),
        ("inf", {"type": "number"}, "inf"),
        ("x", INTEGER, "x"),
        ("9" * 5000, INTEGER, "9" * 5000),
        ("True", {"type": "boolean"}, True),
        ("null", {"type": ["integer", "null"]}, None),
        ("null", OPTIONAL, "null"),
        (5, STRING, "5"),
        (True, STRING, "true"),
        ({"a": 1}, STRING, '{"a": 1}'),
        ("[1, 2]", {"type": "array", "items": STRING}, ["1", "2"]),
        ("{a: '1'}", {"type": "object", "properties": {"a": INTEGER}}, {"a": 1}),
        ("one", {"type": "array", "items": STRING}, ["one"]),
        ({"a": 1}, {"type": "array"}, [{"a": 1}]),
        ("ALL", {"enum": ["one", "all"]}, "all"),
        ("other", {"enum": ["one", "all"]}, "other"),
        ({"name": 1, "children": [{"name": 2}]}, TREE, {"name": "1", "children": [{"name": "2"}]}),
        (None, STRING, None),
        ("anything", {}, "anything"),
        ({"k": "5"}, {"type": "object", "additionalProperties": INTEGER}, {"k": 5}),
    ],
)
def test_values_get_the_types_that_are_allowed(value: Any, schema: dict[str, Any], meant: Any) -> None:
    found = coerced(value, View(schema))
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("text", "schema", "meant"),
    [
        ("5", STRING, "5"),
        ("null", OPTIONAL, None),
        (" x ", OPTIONAL, " x "),
        ("[1]", {"type": ["string", "array"]}, [1]),
        ("[1]", STRING, "[1]"),
        ("[1]", {}, "[1]"),
        ("5", INTEGER, 5),
        (" all\n", {"enum": ["all"]}, "all"),
        ("", {"type": "object"}, {}),
    ],
)
def test_text_between_tags_becomes_a_value(text: str, schema: dict[str, Any], meant: Any) -> None:
    assert from_markup(text, View(schema)) == meant


def test_a_writer_completes_what_it_has_begun() -> None:
    """From any point on, `finish` adds exactly what the value still lacks."""
    schema = {"properties": {"a": STRING, "b": {"type": "array", "items": INTEGER}, "c": {"type": "object"}}}
    value = {"a": 'x "y"\n', "b": [1, 2], "c": {"d": None}}
    full = '{"a":"x \\"y\\"\\n","b":[1,2],"c":{"d":null}}'

    def steps(writer: ArgumentsWriter) -> Any:
        yield writer.begin("{")
        yield writer.key("a")
        yield writer.text_begin()
        yield writer.text('x "')
        yield writer.text('y"\n')
        yield writer.text_end()
        yield writer.key("b")
        yield writer.begin("[")
        yield writer.scalar("1")
        yield writer.scalar(2)
        yield writer.end()
        yield writer.key("c")
        yield writer.begin("{")
        yield writer.key("d")
        yield writer.scalar(None)
        yield writer.end()
        yield writer.end()

    for count in range(18):
        writer = ArgumentsWriter(schema)
        run = steps(writer)
        out = ""
        for _ in range(count):
            next(run, None)
            out += writer.take()
            assert full.startswith(out)
        writer.finish(value)
        assert out + writer.take() == full
        assert writer.complete
