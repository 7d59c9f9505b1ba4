"""What upstream.yaml would need to know: from an answer that it does not explain to a proposed overlay.

Law: a proposal is data of the file's own shape, and rests on what was seen: signs that stand around references of the
same answer, a status with which a whole answer ended, a tool whose arguments are queries (`failures` has what failed
calls teach). What is new but nothing in the file can say is told in words only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ..protocols.connect.envelope import END_STREAM
from ..upstream import Upstream
from .hearing import Heard, objects_in
from .redaction import is_word

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
        follows_another = any(text.endswith(ref, 0, match.start() - 1) for ref in references)
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
    for place in objects_in(value):
        for name in ("refIndex", "ref_index"):
            if isinstance(ref := place.get(name), str) and ref:
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
            if name not in names and is_word(name) and isinstance(arguments.get(key), list):
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
