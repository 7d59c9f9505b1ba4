"""Rows of chats in the owners' accounts: those that are ours to remove, and those that may be continued.

No text is kept, only hashes of what was said. A chat that somebody works with has an `owner` and a time by which that
owner speaks again; a chat without one may be taken, by one request only. What is overdue is to be removed, whoever had
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from . import tables


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredChat:
    """A chat of an account, and where it stands.

    `removable`: ours, and not to be kept. `message_id` is the answer that the next message follows. `history` is a
    hash of all turns so far, `setup` of all that holds for each of them, `name` of what callers call the conversation,
    `answer` of what they call its last answer. `guarded`: it began with a transcript. `attempts` to remove it failed.
    """

    chat_id: str
    account_id: str
    protocol: str
    removable: bool
    message_id: str | None = None
    guarded: bool = False
    history: str | None = None
    setup: str | None = None
    name: str | None = None
    answer: str | None = None
    attempts: int = 0


_FIELDS = tuple(tables.chats.c[name] for name in StoredChat.__dataclass_fields__)


class ChatRows:
    """Chats in one transaction at time `now`, as process `owner` sees them."""

    def __init__(self, connection: Connection, now: float, owner: str) -> None:
        self._connection, self._now, self._owner = connection, now, owner

    def hold(self, chats: Iterable[StoredChat], for_s: float) -> None:
        """Work with chats that are new here."""
        held = {"owner": self._owner, "due_at": self._now + for_s}
        if rows := [{**asdict(chat), **held} for chat in chats]:
            self._connection.execute(insert(tables.chats), rows)

    def adopt(self, chat: StoredChat, for_s: float) -> bool:
        """As `hold`, unless it is known already: then False."""
        if self._connection.execute(select(tables.chats).where(_is(chat.chat_id))).first() is not None:
            return False
        self.hold([chat], for_s)
        return True

    def take_history(self, history: str, setup: str, name: str | None, for_s: float) -> StoredChat | None:
        """Work with a free chat in which exactly this was said; never with one that has another name."""
        table = tables.chats
        unnamed = table.c.name.is_(None)
        named = unnamed if name is None else unnamed | (table.c.name == name)
        return self._take((table.c.history == history) & (table.c.setup == setup) & named, for_s)

    def take_name(self, name: str, for_s: float) -> StoredChat | None:
        """Work with the free chat of a conversation."""
        return self._take(tables.chats.c.name == name, for_s)

    def take_answer(self, answer: str, for_s: float) -> StoredChat | None:
        """Work with the free chat that ends in an answer."""
        return self._take(tables.chats.c.answer == answer, for_s)

    def knows(self, *, name: str | None = None, answer: str | None = None) -> bool:
        """Whether there is such a chat, free or not."""
        table = tables.chats
        here = table.c.name == name if name is not None else table.c.answer == answer
        return self._connection.execute(select(table.c.chat_id).where(here)).first() is not None

    def keep(self, chat: StoredChat, for_s: float) -> None:
        """Let anybody go on with `chat` as it stands now. Its name is no other chat's any more."""
        table = tables.chats
        if chat.name is not None:
            others = (table.c.name == chat.name) & (table.c.chat_id != chat.chat_id)
            self._connection.execute(update(table).where(others).values(name=None))
        values = {**asdict(chat), "owner": None, "due_at": self._now + for_s}
        if not self._connection.execute(update(table).where(_is(chat.chat_id)).values(values)).rowcount:
            self._connection.execute(insert(table).values(values))

    def renew(self, chat_ids: Collection[str], for_s: float) -> None:
        """Still work with these."""
        table = tables.chats
        here = table.c.chat_id.in_(chat_ids) & (table.c.owner == self._owner)
        self._connection.execute(update(table).where(here).values(due_at=self._now + for_s))

    def remove(self, chat_ids: Collection[str]) -> None:
        """They are gone, or none of our business any more."""
        self._connection.execute(delete(tables.chats).where(tables.chats.c.chat_id.in_(chat_ids)))

    def due(self, limit: int, for_s: float, *, everything: bool = False) -> list[StoredChat]:
        """Work with what is overdue, or with all that nobody here works with, to remove it; nobody goes on with it any
        more.
        """
        table = tables.chats
        which = table.c.owner.is_(None) | (table.c.owner != self._owner) if everything else table.c.due_at <= self._now
        overdue = select(*_FIELDS).where(which).order_by(table.c.due_at).limit(limit)
        chats = [
            StoredChat(**row._mapping) for row in self._connection.execute(overdue.with_for_update(skip_locked=True))
        ]
        if chats:
            values = {"owner": self._owner, "due_at": self._now + for_s}
            here = table.c.chat_id.in_([chat.chat_id for chat in chats])
            self._connection.execute(update(table).where(here).values(values))
        return chats

    def retry(self, chat_id: str, pause_s: float) -> None:
        """It could not be removed: it is due again after a pause."""
        table = tables.chats
        values = {"attempts": table.c.attempts + 1, "due_at": self._now + pause_s, "history": None, "name": None}
        self._connection.execute(update(table).where(_is(chat_id)).values({**values, "answer": None}))

    def all(self) -> list[StoredChat]:
        """Every chat there is."""
        return [StoredChat(**row._mapping) for row in self._connection.execute(select(*_FIELDS))]

    def _take(self, which: ColumnElement[bool], for_s: float) -> StoredChat | None:
        table = tables.chats
        free = select(*_FIELDS).where(which & table.c.owner.is_(None)).order_by(table.c.due_at.desc()).limit(1)
        row = self._connection.execute(free.with_for_update(skip_locked=True)).first()
        if row is None:
            return None
        values = {"owner": self._owner, "due_at": self._now + for_s}
        self._connection.execute(update(table).where(_is(row.chat_id)).values(values))
        return StoredChat(**row._mapping)


def _is(chat_id: str) -> ColumnElement[bool]:
    return tables.chats.c.chat_id == chat_id
