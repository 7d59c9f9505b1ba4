"""What every generation of the service's protocol offers, and the list of them.

A protocol turns one `Turn` into events and knows neither accounts nor retries. A third protocol is one folder beside
`connect` and one line in `engine.protocols`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Protocol

from ..events import Event
from ..upstream import ModelSpec
from ..web import Session

#: A unary call that takes longer is of no use to anyone who waits for it.
UNARY_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message to the service.

    `effort` is the service's own value (`REASONING_EFFORT_LOW`) or None. `chat_id` and `parent_id` continue a chat
    (protocol E.1); without them a new one is opened. `deadline` is in loop time.
    """

    prompt: str
    spec: ModelSpec
    thinking: bool
    effort: str | None
    search: bool
    deadline: float
    chat_id: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveModel:
    """A row of the service's own model list (protocol C.8)."""

    id: str
    key: str
    title: str
    scenario: str
    kimiplus_id: str | None = None
    agent_mode: str | None = None
    efforts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Whose credential it is; ids only, no personal data."""

    user_id: str
    region: str = ""


class ChatProtocol(Protocol):
    """Chat over one protocol. Every method raises KimiError only."""

    name: str

    def stream(self, turn: Turn, session: Session) -> AsyncGenerator[list[Event], None]:
        """Batches of events; the last event of an answer is `Finished`. Closing the generator closes the call."""

    async def cancel_chat(self, session: Session, chat_id: str, message_id: str) -> None:
        """Stop the generation (best effort)."""

    async def delete_chat(self, session: Session, chat_id: str) -> None:
        """Remove the chat from the account; a chat that is gone already is no error."""

    async def profile(self, session: Session) -> Profile:
        """Who the session belongs to: the cheapest call that proves a token (protocol A.7)."""

    async def models(self, session: Session) -> tuple[LiveModel, ...]:
        """What the service offers this session."""
