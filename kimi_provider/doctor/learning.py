"""What upstream.yaml would need to know: from an answer that it does not explain to a proposed overlay.

Law: a proposal is data of the file's own shape, and rests on what was seen: a model that the service lists under
another scenario, signs that stand around references of the same answer, a reason after which the same call was
answered, a status with which a whole answer ended, a tool whose arguments are queries. What is new but nothing in the
file can say is told in words only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ..accounts import Credential
from ..accounts.credential import claims_of
from ..errors import Overloaded
from ..protocols import LiveModel
from ..protocols.connect.envelope import END_STREAM
from ..upstream import ModelSpec, Upstream
from .hearing import Heard

#: What frames and blocks may hold that is understood or known to say nothing (protocol C.5, C.6).
_FRAME_FIELDS: Final = frozenset(
    ("op", "mask", "eventOffset", "heartbeat", "chat", "message", "block", "notification", "exception", "error", "done")
)
_BLOCK_FIELDS: Final = frozenset(
    ("id", "parentId", "messageId", "message_id", "multiStage", "stage", "text", "think", "tool", "search", "exception")
)
_GENERATING: Final = re.compile(r".*_(?:GENERATING|UNSPECIFIED)")
_REFERENCE: Final = re.compile(r"[A-Za-z_][\w.-]{0,40}:\d{1,4}#\d{1,4}")
#: What may stand between the first sign of a citation and the next one: a word such as `cite`.
_MAX_WORD_CHARS: Final = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """Something new, in one sentence, and the values of upstream.yaml that take it in; empty when none can."""

    found: str
    overlay: dict[str, Any] = field(default_factory=dict)


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
    spoken = " ".join(text for place in _places(error) for text in _strings(place))
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
    for place in _dicts(body):
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


def lessons(heard: Heard, upstream: Upstream) -> list[Lesson]:
    """What an answer has that upstream.yaml does not explain, whether it ended well or not."""
    found = (_signs(heard, upstream), _status(heard, upstream), *_tools(heard, upstream), *_notices(heard, upstream))
    return [lesson for lesson in (*found, *_unknown_fields(heard)) if lesson is not None]


def _signs(heard: Heard, upstream: Upstream) -> Lesson | None:
    """Citation signs that are not in the file (protocol C.7, G.20)."""
    table = upstream.citations
    known = {"start": table.start, "separator": table.separator, "end": table.end}
    new: dict[str, list[str]] = {kind: [] for kind in known}
    text = texts_of(heard.values, "text")
    references = frozenset(_references(heard.values))
    for kind, sign in _roles(text, references):
        if sign not in known[kind] and sign not in new[kind]:
            new[kind].append(sign)
    new = {kind: signs for kind, signs in new.items() if signs}
    if not new:
        return None
    shown = ", ".join(f"{kind} U+{ord(sign):04X}" for kind, signs in new.items() for sign in signs)
    return Lesson(
        found=f"citations have other signs: {shown}",
        overlay={"citations": {kind: [*known[kind], *signs] for kind, signs in new.items()}},
    )


def _roles(text: str, references: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(kind, sign) for the signs of every mark: `start word separator ref ... end`, the word and its separator may be
    missing.
    """
    for match in _REFERENCE.finditer(text):
        if match[0] not in references:
            continue
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        if not (_is_sign(before) and _is_sign(after)):
            continue
        follows_another = any(text[: match.start() - 1].endswith(ref) for ref in references)
        head = re.search(r"[^\w\s\x00-\x7f]\w*$", text[max(0, match.start() - 2 - _MAX_WORD_CHARS) : match.start() - 1])
        opens = follows_another or (head is not None and _is_sign(head[0][0]))
        yield ("separator" if opens else "start"), before
        if opens and not follows_another and head is not None:
            yield "start", head[0][0]
        if not any(text.startswith(ref, match.end() + 1) for ref in references):
            yield "end", after


def _is_sign(character: str) -> bool:
    """A sign of its own: neither ASCII nor a letter, digit or space of any script."""
    return bool(character) and not character.isascii() and unicodedata.category(character)[0] not in "LNZM"


def _references(value: Any) -> Iterator[str]:
    for place in _dicts(value):
        for name in ("refIndex", "ref_index"):
            if isinstance(ref := place.get(name), str):
                yield ref


