"""One answer's schedule, carried by the prompt: how many tokens, how fast, how many to a write.

Both ends know it, so that the client can compare the whole text. Tokens are distinct: LiteLLM ends a stream that
repeats itself a hundred times. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_SYLLABLES = [c + v for c in "bdfghjklmnprstvw" for v in "ai"]
_DIRECTIVE = re.compile(rb"tokens=(\d+) rate=([\d.]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """`rate` is in tokens a second, 0 for as fast as it goes."""

    tokens: int
    rate: float = 0.0

    @property
    def prompt(self) -> str:
        return f"Bench: tokens={self.tokens} rate={self.rate:g}"

    @property
    def text(self) -> str:
        """What the client must read."""
        return "".join(words(self.tokens))

    @classmethod
    def found_in(cls, body: bytes) -> Plan:
        """The plan in a request body of either protocol."""
        found = _DIRECTIVE.search(body)
        if found is None:
            raise ValueError("the request names no plan")
        return cls(tokens=int(found[1]), rate=float(found[2]))


@cache
def words(count: int) -> tuple[str, ...]:
    """`count` different tokens such as `badifa `."""
    size = len(_SYLLABLES)
    return tuple(
        f"{_SYLLABLES[n // size**2 % size]}{_SYLLABLES[n // size % size]}{_SYLLABLES[n % size]} " for n in range(count)
    )
