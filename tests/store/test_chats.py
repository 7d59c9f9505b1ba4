"""Rows of chats, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from kimi_provider.store import Store, StoredChat, memory_store

Opened = Callable[..., Store]

CHAT = StoredChat(
    chat_id="c1",
    account_id="ada-1",
    protocol="connect",
    removable=True,
    message_id="m1",
    history="h1",
    setup="s1",
    name="n1",
    answer="a1",
)


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened()


def kept(store: Store, *chats: StoredChat, for_s: float = 60) -> None:
    with store.write() as rows:
        for chat in chats:
            rows.chats("ada").keep(chat, for_s)


def taken(store: Store, owner: str = "bob") -> StoredChat | None:
    with store.write() as rows:
        return rows.chats(owner).take_history("h1", "s1", "n1", 60)


def test_a_chat_outlives_the_process_as_it_was_kept(store: Store, opened: Opened) -> None:
    with store.write() as rows:
        rows.chats("ada").hold([replace(CHAT, history=None, name=None, answer=None)], 60)
    kept(store, CHAT)
    with opened().read() as rows:
        assert rows.chats("bob").all() == [CHAT]


def test_only_what_was_said_word_for_word_is_gone_on_with(store: Store) -> None:
    kept(store, CHAT, replace(CHAT, chat_id="c2", name=None))
    with store.write() as rows:
        chats = rows.chats("bob")
        assert chats.take_history("h2", "s1", "n1", 60) is None
        assert chats.take_history("h1", "s2", "n1", 60) is None
        found = chats.take_history("h1", "s1", None, 60)
        assert found is not None
        assert found.chat_id == "c2"  # never one with a name that was not given
        assert chats.take_history("h1", "s1", "n2", 60) is None


def test_a_chat_is_taken_by_its_names(store: Store) -> None:
    kept(store, CHAT)
    with store.write() as rows:
        chats = rows.chats("bob")
        assert (chats.take_name("other", 60), chats.take_answer("other", 60)) == (None, None)
        assert (chats.knows(name="n1"), chats.knows(answer="a1"), chats.knows(name="n2")) == (True, True, False)
        assert chats.take_name("n1", 60) == CHAT
        assert chats.take_answer("a1", 60) is None  # somebody works with it
        assert chats.knows(answer="a1")


def test_of_many_that_want_a_chat_one_gets_it(store: Store) -> None:
    kept(store, CHAT)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: taken(store, f"owner-{number}"), range(8)))
    assert [chat for chat in found if chat is not None] == [CHAT]


def test_a_chat_that_was_given_back_may_be_taken_again(store: Store) -> None:
    kept(store, CHAT)
    for _ in range(2):
        assert taken(store) == CHAT
        kept(store, CHAT)


def test_a_name_is_that_of_one_chat(store: Store) -> None:
    kept(store, CHAT, replace(CHAT, chat_id="c2"))
    with store.write() as rows:
        assert {chat.chat_id: chat.name for chat in rows.chats("bob").all()} == {"c1": None, "c2": "n1"}


def test_what_is_overdue_is_removed_by_one_process_whoever_had_it(store: Store) -> None:
    kept(store, CHAT, for_s=-1)
    with store.write() as rows:
        rows.chats("dead").hold([replace(CHAT, chat_id="c2")], -1)
        rows.chats("living").hold([replace(CHAT, chat_id="c3")], 60)
        assert {chat.chat_id for chat in rows.chats("bob").due(10, 60)} == {"c1", "c2"}
        assert rows.chats("eve").due(10, 60) == []
        assert rows.chats("eve").take_history("h1", "s1", "n1", 60) is None


def test_who_still_works_with_a_chat_says_so(store: Store) -> None:
    with store.write() as rows:
        rows.chats("ada").hold([CHAT], -1)
        rows.chats("bob").renew([CHAT.chat_id], 60)  # it is not bob's
        rows.chats("ada").renew(["another"], 60)
        assert len(rows.chats("eve").due(10, -1)) == 1
        rows.chats("eve").renew([CHAT.chat_id], 60)
        assert rows.chats("ada").due(10, 60) == []


def test_what_could_not_be_removed_is_due_again_and_nobodys_to_go_on_with(store: Store) -> None:
    kept(store, CHAT)
    with store.write() as rows:
        rows.chats("bob").retry(CHAT.chat_id, -1)
        assert not rows.chats("eve").knows(name="n1")
        (chat,) = rows.chats("eve").due(10, 60)
        assert (chat.attempts, chat.history, chat.answer) == (1, None, None)
        rows.chats("eve").remove([CHAT.chat_id])
        assert rows.chats("eve").all() == []


def test_an_owners_chat_is_adopted_once(store: Store) -> None:
    with store.write() as rows:
        assert rows.chats("ada").adopt(CHAT, 60)
        assert not rows.chats("bob").adopt(CHAT, 60)


def test_what_is_in_memory_is_the_same_for_every_thread() -> None:
    store = memory_store()
    kept(store, CHAT)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: taken(store, f"owner-{number}"), range(8)))
    assert [chat for chat in found if chat is not None] == [CHAT]
    with memory_store().read() as rows:
        assert rows.chats("bob").all() == []
    store.close()
