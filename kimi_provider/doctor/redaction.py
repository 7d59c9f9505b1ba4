"""What the service said, without anything of the account's owner (docs/doctor.md).

Law: what is not known to be the protocol's own word is replaced. Kept are field names, enum words, small numbers, and
plain words in fields that hold the protocol's words; ids become placeholders, the same one for the same id; addresses
and times become others; of error messages those words stay by which `upstream.yaml` tells errors apart. All other text
keeps its length, spaces and punctuation, and loses every letter and digit. Citation marks stay when they name a source
of the same answer. Text that came in pieces is judged whole, and cut again where it was cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..upstream import Upstream

#: Fields whose plain words are the protocol's.
_WORD_FIELDS: Final = frozenset(
    (
        *("op", "mask", "role", "code", "reason", "type", "event", "source", "status", "scenario", "severity"),
        *("effort", "reasoning_effort", "context_length", "model", "key", "agentMode", "agent_mode", "kimiPlusId"),
        *("kimiplus_id", "kimi_plus_id", "locale", "region", "view", "flags", "zone_type", "error_type", "fieldName"),
    )
)
#: Fields of words that people and models write: no enum is looked for there.
_TEXT_FIELDS: Final = frozenset(
    (
        "content",
        "text",
        "args",
        "summary",
        "title",
        "snippet",
        "name",
        "nickname",
        "description",
        "displayName",
        "query",
    )
)
#: Names are people's, except those of tools and stages; ids are the account's, except those of models.
_WORD_PLACES: Final = frozenset({("tool", "name"), ("stages", "name"), ("stage", "name"), ("availableModels", "id")})
_MESSAGE_FIELDS: Final = frozenset({"message", "detail"})

_ENUM: Final = re.compile(r"(?=.{3,64}$)[A-Z]{1,16}(?:_(?:[A-Z]{1,16}|[A-Z0-9]{1,5}))+")
_WORD: Final = re.compile(r"[A-Za-z]?[a-z]{0,20}(?:[A-Z][a-z]{1,15}){0,4}\d{0,3}|[a-z]\d[a-z]\d|[A-Z]{2}")
_WORD_CHARS: Final = re.compile(r"(?=.{1,120}$)[A-Za-z][A-Za-z0-9]*(?:[._,:-][A-Za-z0-9]+)*")
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
#: Ids that are numbers within an answer: of blocks, results, tool calls.
_SMALL_ID: Final = re.compile(r"\d{1,4}(?:_\d{1,4})?|[a-z]{1,2}\d{1,3}|[a-z]{1,12}(?:_[a-z]{1,12}){0,2}[:_]\d{1,4}")
_REFERENCE: Final = re.compile(r"[a-z]{1,12}(?:_[a-z]{1,12}){0,2}:\d{1,4}#\d{1,4}|\d{1,3}")
_SECRET_FIELD: Final = re.compile(r"token|secret|cookie|passw|authorization", re.IGNORECASE)
_ID_FIELD: Final = re.compile(r"id|.*(?:Id|_id|Ids|_ids)")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S{0,16}")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
#: Where references stand in text (protocol C.7), whatever signs are around them.
_MARK: Final = re.compile(
    r"(?P<open>\[\^|\[\[(?:cite:)?|[^\x00-\x7f])(?P<ref>[a-z_]{1,38}:\d{1,4}#\d{1,4}|\d{1,3})(?=(?P<close>\^?\]|[^\x00-\x7f]|:~:))"
)
_JSON_KEY: Final = re.compile(r'"[a-z_]{1,16}"(?=\s*:)')
_JSON_ESCAPE: Final = re.compile(r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])')

_WIDE_FROM: Final = 0x2E80  # CJK and what follows: three bytes in UTF-8, as their stand-in
_KEPT_CATEGORIES: Final = "PSZ"


@dataclass(frozen=True, slots=True)
class _Text:
    """A piece of text that waits for the rest of its block: where it goes, and what it belongs to."""

    place: dict[str, Any] | list[Any]
    key: Any
    block: tuple[str, ...]
    piece: str


@dataclass(slots=True)
class Counts:
    """How much was replaced."""

    ids: int = 0
    addresses: int = 0
    characters: int = 0


@dataclass(slots=True)
class Redactor:
    """Redacts the calls of one recording; the same id gets the same placeholder in all of them."""

    upstream: Upstream
    counts: Counts = field(default_factory=Counts)
    _ids: dict[str, str] = field(default_factory=dict)
    _addresses: dict[str, str] = field(default_factory=dict)
    _error_words: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        patterns = " ".join(pattern.pattern for pattern in self.upstream.errors.patterns)
        self._error_words = frozenset(re.findall(r"[a-z]{3,}", patterns.lower()))

    def path(self, path: str) -> str:
        """The path of an address; what is no plain word in it is an id."""
        return "/".join(part if not part or is_word(part) else self._id(part) for part in path.split("/"))

    def value(self, value: Any) -> Any:
        """One JSON value."""
        return self.values((value,))[0]

    def values(self, values: Sequence[Any]) -> list[Any]:
        """The JSON of a stream's frames, in order; texts of one block are one text."""
        texts: list[_Text] = []
        out: list[Any] = []
        for value in values:
            out.append(None)
            self._put(out, len(out) - 1, value, (), "", texts)
        references = frozenset(_references(values))
        blocks: dict[tuple[str, ...], list[_Text]] = {}
        for text in texts:
            blocks.setdefault(text.block, []).append(text)
        for block, pieces in blocks.items():
            whole = "".join(text.piece for text in pieces)
            masked = _json_masked(whole) if block[-1] == "args" else _masked(whole, _marks(whole, references))
            self.counts.characters += sum(old != new for old, new in zip(whole, masked, strict=True))
            at = 0
            for text in pieces:
                text.place[text.key] = masked[at : at + len(text.piece)]
                at += len(text.piece)
        return out

    def _put(self, place: Any, key: Any, value: Any, path: tuple[str, ...], block: str, texts: list[_Text]) -> None:
        """Put what `value` becomes at `place[key]`; `path` leads to it, without positions in lists."""
        match value:
            case dict():
                made: dict[str, Any] = {}
                place[key] = made
                own = value.get("id") if path[-1:] == ("block",) else value.get("event") if not path else None
                block = own if isinstance(own, str) else block
                for name, below in value.items():
                    shown = name if _FIELD.fullmatch(name) and sum(map(str.isdigit, name)) < 4 else self._id(name)
                    self._put(made, shown, below, (*path, shown), block, texts)
            case list():
                items: list[Any] = [None] * len(value)
                place[key] = items
                for at, below in enumerate(value):
                    self._put(items, at, below, path, block, texts)
            case str():
                kept = self._word(value, path)
                place[key] = kept
                if kept is None:
                    # A text alone is its own block: only those of blocks and events go on in other frames.
                    owner = (block, *path) if block else (str(len(texts)), *path)
                    texts.append(_Text(place, key, owner, value))
            case bool() | None:
                place[key] = value
            case int():
                place[key] = value if abs(value) < 10_000 or path[-1:] == ("eventOffset",) else 10_000
            case _:
                place[key] = 0.5

    def _word(self, value: str, path: tuple[str, ...]) -> str | None:
        """What stands for a string; None when it is text."""
        name, place = path[-1] if path else "", path[-2:]
        if not value or (name not in _TEXT_FIELDS and _ENUM.fullmatch(value)):
            return value
        if _SECRET_FIELD.search(name):
            return "[redacted]"
        if "://" in value:
            self.counts.addresses += 1
            return self._addresses.setdefault(value, f"https://example.com/{len(self._addresses) + 1}")
        if _TIME.fullmatch(value) or _DATE.fullmatch(value):
            return "2026-01-01T00:00:00Z" if "T" in value else "2026-01-01"
        if (name in _WORD_FIELDS or place in _WORD_PLACES) and (is_word(value) or _ENUM.fullmatch(value)):
            return value
        if name in ("refIndex", "ref_index") and _REFERENCE.fullmatch(value):
            return value
        if _ID_FIELD.fullmatch(name):
            return value if _SMALL_ID.fullmatch(value) else self._id(value)
        if name in _MESSAGE_FIELDS:
            self.counts.characters += len(value)
            return _masked(value, self._known_words(value))
        return None

    def _known_words(self, message: str) -> Iterator[tuple[int, int]]:
        """Words of an error message that tell what it means."""
        for word in re.finditer(r"[A-Za-z]{3,}", message):
            if any(word[0].lower().startswith(one) and len(word[0]) <= len(one) + 3 for one in self._error_words):
                yield word.span()

    def _id(self, value: str) -> str:
        known = self._ids.get(value)
        if known is None:
            self.counts.ids += 1
            number = self.counts.ids
            if _UUID.fullmatch(value):
                known = f"00000000-0000-4000-8000-{number:012d}"
            elif re.fullmatch(r"[0-9a-z]{20}", value) and not value.isdigit():
                known = f"id{number:018d}"
            elif value.isdigit() and len(value) >= 12:
                known = "9000" + str(number).zfill(len(value) - 4)
            else:
                known = f"id-{number}"
            self._ids[value] = known
        return known


