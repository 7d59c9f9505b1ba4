"""The text of one argument between tags, on its way into the arguments.

Law: text goes on as it stands, as soon as it can't be anything else than text; values of other types wait for their
end. Models escape some values for HTML and most not: a value without any raw `<` and lone `&`, but with escapes, was
escaped. From its first escape on it waits until that is settled.
"""

from __future__ import annotations

import html
from typing import Final

from .json_writer import ArgumentsWriter
from .schemas import View, from_markup

#: Text of this size is no "null" any more, whatever blanks are around it.
_NULL_CHARS: Final = 32


class ArgumentText:
    """Give it the pieces of one value in order."""

    def __init__(self, writer: ArgumentsWriter, key: str, view: View) -> None:
        self._writer = writer
        self._view = view
        kinds = view.kinds
        self._streams = not view.fixed and (kinds is None or kinds <= {"string", "null"})
        self._nullable = kinds is not None and "null" in kinds
        self._begun = False
        self._whole: list[str] = []
        self._escaped: list[str] | None = None
        self._raw = False
        writer.key(key)

    def add(self, piece: str) -> None:
        """Text that holds no sign."""
        if self._escaped is not None:
            self._escaped.append(piece)
        else:
            self._pass(piece)

    def sign(self, piece: str) -> None:
        """A raw `<` or `&`: the value is not escaped."""
        self._raw = True
        if self._escaped is not None:
            piece = "".join((*self._escaped, piece))
            self._escaped = None
        self._pass(piece)

    def entity(self, piece: str) -> None:
        """`&lt;` and its like."""
        if self._raw:
            self._pass(piece)
        elif self._escaped is None:
            self._escaped = [piece]
        else:
            self._escaped.append(piece)

    def end(self) -> None:
        """The value is complete."""
        if self._escaped is not None:
            self._pass(html.unescape("".join(self._escaped)))
        if self._begun:
            self._writer.text_end()
        else:
            self._writer.scalar(from_markup("".join(self._whole), self._view))

    def _pass(self, piece: str) -> None:
        if self._begun:
            self._writer.text(piece)
            return
        self._whole.append(piece)
        if not self._streams:
            return
        text = "".join(self._whole)
        if self._nullable and len(text) <= _NULL_CHARS and "null".startswith(text.strip()):
            return
        self._begun = True
        self._writer.text_begin()
        self._writer.text(text)