def _status(heard: Heard, upstream: Upstream) -> Lesson | None:
    """The word for a complete message, when an answer ended well with another one (protocol C.5)."""
    ends = [frame.value for frame in heard.frames if frame.flag is not None and frame.flag & END_STREAM]
    statuses = [
        status
        for value in heard.values
        if isinstance(value, dict)
        and isinstance(message := value.get("message"), dict)
        and message.get("role") != "user"
        and isinstance(status := message.get("status"), str)
    ]
    known = upstream.connect.completed_statuses
    if ends != [{}] or not statuses or statuses[-1] in known or _GENERATING.fullmatch(statuses[-1]):
        return None
    return Lesson(
        found=f"a complete answer has the status {statuses[-1]}",
        overlay={"connect": {"completed_statuses": [*sorted(known), statuses[-1]]}},
    )


def _tools(heard: Heard, upstream: Upstream) -> Iterator[Lesson]:
    """Native tools that search or ask under another name (protocol C.6)."""
    for name, arguments in _tool_calls(heard.values):
        for key, known, what in (
            ("queries", "search_tool_names", "searches"),
            ("questions", "question_tool_names", "asks the user"),
        ):
            names: frozenset[str] = getattr(upstream.connect, known)
            if name not in names and isinstance(arguments.get(key), list):
                yield Lesson(
                    found=f"a native tool named {name!r} {what}",
                    overlay={"connect": {known: [*sorted(names), name]}},
                )


def _tool_calls(values: Sequence[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names: dict[str, str] = {}
    for value in values:
        block = value.get("block") if isinstance(value, dict) else None
        tool = block.get("tool") if isinstance(block, dict) else None
        if not isinstance(block, dict) or not isinstance(tool, dict):
            continue
        if isinstance(name := tool.get("name"), str) and name:
            names[str(block.get("id"))] = name
        if isinstance(args := tool.get("args"), str) and value.get("op") != "append":
            try:
                arguments = orjson.loads(args)
            except orjson.JSONDecodeError:
                continue
            if isinstance(arguments, dict) and (known := names.get(str(block.get("id")))):
                yield known, arguments


def _notices(heard: Heard, upstream: Upstream) -> Iterator[Lesson]:
    for value in heard.values:
        notice = value.get("notification") if isinstance(value, dict) else None
        names = [notice.get(key) for key in ("type", "source")] if isinstance(notice, dict) else []
        if names and not any(name in upstream.connect.notices for name in names):
            yield Lesson(found=f"a notification of a kind nobody knows: {names[0] or names[1]}")


def _unknown_fields(heard: Heard) -> Iterator[Lesson]:
    frames: set[str] = set()
    blocks: set[str] = set()
    for frame in heard.frames:
        if frame.flag != 0 or not isinstance(frame.value, dict):
            continue
        frames |= frame.value.keys() - _FRAME_FIELDS
        if isinstance(block := frame.value.get("block"), dict):
            blocks |= block.keys() - _BLOCK_FIELDS
    for what, names in (("frames", frames), ("blocks", blocks)):
        if names:
            yield Lesson(found=f"{what} of a kind nobody knows, left out of the answer: {', '.join(sorted(names))}")


def texts_of(values: Sequence[Any], kind: str) -> str:
    """All text of an answer's blocks of `kind`, as it came."""
    pieces = []
    for value in values:
        block = value.get("block") if isinstance(value, dict) else None
        part = block.get(kind) if isinstance(block, dict) else None
        if isinstance(part, dict) and isinstance(piece := part.get("content"), str):
            pieces.append(piece)
    return "".join(pieces)


def _places(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The error itself, its `debug`, and `details[].debug` (protocol C.11)."""
    details = error.get("details")
    for place in (error, *(details if isinstance(details, list) else ())):
        if isinstance(place, dict):
            yield place
            if isinstance(debug := place.get("debug"), dict):
                yield debug


def _strings(value: Any) -> Iterator[str]:
    for place in _dicts(value):
        yield from (text for text in place.values() if isinstance(text, str))


def _dicts(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every JSON object in `value`."""
    if isinstance(value, dict):
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _dicts(below)


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
