from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from kimi_provider.errors import BadRequest, ModelNotFound, codes
from kimi_provider.models import Effort
from kimi_provider.protocols.failures import from_wire
from kimi_provider.settings import SettingsError
from kimi_provider.upstream import Upstream
from tests.costs import linear

UPSTREAM = Upstream.load()


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    return tmp_path / "overlay.yaml"


def loaded(overlay: Path, text: str) -> Upstream:
    overlay.write_text(text, "utf-8")
    return Upstream.load(overlay)


# --- overlays ---


def test_an_overlay_changes_what_it_names_and_nothing_else(overlay: Path) -> None:
    changed = loaded(
        overlay,
        """
        service: {done_grace_s: 1}
        retry: {backoff_s: [1]}
        headers: {x-msh-version: 3.0.0, x-new: a}
        models:
          kimi: {title: Renamed}
          kimi-next: {title: Next, scenario: SCENARIO_NEXT, context_tokens: 1000}
        aliases: {kimi-latest: kimi-next}
        """,
    )
    before, after = UPSTREAM.model_dump(), changed.model_dump()
    assert after["service"] == {**before["service"], "done_grace_s": 1}
    assert after["retry"] == {**before["retry"], "backoff_s": (1.0,)}
    assert after["headers"] == {**before["headers"], "x-msh-version": "3.0.0", "x-new": "a"}
    assert after["models"]["kimi"] == {**before["models"]["kimi"], "title": "Renamed"}
    assert changed.resolve("kimi-latest").scenario == "SCENARIO_NEXT"
    untouched = before.keys() - {"service", "retry", "headers", "models", "aliases"}
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
def test_an_empty_overlay_changes_nothing(overlay: Path, text: str) -> None:
    assert loaded(overlay, text) == UPSTREAM


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models:\n  kimi: {title: [unclosed\n", "is not valid YAML at line 3, column 1"),
        ("a: b: c", "is not valid YAML at line 1, column 5"),
        ("\tservice: {}", "is not valid YAML at line 1, column 1"),
        ("service: {done_grace_s: 1}\n---\nother: 1", "is not valid YAML"),
        ("a: \x01", "is not valid YAML"),
        ("- models", "expected a mapping such as 'models: ...', found list"),
        ("models", "expected a mapping such as 'models: ...', found str"),
        ("service: {done_grace_s: soon}", "service.done_grace_s: "),
        ("service: {grace: 1}", "service.grace: Extra inputs"),
        ("sevrice: {}", "sevrice: Extra inputs"),
        ("service:", "service: "),
        ("retry: {backoff_s: 3}", "retry.backoff_s: "),
        ("headers: {x-msh-version: 2.3}", "headers.x-msh-version: "),
        ("models: {kimi: {context_tokens: 0}}", "models.kimi.context_tokens: "),
        ("models: {mine: {scenario: SCENARIO_CHAT, context_tokens: 5}}", "models.mine.title: Field required"),
        ("models: {kimi: {thinkng: true}}", "models.kimi.thinkng: Extra inputs"),
        ("models: {kimi: null}", "models.kimi: "),
        ("aliases: {kimi-latest: [kimi]}", "aliases.kimi-latest: "),
        ("aliases: {mine: kimi-none}", "aliases.mine: there is no model 'kimi-none'"),
        ("retired: {mine: kimi-none}", "retired.mine: there is no model 'kimi-none'"),
        ("agents: {pattern: '('}", "agents.pattern: "),
        ("suffixes: {fast: [{set: {thinkng: true}}]}", "suffixes.fast.0.set: Value error, thinkng: Extra inputs"),
        ("suffixes: {fast: [{fits: {scenaro: A}}]}", "suffixes.fast.0.fits: Value error, scenaro: Extra inputs"),
        ("suffixes: {fast: [{set: {efforts: hard}}]}", "suffixes.fast.0.set: Value error, efforts: "),
        ("live_models: {keep_s: 0}", "live_models.keep_s: "),
        ("citations: {start: [ab]}", "citations.start.0: "),
        ("citations: {end: []}", "citations.end: "),
        ("connect: {max_frame_bytes: -1}", "connect.max_frame_bytes: "),
        ("errors: {patterns: [{class: overloaded, codes: [], pattern: '('}]}", "errors.patterns.0.pattern: "),
        ("errors: {patterns: [{class: overlodaed, codes: [], pattern: a}]}", "errors.patterns.0.class: "),
        ("errors: {reasons: {REASON_NEW: overlodaed}}", "errors.reasons.REASON_NEW: "),
        ("errors: {codes: {aborted: nothing}}", "errors.codes.aborted: "),
        ("errors: {retract_class: internal}", "errors.retract_class: "),
    ],
)
def test_a_broken_overlay_names_the_file_and_the_place(overlay: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(overlay, text)
    assert str(overlay) in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_overlay_that_is_no_text_or_not_there(overlay: Path) -> None:
    with pytest.raises(SettingsError, match=r"KIMI_UPSTREAM_FILE: .*overlay\.yaml can't be read: No such file"):
        Upstream.load(overlay)
    with pytest.raises(SettingsError, match="can't be read: Is a directory"):
        Upstream.load(overlay.parent)
    overlay.write_bytes("models: {}".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"overlay\.yaml is not valid"):
        Upstream.load(overlay)
    overlay.write_bytes(b"\xffmodels: {}")
    with pytest.raises(SettingsError, match=r"overlay\.yaml is not valid"):
        Upstream.load(overlay)


def test_an_overlay_is_data_only(overlay: Path) -> None:
    with pytest.raises(SettingsError, match="not valid YAML"):
        loaded(overlay, "models: !!python/object/apply:os.getcwd []")


def test_every_class_of_the_table_becomes_that_error(overlay: Path) -> None:
    reasons = "".join(f"    REASON_{number}: {code}\n" for number, code in enumerate(sorted(codes())))
    upstream = loaded(overlay, f"errors:\n  reasons:\n{reasons}")
    for number, code in enumerate(sorted(codes())):
        error = from_wire({"reason": f"REASON_{number}"}, upstream=upstream, account="a")
        assert (error.code, error.account) == (code, "a")


# --- models ---


@pytest.mark.parametrize("name", UPSTREAM.models)
def test_every_row_says_enough_to_be_asked(name: str) -> None:
    row = UPSTREAM.resolve(name)
    assert row == UPSTREAM.models[name]
    assert name == name.lower().strip()
    assert row.title
    assert row.scenario.startswith("SCENARIO_")
    assert row.context_tokens >= 100_000
    assert row.thinking or not row.thinking_always
    assert row.exact_efforts <= row.efforts.keys()
    for word in filter(None, (row.effort_on, row.effort_off)):
        assert word in row.efforts
    assert not row.efforts or list(row.efforts) == ["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@pytest.mark.parametrize(("alias", "name"), UPSTREAM.aliases.items())
def test_every_alias_leads_to_a_row(alias: str, name: str) -> None:
    assert alias not in UPSTREAM.models
    assert UPSTREAM.resolve(alias) == UPSTREAM.resolve(name)


CHAT = ("SCENARIO_CHAT", None, None, "k2d6-chat")
AGENT = ("SCENARIO_OK_COMPUTER", "ok-computer", "TYPE_NORMAL", None)
K3 = (*AGENT[:3], "k3-agent")
SWARM = ("SCENARIO_OK_COMPUTER_SWARM", "ok-computer", "TYPE_ULTRA", "k3-agent-swarm")
RESEARCH = ("SCENARIO_OK_COMPUTER", "deep-researcher", "TYPE_NORMAL", None)
K1 = ("SCENARIO_CHAT", "crm40ee9e5jvhsn7ptcg", None, None)
ID = "0123456789abcdefghij"
PLUS = ("SCENARIO_CHAT", ID, None, None)


@pytest.mark.parametrize(
    ("names", "shape", "on"),
    [
        # protocol D.2, row by row
        ("kimi, kimi-latest, kimi-k2.6, k2d6, kimi-k2.5, k2d6-chat, Instant", CHAT, ""),
        ("kimi-k2.6-thinking, k2d6-thinking, kimi-thinking, kimi-k2.5-thinking", CHAT, "thinking"),
        ("kimi-search, kimi-k2.6-search, k2d6-search, kimi-latest-search", CHAT, "search"),
        ("kimi-k3, k3, k3-agent, K3, kimi-k3-agent", K3, "thinking"),
        ("kimi-k3-agent-swarm, k3-agent-ultra, k3-agent-swarm, K3 Swarm", SWARM, "thinking"),
        ("kimi-k2.8-preview, k28-preview, k28-agent-preview, K2.8", (*AGENT[:3], "k28-agent-preview"), "thinking"),
        ("kimi-agent, k2d6-agent, kimi-k2.6-agent, kimi-thinking-agent", AGENT, "thinking"),
        ("k2d6-agent-ultra, kimi-agent-swarm", (*AGENT[:2], "TYPE_ULTRA", None), "thinking"),
        ("kimi-research, kimi-k2.6-research, kimi-thinking-research, kimi-research-research", RESEARCH, "thinking"),
        ("kimi-k1", K1, ""),
        (f"{ID}, {ID.upper()}, kimi/{ID}", PLUS, ""),
        # suffixes, in any order and several
        ("kimi-thinking-search, kimi-search-thinking, kimi-k2.6-search-thinking", CHAT, "thinking search"),
        ("kimi-silent, kimi-k2.6-silent-silent", CHAT, "silent"),
        ("kimi-search-silent, kimi-silent-search, kimi/kimi-search-silent", CHAT, "search silent"),
        ("kimi-search-silent-thinking, kimi-thinking-search-silent", CHAT, "thinking search silent"),
        ("kimi-k3-search, kimi-k3-search-agent, k3-agent-search", K3, "thinking search"),
        ("kimi-research-silent, kimi-silent-research, kimi-k2.6-silent-research", RESEARCH, "thinking silent"),
        ("kimi-search-agent, kimi-agent-search", AGENT, "thinking search"),
        (f"{ID}-search-thinking, {ID}-thinking-search", PLUS, "thinking search"),
        ("kimi-k1-silent", K1, "silent"),
    ],
)
def test_names_of_the_protocol_document_and_of_peers(names: str, shape: tuple[str | None, ...], on: str) -> None:
    for name in names.split(", "):
        row = UPSTREAM.resolve(name)
        assert (row.scenario, row.kimiplus_id, row.agent_mode, row.model) == shape, name
        assert {flag for flag in ("thinking", "search", "silent") if getattr(row, flag)} == set(on.split()), name
        agentic = row.scenario != "SCENARIO_CHAT"
        assert (row.thinking_always, row.enable_plugin) == (agentic, agentic), name
        assert [tool["type"] for tool in row.tools] == ["TOOL_TYPE_ASK_USER"] * (shape == RESEARCH), name
        assert (row.protocol == "rest") is (shape in (K1, PLUS)), name
        # What a suffix brings is checked as a row is.
        assert type(row).model_validate(row.model_dump()) == row, name


@pytest.mark.parametrize("name", UPSTREAM.models)
def test_suffixes_add_up_in_any_order(name: str) -> None:
    for count in (2, 3):
        for chosen in itertools.combinations(("thinking", "search", "silent"), count):
            found = [UPSTREAM.resolve("-".join((name, *order))) for order in itertools.permutations(chosen)]
            assert all({**row.model_dump(), "title": ""} == {**found[0].model_dump(), "title": ""} for row in found)
            assert all(getattr(found[0], flag) for flag in chosen)


@pytest.mark.parametrize("name", ["kimi-agent-research", "kimi-k3-research", "kimi-research-agent", f"{ID}-research"])
def test_a_suffix_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ModelNotFound, match=f"no model '{name}'"):
        UPSTREAM.resolve(name)


@pytest.mark.parametrize(("name", "successor"), UPSTREAM.retired.items())
def test_a_retired_name_says_what_to_use(name: str, successor: str) -> None:
    for suffixes in ("", "-search", "-search-silent"):
        with pytest.raises(ModelNotFound) as caught:
            UPSTREAM.resolve(name.upper() + suffixes)
        instead = successor + suffixes
        assert f"'{name.upper()}{suffixes}' is retired" in caught.value.message
        assert str(caught.value).endswith(f"Use {instead}.")
        assert UPSTREAM.resolve(instead)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("kimi-k2", "kimi-k2.6"),
        ("kimi-k2-thinking", "kimi-k2.6-thinking"),
        ("kimi-k2-0905-preview", "kimi-k2.6"),
        ("k1.5", "kimi-thinking"),
        ("kimi-math", "kimi-thinking"),
        ("kimi-math-search", "kimi-thinking-search"),
        ("kimi-thinking-preview", "kimi-thinking"),
        ("moonshot-v1-8k", "kimi"),
        ("moonshot-v1-32k", "kimi"),
        ("moonshot-v1-128k", "kimi"),
    ],
)
def test_names_of_older_gateways_are_retired(name: str, instead: str) -> None:
    with pytest.raises(ModelNotFound, match=rf"retired.*Use {re.escape(instead)}\."):
        UPSTREAM.resolve(name)


