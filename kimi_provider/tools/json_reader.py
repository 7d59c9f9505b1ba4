"""JSON inside a call, read while it arrives (protocol E.5).

Law: `Steps` are told only what is sure, so an open string may be passed on piece by piece while its closing quote waits
for what follows it. Small slips are forgiven at once: raw line breaks and odd escapes in strings, doubled braces,
trailing commas, Python's literals, fences. At anything worse the steps stop, the rest is only collected, and the
result is BROKEN: the caller then repairs `raw` as a whole, once.

An end tag inside a string (`json_string`) may have been the end of a call whose closing quote is missing; if it was,
reading goes on right behind it.
"""

from __future__ import annotations

import enum
import json
import re

import regex

from .json_string import JsonString
from .markup import Ending, Markup, Source, Status
from .values import Steps

_FENCE_END = regex.compile("```")
_FENCE = regex.compile(r"```[\w-]{0,20}\s")
_SCALAR = regex.compile(r"[A-Za-z0-9+.\-]{1,64}(?=[^A-Za-z0-9+.\-])")
_SCALAR_AT_END = regex.compile(r"[A-Za-z0-9+.\-]{1,64}")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
#: Deeper JSON is no call's; nothing that handles values recursively must be led on.
_MAX_NESTING = 100
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


class _Expect(enum.Enum):
    VALUE = 0
    KEY = 1
    COLON = 2
    COMMA = 3


