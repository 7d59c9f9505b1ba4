"""Marks -> `[n]`, for any cut of the text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.events import Citation, Event, TextDelta, merged
from kimi_provider.protocols import Marks
from kimi_provider.protocols.citations import CitationResolver
from kimi_provider.protocols.sources import Sources

from .frames import UPSTREAM

S, M, E = "\ue3a0", "\ue3a3", "\ue3a8"
CARDS = [
    {"id": "a", "refIndex": "web_search:1#0", "base": {"url": "https://a.example/", "title": "A"}},
    {"id": "b", "refIndex": "web_search:1#2", "base": {"url": "https://b.example/"}},
    {"id": "c", "ref_index": 3, "searchBase": {"url": "https://c.example/"}},
    {"id": "d", "refIndex": "1", "base": {"url": "https://d.example/"}},
]


def resolver(*, marks: Marks = "cite") -> CitationResolver:
    sources = Sources()
    list(sources.add_results(CARDS))
    return CitationResolver(UPSTREAM.citations, sources, marks=marks)


def resolve(*pieces: str, marks: Marks = "cite") -> tuple[str, list[tuple[int, str]]]:
    """Text and citations; checks that each citation stands right behind its `[n]`."""
    reader = resolver(marks=marks)
    events: list[Event] = []
    for piece in filter(None, pieces):
        events += [TextDelta(piece)] if reader.is_plain(piece) else reader.feed(piece)
    events += reader.flush()
    text, cited = "", []
    for event in events:
        if isinstance(event, TextDelta):
            assert event.text
            text += event.text
        else:
            assert isinstance(event, Citation)
            assert text.endswith(f"[{event.number}]")
            cited.append((event.number, event.source.url[8]))
    return text, cited


CASES = {
    # text -> what becomes of it
    f"It rains.{S}cite{M}web_search:1#0{E} Yes": ("It rains.[1] Yes", [(1, "a")]),
    f"x{S}cite{M}web_search:1#2{M}web_search:1#0{E}": ("x[1][2]", [(1, "b"), (2, "a")]),
    f"x{S}article{M}web_search:1#0:~:text=Rain%20today{E}.": ("x[1].", [(1, "a")]),
    f"x{S}{M}web_search:1#0{E}": ("x[1]", [(1, "a")]),
    f"x{S}web_search:1#0{E}": ("x[1]", [(1, "a")]),
    f"a{S}cite{M}web_search:1#0{E}b{S}cite{M}web_search:1#2{E}c{S}cite{M}web_search:1#0{E}": (
        "a[1]b[2]c[1]",
        [(1, "a"), (2, "b"), (1, "a")],
    ),
    # nothing known by that name: dropped
    f"x{S}cite{M}web_search:9#9{E}y": ("xy", []),
    f"x{S}cite{M}web_search:9#9{M}web_search:1#0{E}y": ("x[1]y", [(1, "a")]),
    # the end sign is missing
    f"x{S}cite{M}web_search:1#0\ny": ("x[1]\ny", [(1, "a")]),
    f"x{S}cite{M}web_search:1#0": ("x[1]", [(1, "a")]),
    f"x{S}cite{M}web_search:1#0 and so on\n": ("x[1] and so on\n", [(1, "a")]),
    f"x{S}cite{M}web_search:1#0:~:text=Rain and so on\n": ("x[1] and so on\n", [(1, "a")]),
    f"x{S}cite{M}web_search:1#0今天\n": ("x[1]今天\n", [(1, "a")]),
    f"x{S}cite{M}web_search:1#0{S}cite{M}web_search:1#2{E}": ("x[1][2]", [(1, "a"), (2, "b")]),
    f"x{S}cite{M}unknown thing\n": ("x thing\n", []),
    f"x{S}cite{M} thing\n": ("x thing\n", []),
    # stray signs
    f"x{S}hello\n": ("xhello\n", []),
    f"x{S}": ("x", []),
    f"x{M}y{E}z\ue3afw": ("xyzw", []),
    "other \ue000 private \uf8ff signs": ("other \ue000 private \uf8ff signs", []),
    # numbers
    "x[^3^]y": ("x[1]y", [(1, "c")]),
    "x[^1^][^3^]": ("x[1][2]", [(1, "d"), (2, "c")]),
    "x[^1,3^]": ("x[1][2]", [(1, "d"), (2, "c")]),
    "x[^9^]y": ("xy", []),
    "x[^web_search:1#0^]y": ("x[1]y", [(1, "a")]),
    "x[^web_search:1#0:~:text=a b^]y": ("x[1]y", [(1, "a")]),
    "a footnote[^1] and [^note]: text": ("a footnote[^1] and [^note]: text", []),
    "a class [^a-z]+ and [^^]": ("a class [^a-z]+ and [^^]", []),
    # double brackets
    "x[[web_search:1#0]]y": ("x[1]y", [(1, "a")]),
    "x[[cite:web_search:1#2]]y": ("x[1]y", [(1, "b")]),
    "x[[cite:web_search:1#2:~:text=a]]y": ("x[1]y", [(1, "b")]),
    "x[[1,3]]y": ("x[1][2]y", [(1, "d"), (2, "c")]),
    "x[[1,9]]y": ("x[[1,9]]y", []),
    "[[unknown]]": ("[[unknown]]", []),
    # markdown and code
    "see [text](https://x.example/a[1])": ("see [text](https://x.example/a[1])", []),
    "[[1,2],[3,4]]": ("[[1,2],[3,4]]", []),
    "m[[0]] = a[i][j]; b[[i]]": ("m[[0]] = a[i][j]; b[[i]]", []),
    "if [[ -f x ]]; then": ("if [[ -f x ]]; then", []),
    "- [ ] todo\n- [x] done [": ("- [ ] todo\n- [x] done [", []),
    "ends in [[": ("ends in [[", []),
    "ends in [^": ("ends in [^", []),
    "ends in [[a]": ("ends in [[a]", []),
    "[[\n[^\n[": ("[[\n[^\n[", []),
    "[[[1]]]": ("[[1]]", [(1, "d")]),
}


@pytest.mark.parametrize("text", CASES)
def test_marks(text: str) -> None:
    assert resolve(text) == CASES[text]


@pytest.mark.parametrize("text", CASES)
def test_marks_in_pieces(text: str) -> None:
    assert resolve(*text) == CASES[text]
    for at in range(len(text) + 1):
        assert resolve(text[:at], text[at:]) == CASES[text]


@pytest.mark.parametrize("text", CASES)
def test_a_silent_answer_has_the_same_text_without_marks(text: str) -> None:
    wanted, cited = CASES[text]
    for number, _ in cited:
        wanted = wanted.replace(f"[{number}]", "", 1)
    assert resolve(text, marks="drop") == (wanted, [])
    assert resolve(*text, marks="drop") == (wanted, [])


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([S, M, E, "[", "]", "^", "[[", "]]", "1", "3", ",", "cite", "web_search:1#0", "\n", "x "])
    ),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_any_cut_of_any_text_gives_the_same(tokens: list[str], cuts: list[int]) -> None:
    text = "".join(tokens)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert resolve(*pieces) == resolve(text)


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="[", exclude_categories=["Co", "Cs"])))
def test_text_without_signs_goes_out_at_once(text: str) -> None:
    assert resolver().is_plain(text)


@pytest.mark.parametrize("opening", [S, "[[", "[^"])
def test_no_more_than_the_limit_is_held(opening: str) -> None:
    marks, out = resolver(), ""
    for count in range(1, 1001):
        out += "".join(e.text for e in marks.feed((opening if count == 1 else "") + "a") if isinstance(e, TextDelta))
        assert count - len(out) <= UPSTREAM.citations.hold_chars
    assert out.strip("[^") == "a" * 1000


@pytest.mark.parametrize("length", [395, 400, 405])
def test_the_limit_is_the_same_for_any_cut(length: int) -> None:
    text = f"x{S}cite{M}web_search:1#0:~:text={'a' * length}{E}y"
    assert resolve(text) == resolve(*text)


def test_gaps_are_filled_by_later_frames() -> None:
    sources = Sources()
    assert list(sources.add_results([{"id": "r1", "base": {"url": "https://a.example/"}}]))
    assert sources.find("web_search:1#0") is None
    assert list(sources.add_results([{"id": "r1", "refIndex": "web_search:1#0"}])) == []
    assert list(sources.add_results([{"refIndex": 7}, {"id": "late", "refIndex": 8}])) == []
    assert sources.find("7") is None
    (seen,) = sources.add_results([{"id": "late", "base": {"url": "https://b.example/", "title": 5}}])
    assert sources.find("8") == seen
    assert list(sources.add_results([{"url": "https://a.example/", "title": "Now titled", "siteName": ""}])) == []
    found = sources.find("web_search:1#0")
    assert found is not None
    assert (found.url, found.title) == ("https://a.example/", "Now titled")


@pytest.mark.parametrize("cards", [None, 1, "x", {}, [None, 1, "x", [], {}], [{"base": []}], [{"url": "javascript:1"}]])
def test_cards_of_a_wrong_shape_count_as_absent(cards: object) -> None:
    assert list(Sources().add_results(cards)) == []
    assert list(Sources().add_pages(cards, 1)) == []


def test_marks_are_events_of_their_own() -> None:
    events = merged(resolver().feed(f"a{S}cite{M}web_search:1#0{E}b"))
    assert [type(event).__name__ for event in events] == ["TextDelta", "Citation", "TextDelta"]
