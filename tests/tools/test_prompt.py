from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kimi_provider.request import ToolCall, ToolChoice, ToolSpec
from kimi_provider.settings import SettingsError
from kimi_provider.tools import Toolbox
from kimi_provider.tools.names import Names
from kimi_provider.upstream import Upstream

from . import corpus
from .corpus import UPSTREAM, heard, parse, toolbox

DIALECTS = tuple(UPSTREAM.tools.dialects)


def large_set(count: int = 100, chars: int = 900) -> tuple[ToolSpec, ...]:
    """As many tools and words as an agent's client brings: 90 KB."""
    words = "Use this when the user wants it, and be careful about the details. " * 40
    return tuple(
        ToolSpec(
            name=f"mcp__server_{number}__do_something",
            description=f"Tool {number}. {words}"[: chars - 300],
            parameters={
                "type": "object",
                "properties": {
                    f"needed_{number}": {"type": "string", "description": words[:150]},
                    "mode": {"type": "string", "enum": ["fast", f"slow{number}"]},
                    "items": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"inner": {"type": "string"}, "extra": {"type": "number"}},
                            "required": ["inner"],
                        },
                    },
                    "maybe": {"type": "integer", "description": words[:150]},
                },
                "required": [f"needed_{number}", "items"],
                "additionalProperties": False,
                "$schema": "http://json-schema.org/draft-07/schema#",
            },
        )
        for number in range(count)
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_tool_is_described(dialect: str) -> None:
    text = toolbox(dialect=dialect).instructions
    assert "- Read(path: string, limit?: integer)\n  What Read does." in text
    assert "Edit(path: string, edits: {old?: string, new?: string, count?: integer}[], " in text
    assert 'mode?: "once" | "all"' in text
    assert "- list_all()" in text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_large_set_keeps_every_name_type_and_required_argument(dialect: str) -> None:
    specs = large_set()
    size = sum(len(json.dumps({"d": spec.description, "p": spec.parameters})) for spec in specs)
    assert size > 90_000
    text = Toolbox(specs, UPSTREAM.tools, dialect=dialect).instructions
    assert len(text) < UPSTREAM.tools.budget_chars + 2_000
    for number, spec in enumerate(specs):
        assert (
            f"- {spec.name}(needed_{number}: string, items: {{inner: string, extra?: number}}[], "
            f'mode?: "fast" | "slow{number}", maybe?: integer)'
        ) in text
        assert f"Tool {number}." in text


def test_signatures_are_kept_even_where_no_description_fits() -> None:
    specs = large_set(600)
    text = Toolbox(specs, UPSTREAM.tools).instructions
    assert all(f"needed_{number}: string" in text for number in range(600))
    assert "be careful" not in text


def test_a_small_set_is_not_cut() -> None:
    (spec,) = large_set(1, 5000)
    assert spec.description.strip() in Toolbox([spec], UPSTREAM.tools).instructions


@pytest.mark.parametrize("dialect", DIALECTS)
def test_choice_and_parallel_calls_are_said(dialect: str) -> None:
    free = toolbox(dialect=dialect).instructions
    assert "must contain" not in free
    assert "at most one" not in free
    assert "at least one action" in toolbox(dialect=dialect, choice=ToolChoice(mode="required")).instructions
    assert "at most one action" in toolbox(dialect=dialect, parallel=False).instructions
    named = toolbox(dialect=dialect, choice=ToolChoice(mode="required", names=("Bash",))).instructions
    assert "the action Bash." in named
    assert "- Bash(" in named
    assert "- Read(" not in named


def test_the_example_is_spelled_as_the_model_shall_spell() -> None:
    turns = toolbox(dialect="action").example
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert turns[1].text.endswith('<action>{"name": "look_up_notes", "arguments": {"day": "today"}}</action>')
    assert turns[2].text.startswith("[TOOL RESULT for example_1]\n")
    assert toolbox(dialect="invoke").example == ()


def overlaid(path: Path, text: str) -> Upstream:
    path.write_text(text, "utf-8")
    return Upstream.load(path)


def test_an_overlay_switches_device_tools_and_system_prompt(tmp_path: Path) -> None:
    data = overlaid(tmp_path / "o.yaml", "tools: {dialects: {invoke: {device_tools: true, system_prompt: true}}}").tools
    box = Toolbox([*corpus.SPECS, ToolSpec(name="web_search")], data)
    assert box.instructions == ""
    assert box.system_prompt is not None
    assert "- Read(" in box.system_prompt
    assert box.device_tools[0] == {"type": "TOOL_TYPE_DEVICE_TOOL", "name": "Read"}
    assert box.device_tools[-1]["name"] == "client_web_search"
    plain = toolbox()
    assert (plain.system_prompt, plain.device_tools) == (None, ())


def test_a_new_spelling_is_a_line_of_data(tmp_path: Path) -> None:
    families = UPSTREAM.tools.families.json_calls
    rows = [{"start": family.start, "end": family.end} for family in families] + [{"start": "@do:", "end": "@end"}]
    data = overlaid(tmp_path / "o.yaml", json.dumps({"tools": {"families": {"json": rows}}})).tools
    text = f"Now\n@do:{corpus.call_json(corpus.CALLS[0])}@end"
    for pieces in ([text], list(text)):
        found = heard(parse(pieces, Toolbox(corpus.SPECS, data))[0])
        assert (found.text, found.calls) == ("Now", (corpus.CALLS[0],))


