"""Spellings of calls as compiled patterns, and a window onto text that is still arriving.

`Source` is what every reader reads from. Its `attempt` decides whether a pattern stands at a place, does not, or can't
be told yet. Law: the answer depends on the text alone, never on how it was cut, and costs the same however long the
text is: a pattern has `WINDOW_CHARS` to match.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Literal

import regex

from ..dialects import Families

WINDOW_CHARS: Final = 600
#: What is left of a tag at the end of an answer is text when it is this short: it may be a mere "<".
_SHORT_TAG_CHARS: Final = 4

#: How models escape what could be taken for a tag.
ENTITY = regex.compile(r"&(?:lt|gt|amp|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
#: Names of tools and of arguments between tags.
_NAME = r"(?P<name>[A-Za-z_][\w.:/-]{0,127})"
_KEY = r"(?P<key>[A-Za-z_$][\w.$-]{0,127})"
_FENCE = r"(?P<fence>```[\w-]{0,20}\s{1,4})?"
_TAG = r"<(?P<tag>[A-Za-z_][\w.-]{0,127})>"
_CLOSING_TAG = r"</(?P<tag>[A-Za-z_][\w.-]{0,127})>"
_QUOTED = r'"[^"\\\n]{0,128}"'

Match = Any
#: `regex` patterns have no public generic type.
Pattern = Any


class Status(enum.Enum):
    """How far a reader got."""

    MORE = "more text is needed"
    DONE = "complete"
    BROKEN = "over, but not readable as it is"
    NOTHING = "not what this reader reads"


class Source:
    """Text from `at` on is unread. Readers advance `at`."""

    __slots__ = ("at", "final", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        #: Nothing will be added any more.
        self.final = False

    def add(self, text: str) -> None:
        """Append what has arrived."""
        self.text = self.text[self.at :] + text
        self.at = 0

    def put_back(self, text: str) -> None:
        """Make `text` the next to be read."""
        self.text = text + self.text[self.at :]
        self.at = 0

    def cut_off(self, *patterns: Pattern, short_chars: int = _SHORT_TAG_CHARS) -> bool:
        """Whether the text is over in the middle of one of `patterns`, which begins at `at`."""
        if not self.final or not short_chars < len(self.text) - self.at < WINDOW_CHARS:
            return False
        tries = (pattern.fullmatch(self.text, self.at, partial=True) for pattern in patterns)
        return any(found is not None and found.partial for found in tries)

    @property
    def ended(self) -> bool:
        """Nothing is left to read for now."""
        return self.at >= len(self.text)

    def attempt(self, pattern: Pattern, at: int | None = None) -> Match | Literal["wait"] | None:
        """The match of `pattern` at a place, "wait" while more text decides, or None."""
        start = self.at if at is None else at
        end = start + WINDOW_CHARS
        whole = self.final or len(self.text) >= end
        found = pattern.match(self.text, start, end, partial=not whole)
        return "wait" if found is not None and found.partial else found

    def find(self, trigger: re.Pattern[str], patterns: Iterable[Pattern]) -> Match | Literal["wait"] | None:
        """Advance to the first place where one of `patterns` stands or may stand; None: to the end, there is none.
        `trigger` matches all that they may begin with.
        """
        while place := trigger.search(self.text, self.at):
            self.at = place.start()
            for pattern in patterns:
                if (found := self.attempt(pattern)) is not None:
                    return found
            self.at += 1
        self.at = len(self.text)
        return None

    def skip_blanks(self) -> bool:
        """Advance past white space; False when nothing follows for now."""
        found = _BLANKS.match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        return self.at < len(self.text)


_BLANKS = re.compile(r"\s*")


class Ending:
    """What ends one family's body: its own end, and everything else that can't be part of it."""

    __slots__ = ("first", "own", "text_run")

    def __init__(self, own: str | None) -> None:
        self.own: Pattern | None = regex.compile(own) if own else None
        self.first = _first(own) if own else ""
        #: A run inside a JSON string in which nothing needs a second look; its escapes are simple ones.
        plain = r'[^"\\\x00-\x1f' + re.escape(self.first) + "]"
        harmless = f"|{_harmless(self.first, self.own)}" if self.own is not None else ""
        self.text_run = re.compile(rf'(?:{plain}+{harmless}|\\["\\/bfnrt])+')


class Markup:
    """All families, compiled."""

    def __init__(self, families: Families) -> None:
        self.families = families
        self.named_ends = [Ending(family.end) for family in families.named]
        self.json_ends = [Ending(family.end) for family in families.json_calls]
        self.bare_end = Ending(None)
        self.fenced_end = Ending("```")
        named = [f"(?P<n{i}>{_named(family.start)})" for i, family in enumerate(families.named)]
        json_calls = [f"(?P<j{i}>{family.start})" for i, family in enumerate(families.json_calls)]
        noise = f"(?P<noise>{'|'.join(families.noise)})"
        closing = f"(?P<closing>{'|'.join(families.closing)})"
        tag, bare = f"(?P<t>{_TAG})", f"(?P<bare>{self._bare_json()})"
        openers = [*named, *json_calls, noise]
        #: What may begin a call in plain text, before and after a first call.
        # A family may begin with a fence itself: that comes first.
        own = "|".join((*named, *json_calls))
        self.opening = regex.compile(f"{own}|{_FENCE}(?:{'|'.join((*openers, bare, tag))})")
        self.opening_after_call = regex.compile(f"{own}|{_FENCE}(?:{'|'.join((*openers, closing, bare, tag))})")
        #: What can't be part of a call's body, outside of its strings.
        self.boundary = regex.compile("|".join((*openers, closing)))
        self.starts = regex.compile("|".join((*named, *json_calls)))
        self.parameter = regex.compile("|".join(f"(?:{p.replace('{name}', _KEY)})" for p in families.parameter))
        self.parameter_end = regex.compile(families.parameter_end)
        self.arguments = regex.compile(families.arguments)
        self.fence = regex.compile(_FENCE)
        self.tag = regex.compile(_TAG)
        self.closing_tag = regex.compile(_CLOSING_TAG)
        patterns = [f.start for f in (*families.named, *families.json_calls)] + [*families.noise, *families.closing]
        self._first_characters = "".join(sorted({_first(p) for p in patterns} | set("<`[{")))
        #: Places in plain text that deserve a second look.
        self.trigger = re.compile(
            "|".join(_suspicious(first, self.opening, self.opening_after_call) for first in self._first_characters)
        )
        #: A run inside an argument between tags in which nothing does.
        ends = (ending.own for ending in self.named_ends)
        inside = (self.parameter, self.parameter_end, self.closing_tag, self.boundary, *ends)
        self.value_run = re.compile(rf"(?:[^<&\[]+|{_harmless('<', *inside)}|{_harmless('[', *inside)})+")

    def ends_with(self, ending: Ending) -> tuple[Pattern, ...]:
        """What a body with this ending can't go on behind: its own end, and what belongs to another call."""
        return (self.boundary,) if ending.own is None else (ending.own, self.boundary)

    def trigger_with(self, ending: Ending) -> re.Pattern[str]:
        """Characters at which one of `ends_with` may begin."""
        return _trigger(self._first_characters + ending.first)

    def _bare_json(self) -> str:
        """A call as JSON without any tag, up to the colon before its arguments."""
        families = self.families
        names, arguments, wrappers = (
            "(?:" + "|".join(sorted(map(re.escape, keys), key=len, reverse=True)) + ")"
            for keys in (families.name_keys, families.argument_keys, families.wrapper_keys)
        )
        blank = r"\s{0,40}"
        return (
            rf"(?P<body>\[?{blank}\[?{blank}\{{{blank}\{{?{blank}"
            rf'(?:"{wrappers}"{blank}:{blank}\[{blank}\{{{blank})?'
            rf'(?:"(?:id|type)"{blank}:{blank}{_QUOTED}{blank},{blank}){{0,2}}'
            rf'(?:"function"{blank}:{blank}\{{{blank})?'
            rf'"{names}"{blank}:{blank}"(?P<name>[^"\\\n]{{1,128}})"{blank},{blank}"{arguments}"{blank}:)'
        )


