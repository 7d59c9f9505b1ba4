"""What a failed call teaches: which error it was, where a model went, what passes, how tokens are spelled now.

Law as in `learning`: a proposal rests on what was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..accounts import Credential
from ..accounts.credential import claims_of
from ..errors import Overloaded
from ..protocols import LiveModel
from ..upstream import ModelSpec, Upstream
from .hearing import Heard, objects_in, strings_in
from .learning import Lesson


def moved_model(name: str, spec: ModelSpec, offered: Iterable[LiveModel], upstream: Upstream) -> Lesson | None:
    """The service's own list has the model of a refused call under another scenario (protocol C.3, C.8)."""
    rows = [live for live in offered if live.scenario]
    same = [live for live in rows if live.id == spec.model] if spec.model else [
        live for live in rows if (live.kimiplus_id, live.agent_mode) == (spec.kimiplus_id, spec.agent_mode)
    ]  # fmt: skip
    scenarios = {live.scenario for live in same}
    if len(scenarios) != 1 or spec.scenario in scenarios:
        return None
    (new,) = scenarios
    old = spec.scenario
    found = f"{name}: the service's own list has it in {new}, where it was in {old}"
    if any(live.scenario == old for live in rows):
        moved = {one: {"scenario": new} for one, row in upstream.models.items() if row.scope == spec.scope}
        return Lesson(found=found, overlay={"models": moved})
    # The old word is gone from the whole list: it was renamed, wherever the file has it.
    sections = upstream.model_dump(by_alias=True, include={"models", "agents", "suffixes"})
    return Lesson(found=found, overlay=_differences(_replaced(sections, old, old), _replaced(sections, old, new)))


def unknown_reason(error: Mapping[str, Any], upstream: Upstream) -> str | None:
    """The reason of an error that upstream.yaml knows neither by name nor by pattern."""
    table = upstream.errors
    reasons = reasons_of(error)
    if not reasons or reasons[0] in table.reasons or any(place.get("paywall") for place in _places(error)):
        return None
    # The same words in which the client looks for patterns.
    named = [
        place.get(name) for place in _places(error) for name in ("reason", "message", "source", "localizedMessage")
    ]
    spoken = " ".join(words for one in named for words in strings_in(one))
    code = error.get("code") if isinstance(error.get("code"), str) else ""
    known = any(code in pattern.codes and pattern.regex.search(spoken) for pattern in table.patterns)
    return None if known else reasons[0]


def reasons_of(error: Mapping[str, Any]) -> list[str]:
    """The reasons that an error names, wherever it does (protocol B.6, C.11)."""
    named = (place.get(name) for place in _places(error) for name in ("reason", "error_type"))
    return [reason for reason in named if isinstance(reason, str) and reason]


def passing_reason(reason: str) -> Lesson:
    """The reason of a failure after which the very same call was answered."""
    return Lesson(
        found=f"{reason}: nobody knew it, and the same call was answered a moment later, so it passes",
        overlay={"errors": {"reasons": {reason: Overloaded.code}}},
    )


def errors_of(heard: Heard) -> list[Mapping[str, Any]]:
    """Every error object of the answer, whichever its carrier (protocol B.6, C.11)."""
    found: list[Mapping[str, Any]] = []
    for value in (*heard.values, heard.body):
        if not isinstance(value, dict):
            continue
        block = value.get("block")
        exceptions = [place.get("exception") for place in (value, block) if isinstance(place, dict)]
        found += [one.get("error", one) for one in exceptions if isinstance(one, dict)]
        if isinstance(error := value.get("error"), dict):
            found.append(error)
        elif value is heard.body and heard.exchange.status != 200:
            found.append(value)
    return [one for one in found if isinstance(one, dict) and one]


def respelled_tokens(heard: Heard, upstream: Upstream) -> tuple[Lesson, Credential] | None:
    """A refresh whose answer names its tokens otherwise (protocol A.6, G.5), and the pair in it, which is the only one
    that lives.
    """
    auth, body = upstream.auth, heard.body
    if heard.exchange.path not in (auth.gateway_path, auth.legacy_path) or not isinstance(body, dict):
        return None
    known = {"access": auth.access_fields, "refresh": auth.refresh_fields}
    names: dict[str, str] = {}
    tokens: dict[str, str] = {}
    for place in objects_in(body):
        for name, value in place.items():
            if isinstance(value, str) and (claims := claims_of(value)) is not None:
                kind = "refresh" if claims.is_refresh else "access"
                names[kind], tokens[kind] = name, value
    new = {kind: name for kind, name in names.items() if name not in known[kind]}
    if "access" not in tokens or not new:
        return None
    overlay = {"auth": {f"{kind}_fields": [*known[kind], name] for kind, name in new.items()}}
    found = f"a refresh is answered with tokens under {', '.join(new.values())}"
    return Lesson(found=found, overlay=overlay), Credential.of(**tokens)


def _places(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The error itself, its `debug`, and `details[].debug` (protocol C.11)."""
    details = error.get("details")
    for place in (error, *(details if isinstance(details, list) else ())):
        if isinstance(place, dict):
            yield place
            if isinstance(debug := place.get("debug"), dict):
                yield debug


def _replaced(value: Any, old: str, new: str) -> Any:
    """Values as YAML has them, with `new` for `old`."""
    match value:
        case dict():
            return {name: _replaced(below, old, new) for name, below in value.items()}
        case frozenset():
            return sorted(value)
        case list() | tuple():
            return [_replaced(below, old, new) for below in value]
        case _:
            return new if value == old else value


def _differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The values of `after` that `before` has otherwise, as an overlay on it."""
    out: dict[str, Any] = {}
    for name, value in after.items():
        was = before[name]
        if isinstance(value, dict) and isinstance(was, dict):
            if below := _differences(was, value):
                out[name] = below
        elif value != was:
            out[name] = value
    return out
