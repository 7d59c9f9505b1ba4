"""What a searched answer rests on, as data and as text.

Counts the answer's characters as they leave, so that each citation's place is known. Offsets are those of its `[n]` in
the text, in characters, the end one past the last. Pure: knows no surface but the shapes of OpenAI's annotations and
Anthropic's citations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import events as ev

Json = dict[str, Any]

#: Anthropic's citations quote no more than this of a page.
_QUOTED_CHARS = 150
#: The longest `[n]` there can be.
_MARK_CHARS = 12


class Citing:
    """The citations of one answer; give it every text that leaves, and each citation behind its text."""

    def __init__(self) -> None:
        self._chars = 0
        self._tail = ""
        self._sources: dict[int, ev.Source] = {}
        #: OpenAI's `annotations`, in the order of the text.
        self.annotations: list[Json] = []

    def said(self, text: str) -> None:
        """`text` has left."""
        self._chars += len(text)
        self._tail = (self._tail + text[-_MARK_CHARS:])[-_MARK_CHARS:]

    def cite(self, citation: ev.Citation) -> bool:
        """Note the mark that the text ends in; False when it has no mark there, having been shortened."""
        mark = f"[{citation.number}]"
        if not self._tail.endswith(mark):
            return False
        self._sources[citation.number] = source = citation.source
        place = {"start_index": self._chars - len(mark), "end_index": self._chars}
        cited = {"url": source.url, "title": source.title or source.url, **place}
        self.annotations.append({"type": "url_citation", "url_citation": cited})
        return True

    def source_list(self) -> str:
        """The cited sources, a line each, or nothing."""
        if not self._sources:
            return ""
        lines = [f"[{n}] {s.title}: {s.url}" if s.title else f"[{n}] {s.url}" for n, s in sorted(self._sources.items())]
        return "\n\n" + "\n".join(lines)


def found(event: ev.SearchResults) -> Json:
    """What a search has brought, under the names that chat clients of other providers know."""
    rows = [
        {"url": s.url, "title": s.title, "site_name": s.site_name, "snippet": s.snippet, "date": s.published}
        for s in event.sources
    ]
    return {"search_queries": list(event.queries), "search_results": rows}


def joined(fields: Sequence[Mapping[str, Any]]) -> Json:
    """Several of `found` as one, each query and page once."""
    queries = dict.fromkeys(query for field in fields for query in field.get("search_queries") or ())
    pages = {page["url"]: page for field in fields for page in field.get("search_results") or ()}
    return {"search_queries": list(queries), "search_results": list(pages.values())} if queries or pages else {}


def location(url: str, title: str, snippet: str) -> Json:
    """Anthropic's citation of a page. There is no text to give back encrypted: that field is empty."""
    return {
        "type": "web_search_result_location",
        "url": url,
        "title": title or url,
        "cited_text": snippet[:_QUOTED_CHARS],
        "encrypted_index": "",
    }