class JsonReader:
    """Reads one value, or several with `several`, up to `ending`. `raw` is all that was read of it."""

    def __init__(self, steps: Steps, markup: Markup, ending: Ending, *, several: bool) -> None:
        self._steps = steps
        self._ends = markup.ends_with(ending)
        self._trigger = markup.trigger_with(ending)
        self._ending = ending
        self._several = several
        #: "{", "[" or "{{" for each open bracket.
        self._open: list[str] = []
        self._expect = _Expect.VALUE
        self._values = 0
        self._fenced = False
        self._string = JsonString(steps, ending)
        self._broken = False
        #: White space behind the last value: the answer's, unless an end tag follows.
        self._gap: list[str] = []
        self._raw: list[str] = []
        self._raw_chars = 0

    @property
    def raw(self) -> str:
        """What was read, without the end tag."""
        return "".join(self._raw)

    def read(self, source: Source) -> Status:
        """Advance `source`."""
        while True:
            start = source.at
            status = self._step(source)
            if source.at > start:
                self._raw.append(source.text[start : source.at])
                self._raw_chars += source.at - start
            if status is not None:
                return self._ended(source, status)

    def _ended(self, source: Source, status: Status) -> Status:
        """Go back to a suspected end, if that is what it was; leave the own end tag behind."""
        if status is Status.MORE or status is Status.NOTHING:
            return status
        if status is Status.BROKEN and self._string.suspect is not None:
            start, end = self._string.suspect
            raw = self.raw
            source.put_back(raw[end:])
            self._raw = [raw[:start]]
            return status
        if self._ending.own is not None and isinstance(found := source.attempt(self._ending.own), regex.Match):
            source.at = found.end()
        elif status is Status.DONE:
            source.put_back("".join(self._gap))
        return status

    def _step(self, source: Source) -> Status | None:
        """Read one thing; a status ends the reading, None goes on."""
        if self._broken:
            return self._to_the_end(source)
        if self._string.open:
            return self._in_string(source)
        before = source.at
        more = source.skip_blanks()
        if self._values and not self._open:
            self._gap.append(source.text[before : source.at])
        if not more:
            if not source.final:
                return Status.MORE
            return self._complete_or_broken()
        if (ended := self._at_end(source)) is not None:
            return ended
        if not self._open:
            return self._outside(source)
        match self._expect:
            case _Expect.VALUE:
                return self._value(source)
            case _Expect.KEY:
                return self._object_key(source)
            case _Expect.COLON:
                return self._colon(source)
            case _Expect.COMMA:
                return self._after_value(source)

    def _complete_or_broken(self) -> Status:
        if self._open:
            return Status.BROKEN
        return Status.DONE if self._values else Status.NOTHING

    def _at_end(self, source: Source) -> Status | None:
        """Whether the body is over here."""
        if not self._trigger.match(source.text, source.at):
            return None
        for pattern in self._ends:
            found = source.attempt(pattern)
            if found == "wait":
                return Status.MORE
            if found is not None:
                return self._complete_or_broken()
        return None

    # --- structure ----------------------------------------------------------------------------------------------

    def _outside(self, source: Source) -> Status | None:
        character = source.text[source.at]
        if character == "`" and self._fenced == bool(self._values):
            fence = source.attempt(_FENCE_END if self._fenced else _FENCE)
            if fence == "wait":
                return Status.MORE
            if isinstance(fence, regex.Match):
                self._fenced = not self._fenced
                self._gap.clear()
                source.at = fence.end()
                return None
        if character in "{[" and (self._several or not self._values):
            self._gap.clear()
            return self._begin(source, character)
        if self._values and (character in "}]" or (self._several and character in ",;")):
            source.at += 1  # what was doubled at the beginning
            self._gap.clear()
            return None
        if character == '"' and not self._values and not self._several:
            return self._value(source)
        return Status.DONE if self._values else Status.NOTHING

    def _begin(self, source: Source, bracket: str) -> Status | None:
        if len(self._open) >= _MAX_NESTING:
            return self._violation()
        source.at += 1
        self._open.append(bracket)
        self._expect = _Expect.KEY if bracket == "{" else _Expect.VALUE
        self._steps.begin(bracket)
        return None

    def _value(self, source: Source) -> Status | None:
        character = source.text[source.at]
        if character in "{[":
            return self._begin(source, character)
        if character == '"':
            source.at += 1
            self._string.begin()
            return None
        if character == "]" and self._open[-1:] == ["["]:
            return self._end(source)
        found = source.attempt(_SCALAR)
        if found == "wait":
            return Status.MORE
        if found is None and source.final:
            found = source.attempt(_SCALAR_AT_END)
        if not isinstance(found, regex.Match):
            return self._violation()
        word = found[0]
        if word in _WORDS:
            self._steps.scalar(_WORDS[word])
        elif _NUMBER.fullmatch(word):
            number = json.loads(word)
            self._steps.scalar(number if abs(number) != float("inf") else word)
        else:
            return self._violation()
        source.at = found.end()
        self._expect = _Expect.COMMA
        return None

    def _object_key(self, source: Source) -> Status | None:
        match source.text[source.at]:
            case '"':
                source.at += 1
                self._string.begin_key()
            case "}":
                return self._end(source)
            case ",":
                source.at += 1
            case "{" if self._open[-1] == "{" and not self._string.waits:
                self._open[-1] = "{{"
                source.at += 1
            case _:
                return self._violation()
        return None

    def _colon(self, source: Source) -> Status | None:
        if source.text[source.at] != ":":
            return self._violation()
        source.at += 1
        self._string.prove()
        self._steps.key(self._string.key)
        self._expect = _Expect.VALUE
        return None

    def _after_value(self, source: Source) -> Status | None:
        character = source.text[source.at]
        if character == ",":
            source.at += 1
            if self._open[-1] == "[":
                self._string.prove()
                self._expect = _Expect.VALUE
            else:
                self._expect = _Expect.KEY
            return None
        if character == ("]" if self._open[-1] == "[" else "}"):
            return self._end(source)
        return self._violation()

    def _end(self, source: Source) -> Status | None:
        source.at += 1
        self._string.prove()
        self._expect = _Expect.COMMA
        if self._open[-1] == "{{":
            self._open[-1] = "{"
            return None
        self._open.pop()
        self._steps.end()
        self._values += not self._open
        return None

    def _violation(self) -> Status | None:
        if self._string.suspect is not None:
            return Status.BROKEN
        self._broken = True
        return None

    def _in_string(self, source: Source) -> Status | None:
        status = self._string.read(source, self._raw_chars)
        if self._string.open:
            return status
        if self._string.is_key:
            self._expect = _Expect.COLON
        elif self._open:
            self._expect = _Expect.COMMA
        else:
            self._values += 1
            self._string.prove()
        return status

    def _to_the_end(self, source: Source) -> Status:
        """Collect everything up to the first thing that can't belong to the body."""
        found = source.find(self._trigger, self._ends)
        return Status.MORE if found == "wait" or (found is None and not source.final) else Status.BROKEN
