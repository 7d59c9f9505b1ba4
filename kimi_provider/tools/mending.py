"""Broken JSON -> the value that was meant, by json-repair, kept within bounds.

That library looks at each character again and again where brackets or quotes are missing, up to a cube of their number:
an answer of 24 KB could stop the process for a minute. So it reads from a text that counts the looks and refuses any
more when they are too many for an honest slip. What is not mended is None.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, SupportsIndex

import json_repair

#: Honest slips in a call's arguments take 1 to 3 looks per character.
_LOOKS_PER_CHAR: Final = 8
_LOOKS: Final = 2_000
#: Half a second of work, whatever the length.
_MAX_LOOKS: Final = 600_000


class _TooManyLooks(Exception):
    """The repair was given up."""


class _Metered(str):
    """Text that can be looked at only so many times."""

    __slots__ = ("looks_left",)

    looks_left: int

    def __getitem__(self, at: SupportsIndex | slice) -> str:
        found = super().__getitem__(at)
        self.looks_left -= 1 + len(found) // 64
        if self.looks_left < 0:
            raise _TooManyLooks
        return found


def mended(text: str) -> Any:
    """The value, or None."""
    metered = _Metered(text)
    metered.looks_left = min(_MAX_LOOKS, _LOOKS + _LOOKS_PER_CHAR * len(text))
    try:
        return _finite(json_repair.loads(metered))
    except (_TooManyLooks, ValueError, RecursionError):
        return None


def parsed(text: str) -> Any:
    """The value of JSON, broken or not; None when it can't be mended."""
    try:
        return _finite(json.loads(text, strict=False))
    except (ValueError, RecursionError):
        return mended(text)


def _finite(value: Any) -> Any:
    """JSON has no word for infinity: null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(below) for key, below in value.items()}
        case list():
            return [_finite(below) for below in value]
        case _:
            return value