def _named(pattern: str) -> str:
    return pattern.replace("{name}", _NAME)


def _first(pattern: str) -> str:
    """The character that a pattern begins with."""
    if pattern.startswith("\\"):
        return "\n" if pattern[1] == "n" else pattern[1]
    return pattern[0]


def _followers(first: str, *patterns: Pattern) -> str:
    """A character class of what may stand behind `first` where one of `patterns` begins with it."""
    ascii_ones = [chr(code) for code in range(128) if any(p.match(first + chr(code), partial=True) for p in patterns)]
    others = r"\u0080-\U0010ffff" if any(p.match(first + "\u00e9", partial=True) for p in patterns) else ""
    return "[" + "".join(map(re.escape, ascii_ones)) + others + "]" if ascii_ones or others else "(?!)"


def _suspicious(first: str, *patterns: Pattern) -> str:
    return rf"{re.escape(first)}(?=\Z|{_followers(first, *patterns)})"


def _harmless(first: str, *patterns: Pattern) -> str:
    return rf"{re.escape(first)}(?!\Z|{_followers(first, *patterns)})"


@lru_cache(maxsize=64)
def _trigger(characters: str) -> re.Pattern[str]:
    return re.compile("[" + re.escape(characters) + "]")


@lru_cache(maxsize=8)
def markup(families: Families) -> Markup:
    """The compiled form of a data section, made once."""
    return Markup(families)