@pytest.mark.parametrize(
    ("name", "effort", "thinking", "wanted"),
    [
        ("kimi", None, None, Effort(thinking=False, value="REASONING_EFFORT_NONE")),
        ("kimi", None, True, Effort(thinking=True, value="REASONING_EFFORT_LOW")),
        ("kimi-thinking", None, False, Effort(thinking=False, value="REASONING_EFFORT_NONE")),
        ("kimi", "high", None, Effort(thinking=True, value="REASONING_EFFORT_LOW")),
        ("kimi-thinking", "none", None, Effort(thinking=False, value="REASONING_EFFORT_NONE")),
        *(
            (
                "kimi",
                word,
                None,
                Effort(thinking=True, value="REASONING_EFFORT_LOW", emulated=("reasoning_effort",)),
            )
            for word in ("medium", "xhigh", "max")
        ),
        (
            "kimi",
            "minimal",
            None,
            Effort(thinking=False, value="REASONING_EFFORT_NONE", emulated=("reasoning_effort",)),
        ),
        ("kimi-k3", None, None, Effort(thinking=True, value="REASONING_EFFORT_HIGH")),
        ("kimi-k3", "low", None, Effort(thinking=True, value="REASONING_EFFORT_LOW")),
        ("kimi-k3", "max", None, Effort(thinking=True, value="REASONING_EFFORT_MAX")),
        (
            "kimi-k3",
            "medium",
            None,
            Effort(thinking=True, value="REASONING_EFFORT_HIGH", emulated=("reasoning_effort",)),
        ),
        ("kimi-k3", "none", None, Effort(thinking=True, value="REASONING_EFFORT_LOW", ignored=("reasoning_effort",))),
        ("kimi-k3", None, False, Effort(thinking=True, value="REASONING_EFFORT_HIGH", ignored=("thinking",))),
        ("kimi-research", None, None, Effort(thinking=True, value=None)),
        *(
            ("kimi-research", word, None, Effort(thinking=True, value=None, ignored=("reasoning_effort",)))
            for word in ("none", "high")
        ),
    ],
)
def test_an_effort_the_service_does_not_do_is_reported(
    name: str, effort: str | None, thinking: bool | None, wanted: Effort
) -> None:
    assert UPSTREAM.resolve(name).effort_for(effort, thinking) == wanted


