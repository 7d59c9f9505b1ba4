from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_provider.events import Citation, Event, Finished, Notice, Source, TextDelta, ThinkingDelta, merged

T, K = TextDelta, ThinkingDelta
CITED = Citation(number=1, source=Source(url="https://example.com"))


@pytest.mark.parametrize(
    ("events", "joined"),
    [
        ([], []),
        ([T("a")], [T("a")]),
        ([T("a"), T(""), T("b")], [T("ab")]),
        ([K("a"), K("b"), T("c"), T("d"), K("e")], [K("ab"), T("cd"), K("e")]),
        ([T("a"), CITED, T("b"), T("c")], [T("a"), CITED, T("bc")]),
        ([CITED, CITED], [CITED, CITED]),
        ([T("a"), T("b"), Finished()], [T("ab"), Finished()]),
    ],
)
def test_only_neighbours_of_a_kind_are_joined(events: list[Event], joined: list[Event]) -> None:
    assert merged(events) == joined
    assert merged(iter(events)) == joined


OTHERS: list[Event] = [CITED, Notice(code="unknown", message="m"), Finished()]
EVENTS = st.lists(st.text(max_size=3).map(T) | st.text(max_size=3).map(K) | st.sampled_from(OTHERS), max_size=30)


def letters(events: list[Event]) -> list[object]:
    """An answer letter by letter, each with its kind; other events as they are."""
    spelt: list[object] = []
    for event in events:
        spelt += [(type(event), letter) for letter in event.text] if isinstance(event, T | K) else [event]
    return spelt


@given(EVENTS)
def test_nothing_is_lost_added_or_moved(events: list[Event]) -> None:
    before = list(events)
    joined = merged(events)
    assert letters(joined) == letters(events)
    assert events == before
    assert merged(joined) == joined
    kinds = [type(event) for event in joined]
    assert not any(one is other and one in (T, K) for one, other in itertools.pairwise(kinds))
