from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Any

import pytest

from kimi_provider.errors import ModelNotFound, codes
from kimi_provider.protocols.failures import from_wire
from kimi_provider.settings import SettingsError
from kimi_provider.upstream import ModelSpec, Upstream

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
    for word in filter(None, (row.effort_on, row.effort_off)):
        assert word in row.efforts
    assert not row.efforts or list(row.efforts) == ["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@pytest.mark.parametrize(("alias", "name"), UPSTREAM.aliases.items())
def test_every_alias_leads_to_a_row(alias: str, name: str) -> None:
    assert alias not in UPSTREAM.models
    assert UPSTREAM.resolve(alias) == UPSTREAM.models[name]


@pytest.mark.parametrize(("suffix", "changes"), UPSTREAM.suffixes.items())
def test_every_suffix_changes_what_a_row_has(suffix: str, changes: dict[str, Any]) -> None:
    assert "-" not in suffix
    assert changes.keys() <= ModelSpec.model_fields.keys()
    assert ModelSpec.model_validate({**UPSTREAM.models["kimi"].model_dump(), **changes})


@pytest.mark.parametrize("name", [*UPSTREAM.models, *UPSTREAM.aliases])
def test_suffixes_add_up_on_every_name(name: str) -> None:
    """A row of its own may stand behind such a name (kimi-thinking); then it is no other model but for its title."""
    base = UPSTREAM.resolve(name)
    for count in (1, 2):
        for chosen in itertools.permutations(UPSTREAM.suffixes, count):
            changes = {key: value for suffix in chosen for key, value in UPSTREAM.suffixes[suffix].items()}
            found = UPSTREAM.resolve("-".join((name, *chosen)))
            assert found == base.model_copy(update={**changes, "title": found.title})


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


@pytest.mark.parametrize("name", ["x" * 1_000_000, "kimi" + "-search" * 100_000 + "-x", "x" + "-search" * 5_000])
def test_a_monstrous_name_costs_little_and_is_not_repeated(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelNotFound) as caught:
        UPSTREAM.resolve(name)
    assert time.perf_counter() - started < 2
    assert len(str(caught.value)) < 400
