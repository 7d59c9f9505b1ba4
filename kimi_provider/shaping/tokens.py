"""Counting tokens without a tokenizer.

The streams carry no usage numbers (protocol E.10), so tokens are estimated from text, cheaply: a request of a
megabyte must not cost a tokenizer's second. A quarter of a token per byte of UTF-8 is a quarter per ASCII character and
three quarters per wide one.
"""

from __future__ import annotations

from typing import Final

_BYTES_PER_TOKEN: Final = 4


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, estimated; 0 for none, else at least 1."""
    return max(1, round(_bytes(text) / _BYTES_PER_TOKEN)) if text else 0


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class TokenLimit:
    """Lets as much text pass as an estimate of `max_tokens` allows; `reached` once it had to cut."""

    def __init__(self, max_tokens: int) -> None:
        self._left_bytes = max_tokens * _BYTES_PER_TOKEN
        self.reached = False

    def feed(self, text: str) -> str:
        """The part of `text` that is within the limit."""
        if self.reached:
            return ""
        size = _bytes(text)
        if size <= self._left_bytes:
            self._left_bytes -= size
            return text
        self.reached = True
        # A character that does not fit whole is left out.
        return text.encode("utf-8", "surrogatepass")[: self._left_bytes].decode("utf-8", "ignore")
