"""Citation marks in streamed text -> `[n]` and `Citation` (protocol C.7).

Law: text in, in any pieces; text without marks out, at once unless it could still be the beginning of a mark. Held
back is only what follows an open start sign or a `[` that can still become a mark, never across a line and never more
than `hold_chars`. Sign marks and `[^N^]` that resolve to nothing are dropped; `[[...]]` is a mark only when it
resolves, for it is also how code and lists are written. `n` counts sources in the order of their first use. Marks may
also be dropped, with nothing cited, or kept as they came, where text is no prose and what looks like a mark is none.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..events import Citation, Event, Source, TextDelta
from ..upstream import Citations
from . import Marks
from .sources import Sources

#: What a reference looks like: `web_search:1#0`, or a plain number.
_REF = r"(?:[A-Za-z_][\w.-]*:\d+\#\d+|\d+)"
#: A text fragment behind the reference: `web_search:1#5:~:text=...`.
_FRAGMENT = ":~:"

_CARET_MARK = re.compile(rf"\[\^({_REF}(?:,{_REF})*)(?::~:[^\^\]\n]*)?\^\]")
_DOUBLE_MARK = re.compile(r"\[\[(?:cite:)?([^\s\[\]]+)\]\]")
#: From a `[` to the end of what is there: can it still become one of the two?
_OPEN_BRACKET = re.compile(r"\[(?:\^(?:[\w.:,#~-]*(?::~:[^\^\]\n]*)?\^?)?|\[(?:[^\s\[\]]+\]?)?)?")
#: A reference whose end sign is missing, at the beginning of what follows the last separator.
_UNCLOSED_REF = re.compile(rf"{_REF}(?::~:\S*)?|[\x21-\x7e]+")

#: Text that takes the mark's place, sources to cite there, where the text goes on.
_Mark = tuple[str, list[Source], int]


@lru_cache(maxsize=8)
def _patterns(signs: Citations) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Anything that may begin a mark or has to go; a separator; where a mark ends: at its end sign, or unfinished
    before a line break or the next mark.
    """
    start, separator, end = (re.escape("".join(kind)) for kind in (signs.start, signs.separator, signs.end))
    dropped = f"{re.escape(signs.drop_from)}-{re.escape(signs.drop_to)}"
    return (
        re.compile(rf"[\[{start}{separator}{end}{dropped}]"),
        re.compile(f"[{separator}]"),
        re.compile(rf"[{start}{end}\n]"),
    )


class CitationResolver:
    """Marks of one answer; give it the answer's text in order."""

    def __init__(self, signs: Citations, sources: Sources, *, marks: Marks = "cite") -> None:
        self._sources = sources
        self._marks = marks
        self._hold_chars = signs.hold_chars
        self._start = frozenset(signs.start)
        self._end = frozenset(signs.end)
        self._special, self._separator, self._closing = _patterns(signs)
        self._numbers: dict[str, int] = {}
        self._held = ""

    def is_plain(self, text: str) -> bool:
        """Whether `text` may go out as it is: nothing is held back and no sign is in it. Costs next to nothing."""
        if self._marks == "keep":
            return True
        # The signs are never ASCII (checked by `upstream.Citations`).
        if text.isascii():
            return "[" not in text and not self._held
        return not self._held and not self._special.search(text)

    def feed(self, text: str) -> list[Event]:
        """Text deltas, each mark's `[n]` at the end of one and its `Citation` right behind it."""
        return self._resolve(self._held + text, final=False)

    def flush(self) -> list[Event]:
        """What is still held, at the end of the answer."""
        return self._resolve(self._held, final=True)

    def _resolve(self, text: str, *, final: bool) -> list[Event]:
        out: list[Event] = []
        plain: list[str] = []
        self._held = ""
        at = 0
        while found := self._special.search(text, at):
            plain.append(text[at : found.start()])
            if found[0] == "[":
                mark = self._bracket(text, found.start(), final)
            elif found[0] in self._start:
                mark = self._signed(text, found.start(), final)
            else:
                mark = ("", [], found.end())
            if mark is None:
                self._held = text[found.start() :]
                break
            kept, sources, at = mark
            plain.append(kept)
            for source in sources if self._marks == "cite" else ():
                number = self._numbers.setdefault(source.url, len(self._numbers) + 1)
                out += (TextDelta("".join((*plain, f"[{number}]"))), Citation(number=number, source=source))
                plain.clear()
        else:
            plain.append(text[at:])
        if rest := "".join(plain):
            out.append(TextDelta(rest))
        return out

    def _bracket(self, text: str, begin: int, final: bool) -> _Mark | None:
        """`[^N^]` and `[[ref]]`. The window makes the outcome the same however the text is cut."""
        window = begin + self._hold_chars
        if mark := _CARET_MARK.match(text, begin, window):
            return "", self._found(mark[1].split(",")), mark.end()
        if mark := _DOUBLE_MARK.match(text, begin, window):
            refs = mark[1].split(",")
            sources = self._found(refs)
            if len(sources) == len(refs):
                return "", sources, mark.end()
        elif not final and len(text) < window and _OPEN_BRACKET.fullmatch(text, begin):
            return None
        return "[", [], begin + 1

    def _signed(self, text: str, begin: int, final: bool) -> _Mark | None:
        """Start sign, a word, separators with references, end sign."""
        window = begin + self._hold_chars
        closing = self._closing.search(text, begin + 1, window)
        if closing is None and not final and len(text) < window:
            return None
        limit = closing.start() if closing else min(len(text), window)
        parts = self._separator.split(text[begin + 1 : limit])
        if closing and closing[0] in self._end:
            return "", self._found(parts), closing.end()
        if len(parts) == 1:
            # No reference followed: a stray sign, and the text behind it is the answer's.
            return "", [], begin + 1
        # The end sign is missing: the last reference ends where it can't go on, what follows is the answer's.
        last = _UNCLOSED_REF.match(parts[-1])
        length = last.end() if last else 0
        refs = [*parts[:-1], parts[-1][:length]]
        return "", self._found(refs), limit - len(parts[-1]) + length

    def _found(self, refs: list[str]) -> list[Source]:
        return [source for ref in refs if (source := self._sources.find(ref.partition(_FRAGMENT)[0].strip()))]
