"""What a script speaks through when it is the same on either protocol: a turn, in so far as both have it.

Written for scenarios whose point is time, volume, or where a stream breaks; what an answer looks like is each
protocol's own, and so are the scripts about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ..accounts import Account
from ..chats import Message
from ..playing import HttpAnswer
from ..refusals import Refusal
from ..state import Simulator


class Speaker(Protocol):
    """An answer in the making; bytes are whole frames of its protocol."""

    simulator: Simulator
    account: Account
    jti: str
    media_type: str

    @property
    def answer(self) -> Message:
        """The assistant's message; exists after the opening."""

    def opening(self) -> Iterator[bytes]:
        """All that comes before the first text."""

    def view(self) -> str:
        """All that the model sees, after the opening."""

    def text(self, content: str) -> bytes:
        """The next piece of the answer."""

    def think(self, content: str) -> bytes:
        """The next piece of thinking."""

    def repeating(self, content: str) -> Callable[[int], bytes]:
        """A writer of the next so many pieces of text, pre-encoded; the caller keeps what the chat will remember."""

    def heartbeat(self) -> bytes:
        """What keeps a silent stream alive."""

    def raw(self, payload: bytes, *, last: bool = False) -> bytes:
        """A frame with any payload, or the one that ends a stream."""

    def done(self) -> bytes:
        """The answer is through, the stream is not."""

    def closing(self) -> Iterator[bytes]:
        """All that comes after the last text."""

    def failed(self, refusal: Refusal) -> bytes:
        """The frame that ends a failed answer."""

    def refused(self, refusal: Refusal, **headers: str) -> HttpAnswer:
        """The same with a status of its own, in place of a stream."""
