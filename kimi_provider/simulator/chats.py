"""What accounts keep: chats and their messages, as the list calls show them (protocol C.10, frames 66 and 67).

A chat belongs to one account; for any other it doesn't exist. Messages form a tree by `parent_id`; the memory of an
answer is the chain from its parent to the root. Blocks are kept in their final form, a failed answer keeps only its
exception.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Creator = Literal["owner", "connect", "rest"]

GENERATING = "MESSAGE_STATUS_GENERATING"
COMPLETED = "MESSAGE_STATUS_COMPLETED"
UNSPECIFIED = "MESSAGE_STATUS_UNSPECIFIED"


@dataclass(kw_only=True, slots=True)
class Message:
    """One message of a chat."""

    id: str
    parent_id: str
    role: str
    status: str
    blocks: list[dict[str, Any]] = field(default_factory=list)
    refs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(block["text"].get("content", "") for block in self.blocks if "text" in block)

    @property
    def file_ids(self) -> list[str]:
        """The files named in it."""
        return [block["file"]["id"] for block in self.blocks if "file" in block]


@dataclass(kw_only=True, slots=True)
class CutAnswer:
    """What a legacy answer cut at the output cap still has to say (protocol B.4, continue)."""

    segment_id: str
    answer: Message
    pieces: list[str]
    new_segment: bool
    ends: bool


@dataclass(kw_only=True, slots=True)
class Chat:
    """One conversation of one account; messages in the order they were made."""

    id: str
    owner: str
    creator: Creator
    """The account's owner in the browser, or the protocol of the call that made it."""
    name: str
    create_time: str
    update_time: str
    messages: dict[str, Message] = field(default_factory=dict)
    last_request: dict[str, Any] = field(default_factory=dict)
    status: str = "STATUS_COMPLETED"
    cut: CutAnswer | None = None

    def add(
        self,
        role: str,
        status: str,
        parent_id: str,
        blocks: list[dict[str, Any]] | None = None,
        *,
        message_id: str | None = None,
    ) -> Message:
        """A new message, with a fresh id unless one is given."""
        made = Message(
            id=message_id or str(uuid.uuid4()), parent_id=parent_id, role=role, status=status, blocks=blocks or []
        )
        self.messages[made.id] = made
        return made

    def newest(self) -> Message:
        """The message made last."""
        return next(reversed(self.messages.values()))

    def asked(self, parent_id: str) -> list[Message]:
        """The user's messages on the way to `parent_id`, oldest first."""
        return [one for one in self.chain(parent_id) if one.role == "user"]

    def chain(self, message_id: str) -> list[Message]:
        """The messages from the root to `message_id`."""
        found: list[Message] = []
        at: Message | None = self.messages.get(message_id)
        while at is not None:
            found.append(at)
            at = self.messages.get(at.parent_id)
        return found[::-1]

    def children(self, message_id: str) -> list[str]:
        """Ids of the messages that answer or follow `message_id`."""
        return [one.id for one in self.messages.values() if one.parent_id == message_id]


class Chats:
    """The chats of all accounts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_id: dict[str, Chat] = {}
        self.deleted: list[str] = []

    def now(self) -> str:
        """The time as the service writes it."""
        moment = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def open(self, owner: str, creator: Creator, *, chat_id: str | None = None, name: str = "Untitled Chat") -> Chat:
        """A new chat, with its placeholder name (protocol C.12, frame 02) and a uuid unless they are given."""
        now = self.now()
        chat = Chat(
            id=chat_id or str(uuid.uuid4()),
            owner=owner,
            creator=creator,
            name=name,
            create_time=now,
            update_time=now,
        )
        self._by_id[chat.id] = chat
        return chat

    def find(self, owner: str, chat_id: str) -> Chat | None:
        """The chat, unless it is gone or somebody else's."""
        chat = self._by_id.get(chat_id)
        return chat if chat is not None and chat.owner == owner else None

    def delete(self, chat: Chat) -> None:
        """Forget a chat and remember that it was deleted."""
        self._by_id.pop(chat.id, None)
        self.deleted.append(chat.id)

    def of(self, owner: str) -> list[Chat]:
        """An account's chats, the newest first."""
        return [chat for chat in reversed(self._by_id.values()) if chat.owner == owner]

    def all(self) -> list[Chat]:
        """Every chat there is."""
        return list(self._by_id.values())

    def clear(self) -> None:
        """As if nothing had ever been asked."""
        self._by_id.clear()
        self.deleted.clear()
