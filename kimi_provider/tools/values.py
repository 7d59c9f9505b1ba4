"""What is made of JSON while it is read: a value here, text that is passed on at once in `json_writer`.

Both take the same steps (`Steps`), one for each thing that a reader has understood for sure.
"""

from __future__ import annotations

from typing import Any, Protocol


class Steps(Protocol):
    """How a reader tells what it found."""

    def begin(self, bracket: str) -> None:
        """`{` or `[`."""

    def key(self, name: str) -> None:
        """A key of the innermost object; its value follows."""

    def text_begin(self) -> None:
        """A string begins."""

    def text(self, piece: str) -> None:
        """More of the string, decoded."""

    def text_end(self) -> None:
        """The string is complete."""

    def scalar(self, value: Any) -> None:
        """A number, a boolean or null."""

    def end(self) -> None:
        """The innermost object or list is complete."""


class ValueBuilder:
    """Steps -> a Python value. `complete` once the outermost value is."""

    def __init__(self) -> None:
        self.value: Any = None
        self.complete = False
        self._open: list[tuple[Any, str | None]] = []
        self._key: str | None = None
        self._pieces: list[str] = []

    def begin(self, bracket: str) -> None:
        """See Steps."""
        self._open.append(({} if bracket == "{" else [], self._key))
        self._key = None

    def key(self, name: str) -> None:
        """See Steps."""
        self._key = name

    def text_begin(self) -> None:
        """See Steps."""
        self._pieces = []

    def text(self, piece: str) -> None:
        """See Steps."""
        self._pieces.append(piece)

    def text_end(self) -> None:
        """See Steps."""
        self.scalar("".join(self._pieces))

    def scalar(self, value: Any) -> None:
        """See Steps."""
        if not self._open:
            self.value, self.complete = value, True
        elif isinstance(container := self._open[-1][0], dict):
            container[self._key or ""] = value
        else:
            container.append(value)

    def end(self) -> None:
        """See Steps."""
        value, self._key = self._open.pop()
        self.scalar(value)