def is_word(value: str) -> bool:
    """Whether a string is made of plain words, such as `block.text.content` or `web_search`: nothing random."""
    runs = re.split(r"[._,:-]", value)
    return _WORD_CHARS.fullmatch(value) is not None and all(_WORD.fullmatch(run) for run in runs)


def _references(value: Any) -> Iterator[str]:
    """References by which an answer may cite, wherever they stand."""
    if isinstance(value, dict):
        for name in ("refIndex", "ref_index"):
            if isinstance(ref := value.get(name), str) and _REFERENCE.fullmatch(ref):
                yield ref
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _references(below)


def _marks(text: str, references: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Places of references and of the ASCII signs around them; other signs are no letters and stay by themselves."""
    for mark in _MARK.finditer(text):
        if mark["ref"] in references:
            yield mark.start() if mark["open"].isascii() else mark.start("ref"), mark.end()
            yield mark.end(), mark.end() + (len(mark["close"]) if mark["close"].isascii() else 0)


def _json_masked(text: str) -> str:
    """As `_masked`, for the JSON of a tool's arguments: it stays JSON with the same fields."""
    text = _JSON_ESCAPE.sub(lambda found: "\\u0078" if found[0].startswith("\\u") else found[0], text)
    kept = (match.span() for pattern in (_JSON_KEY, _JSON_ESCAPE) for match in pattern.finditer(text))
    return _masked(text, kept)


def _masked(text: str, kept: Iterable[tuple[int, int]]) -> str:
    """`text` without its letters and digits, except in the spans of `kept`; as long as before."""
    out = [_stand_in(character) for character in text]
    for start, end in kept:
        out[start:end] = text[start:end]
    return "".join(out)


def _stand_in(character: str) -> str:
    category = unicodedata.category(character)
    if character == "@":
        return "x"
    if character in "\n\t":
        return character
    # Some signs are letters in disguise, such as circled ones.
    if category[0] in _KEPT_CATEGORIES and not any(map(str.isalnum, unicodedata.normalize("NFKC", character))):
        return character
    if category == "Co" and ord(character) <= 0xFFFF:
        return character  # signs of citations are private-use characters (protocol C.7)
    if category[0] == "N":
        return "0"
    if ord(character) >= _WIDE_FROM:
        return "字"
    return "x" if character.isascii() or category[0] != "L" else "é"