def test_an_unknown_effort_names_the_known_ones() -> None:
    with pytest.raises(BadRequest, match=r"'frantic'\. Choose one of: none, minimal, low, medium, high, xhigh, max"):
        UPSTREAM.resolve("kimi").effort_for("frantic", None)


@pytest.mark.parametrize("name", ["KIMI", " kimi-k2.6 ", "Kimi-K2.6-Thinking-SEARCH"])
def test_spelling_does_not_matter(name: str) -> None:
    assert UPSTREAM.resolve(name) == UPSTREAM.resolve(name.strip().lower())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("kimi-k2.7", ["kimi-k2.6"]),
        ("kimi-thinkin", ["kimi-thinking"]),
        ("kimi-k3-fast", ["kimi-k3"]),
        ("k3-agent-swarn", ["k3-agent-swarm"]),
        ("gpt-4o", []),
        ("", []),
        ("-", []),
        ("-thinking", None),
        ("kimi--thinking", None),
        ("kimi-thinking-", None),
        ("thinking", None),
    ],
)
def test_an_unknown_name_is_refused_with_near_ones(name: str, near: list[str] | None) -> None:
    with pytest.raises(ModelNotFound) as caught:
        UPSTREAM.resolve(name)
    assert f"'{name}'" in caught.value.message
    named = re.findall(r"[\w.-]+", caught.value.message.partition("Near names: ")[2])
    names = [one.rstrip(".") for one in named]
    assert {*names} <= {*UPSTREAM.models, *UPSTREAM.aliases}
    assert near is None or ({*near} <= {*names} and bool(near) == bool(names))


@linear
@pytest.mark.parametrize("name", ["x" * 1_000_000, "kimi" + "-search" * 100_000 + "-x", "x" + "-search" * 5_000])
def test_a_monstrous_name_costs_little_and_is_not_repeated(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        UPSTREAM.resolve(name)
    assert len(str(caught.value)) < 400