@pytest.mark.parametrize(
    "text",
    [
        "tools: {default_dialect: none_such}",
        "tools: {dialects: {invoke: {instructions: 'costs $ 5'}}}",
        "tools: {families: {noise: ['(a']}}",
        "tools: {families: {noise: ['.*']}}",
        "tools: {rename_prefix: 'a b'}",
        "tools: {unknown: 1}",
    ],
)
def test_a_broken_overlay_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"tools\b"):
        overlaid(tmp_path / "o.yaml", text)


def test_every_row_of_the_model_table_has_a_dialect() -> None:
    tools = UPSTREAM.tools
    for row in UPSTREAM.models.values():
        assert tools.dialect(row.dialect) in tools.dialects.values()
    assert tools.dialect(UPSTREAM.resolve("kimi-k2.6").dialect) == tools.dialects["invoke"]
    assert tools.dialect(UPSTREAM.resolve("kimi-k3").dialect) == tools.dialects["action"]


# --- the history


def test_results_say_what_they_answer_whether_they_failed_and_what_is_attached() -> None:
    box = toolbox()
    assert box.result_text("call_1", "12 files") == "[TOOL RESULT for call_1]\n12 files"
    assert box.result_text("call_1", "no such file", failed=True) == "[TOOL RESULT for call_1: failed]\nno such file"
    assert box.result_text("call_1", "", attachments=1) == "[TOOL RESULT for call_1]\n(with 1 file or image attached)"
    assert box.result_text("c", "x", attachments=2).endswith("x\n(with 2 files or images attached)")


def test_calls_of_a_turn_stand_together() -> None:
    calls = [ToolCall(id="1", name="Read", arguments='{"path":"a"}'), ToolCall(id="2", name="gone", arguments="{}")]
    text = toolbox(dialect="invoke").calls_text(calls)
    assert text == (
        '<function_calls>\n<invoke name="Read">\n<parameter name="path">a</parameter>\n</invoke>\n'
        '<invoke name="gone">\n</invoke>\n</function_calls>'
    )
    text = toolbox(dialect="action").calls_text(calls)
    assert text.splitlines() == [
        '<action>{"name": "Read", "arguments": {"path": "a"}}</action>',
        '<action>{"name": "gone", "arguments": {}}</action>',
    ]


@pytest.mark.parametrize("arguments", ["", "null", "not json", "[1]", '{"path": "a"'])
def test_odd_arguments_of_an_earlier_call_do_no_harm(arguments: str) -> None:
    for dialect in DIALECTS:
        assert "Read" in toolbox(dialect=dialect).calls_text([ToolCall(id="1", name="Read", arguments=arguments)])


# --- names


@pytest.mark.parametrize(
    ("client", "written"),
    [
        ("Read", "Read"),
        ("mcp__server__tool", "mcp__server__tool"),
        ("web_search", "client_web_search"),
        ("read_file", "client_read_file"),
        ("Read_File", "client_Read_File"),
        ("a.b/c d", "a_b_c_d"),
        ("1st", "client_1st"),
        ("日本", "__"),
        ("x" * 80, "x" * 64),
    ],
)
def test_names_are_kept_or_safely_renamed_and_found_again(client: str, written: str) -> None:
    names = Names([client], UPSTREAM.tools)
    assert names.written(client) == written
    assert names.client(written) == client
    assert names.resolve(written) == client


def test_names_stay_apart() -> None:
    clients = ["a.b", "a_b", "a/b", "A_B", "x" * 70, "x" * 71, "read_file", "client_read_file"]
    names = Names(clients, UPSTREAM.tools)
    written = [names.written(client) for client in clients]
    assert len(set(written)) == len(clients)
    assert [names.client(name) for name in written] == clients
    assert names.written("a_b") == "a_b"
    assert names.written("client_read_file") == "client_read_file"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("functions.read_file:0", "read_file"),
        ("bridge_read_file", "read_file"),
        ("claw_Bash", "Bash"),
        ("tools.Bash", "Bash"),
        ("read-file", "read_file"),
        ("ReadFile", "read_file"),
        ("READ_FILE", "read_file"),
        (" Bash ", "Bash"),
        ("Bas", None),
        ("rm", None),
        ("", None),
        ("getitem", None),  # get_item or getItem: nobody knows
        ("get_item", "get_item"),
        ("getItem", "getItem"),
    ],
)
def test_what_a_model_makes_of_a_name(said: str, meant: str | None) -> None:
    names = Names(["read_file", "Bash", "get_item", "getItem"], UPSTREAM.tools)
    assert names.resolve(said) == meant


def test_a_renamed_tool_is_called_by_its_own_name() -> None:
    spec: Any = ToolSpec(name="read_file", parameters=corpus.SPECS[0].parameters)
    box = Toolbox([spec], UPSTREAM.tools)
    assert "- client_read_file(path" in box.instructions
    for said in ("client_read_file", "read_file", "functions.read_file:3"):
        found = heard(parse([corpus.action([(said, {"path": "a"})])], box)[0])
        assert found.calls == (("read_file", {"path": "a"}),)
