"""The inside of a JSON string in a call, read while it arrives (protocol E.5).

Law: raw line breaks and odd escapes are forgiven. An end tag in it is either text or the end of a call whose closing
quote is missing; what follows the string tells. Until `prove` says that it was text, nothing more is passed on.
"""

from __future__ import annotations

import json

import regex

from .markup import Ending, Source, Status
from .values import Steps

_ESCAPE = regex.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^u])", regex.DOTALL
)


class JsonString:
    """Reads one string after the other: keys into `key`, values into `steps`."""

    def __init__(self, steps: Steps, ending: Ending) -> None:
        self._steps = steps
        self._ending = ending
        #: The closing quote has not been read.
        self.open = False
        self.is_key = False
        self._key: list[str] = []
        #: A value's closing quote was read, but not yet what proves that it is one.
        self.waits = False
        #: Where in the call's text an end tag inside a string begins and ends, and the string behind it.
        self.suspect: tuple[int, int] | None = None
        self._behind: list[str] = []

    @property
    def key(self) -> str:
        """The key that was read last."""
        return "".join(self._key)

    def begin(self) -> None:
        """The opening quote of a value was read."""
        self.open, self.is_key = True, False
        self._steps.text_begin()

    def begin_key(self) -> None:
        """The opening quote of a key was read."""
        self.open = self.is_key = True
        self._key = []

    def read(self, source: Source, at: int) -> Status | None:
        """Read one thing of it, the closing quote at the last; `at` is where in the call's text that stands."""
        if run := self._ending.text_run.match(source.text, source.at):
            source.at = run.end()
            self._text(json.loads(f'"{run[0]}"') if "\\" in run[0] else run[0])
            return None
        if source.ended:
            return Status.BROKEN if source.final else Status.MORE
        character = source.text[source.at]
        if character == '"':
            source.at += 1
            self.open = False
            self.waits = self.waits or not self.is_key
            return None
        if character == "\\":
            return self._escape(source)
        if character == self._ending.first and self.suspect is None:
            assert self._ending.own is not None
            if source.cut_off(self._ending.own):
                source.at = len(source.text)
                return Status.BROKEN
            found = source.attempt(self._ending.own)
            if found == "wait":
                return Status.MORE
            if isinstance(found, regex.Match):
                self.suspect = (at, at + len(found[0]))
                source.at = found.end()
                self._text(found[0])
                return None
        source.at += 1
        self._text(character)
        return None

    def _escape(self, source: Source) -> Status | None:
        found = source.attempt(_ESCAPE)
        if found == "wait":
            return Status.MORE
        if not isinstance(found, regex.Match):
            source.at += 1
            self._text("\\")
            return None
        sign = found[0]
        # Half a surrogate pair may turn out to be a whole one.
        if len(sign) == 6 and sign[2:4].lower() in ("d8", "d9", "da", "db") and not source.final:
            rest = source.text[found.end() : found.end() + 6]
            if len(rest) < 6 and "\\u".startswith(rest[:2]):
                return Status.MORE
        source.at = found.end()
        self._text(_unescaped(sign))
        return None

    def _text(self, piece: str) -> None:
        if self.is_key:
            self._key.append(piece)
        elif self.suspect is not None:
            self._behind.append(piece)
        else:
            self._steps.text(piece)

    def prove(self) -> None:
        """What follows has shown that the string is over, and that an end tag inside it was text."""
        self.suspect = None
        if self.waits:
            self.waits = False
            if self._behind:
                self._steps.text("".join(self._behind))
                self._behind = []
            self._steps.text_end()


def _unescaped(sign: str) -> str:
    """The character that an escape stands for; unknown ones stay as they are."""
    if sign[1] == "u":
        return json.loads(f'"{sign}"').encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # type: ignore[no-any-return]  # a string
    if sign[1] in '"\\/bfnrt':
        return json.loads(f'"{sign}"')  # type: ignore[no-any-return]  # a string
    return "'" if sign == "\\'" else sign
