"""`stop`: the answer ends before any of the caller's strings (the service has no such parameter).

Law: nothing that could be the beginning of a stop string is shown before it is clear that it is none; the string that
is complete first counts, of several the longest. So the result never depends on how the answer was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import BadRequest

#: OpenAI takes 4, Anthropic and Google more.
_MAX_STOPS = 64
_MAX_STOP_CHARS = 1000


def stop_sequences(value: Any) -> tuple[str, ...]:
    """The strings of a `stop` parameter: one, a list, or nothing. Raises BadRequest."""
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, Sequence) or not all(isinstance(one, str) for one in found):
        raise BadRequest("stop must be a string or a list of strings")
    if len(found) > _MAX_STOPS or any(len(one) > _MAX_STOP_CHARS for one in found):
        raise BadRequest(f"stop takes at most {_MAX_STOPS} strings of at most {_MAX_STOP_CHARS} characters")
    return tuple(dict.fromkeys(one for one in found if one))


class StopFilter:
    """Feed it the answer's text; `stopped` is the string that ended it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped: str | None = None

    def feed(self, text: str) -> str:
        """What may be shown."""
        if self.stopped is not None:
            return ""
        text = self._held + text
        if (ending := self._first(text)) is not None:
            begin, self.stopped = ending
            self._held = ""
            return text[:begin]
        hold = self._open_chars(text)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]

    def close(self) -> str:
        """What was held back for nothing."""
        held, self._held = self._held, ""
        return "" if self.stopped is not None else held

    def _first(self, text: str) -> tuple[int, str] | None:
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found)[1:] if found else None

    def _open_chars(self, text: str) -> int:
        """How many characters at the end may begin a stop string."""
        longest = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:size]):
                    longest = size
                    break
        return longest
