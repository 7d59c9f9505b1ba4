"""Blocks of the assistant's message -> events (protocol C.6, C.7).

Law: state per (message id, block id), output in the order of arrival. Thinking blocks are joined by a blank line, text
blocks without anything between; tools and searches become events of their own. Knows neither frames nor how an answer
ends. Unknown kinds of blocks are counted and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ...events import Event, SearchResults, TextDelta, ThinkingDelta
from ...upstream import Upstream
from .blocks import TextBlock, ToolBlock
from .citations import CitationResolver
from .sources import Sources

log: Final = logging.getLogger(__name__)

#: Masks under which a missing content means an empty one (proto-JSON leaves out empty strings).
_EMPTYING: Final = frozenset(("block", "block.text", "block.text.content", "block.think", "block.think.content"))
#: Progress of stages: nothing a caller could use (protocol G.18).
_SILENT: Final = frozenset(("id", "parentId", "messageId", "message_id", "multiStage", "stage"))


class Answer:
    """All that one answer has said so far."""

    def __init__(self, upstream: Upstream) -> None:
        self._sources = Sources()
        self.citations = CitationResolver(upstream.citations, self._sources)
        self._search_tool_names = upstream.connect.search_tool_names
        self._texts: dict[tuple[str, str, str], TextBlock] = {}
        self._tools: dict[tuple[str, str], ToolBlock] = {}
        self._queries: set[str] = set()
        # Where the pages of a search block begin in the numbering of pages, and how many it has.
        self._pages: dict[tuple[str, str], tuple[int, int]] = {}
        self._page_total = 0
        #: The block that took text last, while appends to it go out as they come: the decoder's shortcut.
        self.hot: TextBlock | None = None
        #: What was handed out so far.
        self.text_sent = False
        self.thinking_sent = False
        self.tool_seen = False
        self.unknown_blocks = 0

    def take(self, owner: str, block: Mapping[str, Any], *, append: bool, mask: str) -> Iterator[Event]:
        """Take one `block` payload of message `owner`."""
        block_id = block.get("id")
        if not isinstance(block_id, str):
            block_id = ""
        self.hot = None
        for kind, payload in block.items():
            if kind in _SILENT:
                continue
            if not isinstance(payload, dict):
                self._count_unknown(kind)
            elif kind == "text" or kind == "think":
                yield from self._take_text(owner, block_id, kind, payload, append=append, emptied=mask in _EMPTYING)
            elif kind == "tool":
                yield from self._take_tool(owner, block_id, payload, append=append)
            elif kind == "search":
                yield from self._take_search(owner, block_id, payload, append=append)
            else:
                self._count_unknown(kind)

    def take_refs(self, refs: Mapping[str, Any]) -> Iterator[Event]:
        """Take `message.refs`."""
        yield from self._found((), self._sources.add_results(refs.get("searchChunks")))
        yield from self._found((), self._sources.add_results(refs.get("usedSearchChunks")))

    def flush(self) -> Iterator[Event]:
        """What was held back because it could have become a citation mark."""
        yield from self._sent(self.citations.flush())

    def _take_text(
        self, owner: str, block_id: str, kind: str, payload: Mapping[str, Any], *, append: bool, emptied: bool
    ) -> Iterator[Event]:
        key = (owner, block_id, kind)
        block = self._texts.get(key)
        if block is None:
            block = self._texts[key] = TextBlock(owner, block_id, kind)
        replaced = block.grown.replaced
        piece = block.apply(payload, append=append, emptied=emptied)
        if block.grown.replaced > replaced:
            log.warning("the service replaced text it had already sent; the stream keeps the earlier wording")
        if piece:
            if block.thinking:
                joint = "\n\n" if self.thinking_sent and not block.started else ""
                self.thinking_sent = True
                yield ThinkingDelta(joint + piece)
            elif self.citations.is_plain(piece):
                self.text_sent = True
                yield TextDelta(piece)
            else:
                yield from self._sent(self.citations.feed(piece))
            block.started = True
        if block.started and block.grown.straight:
            self.hot = block

    def _sent(self, events: list[Event]) -> list[Event]:
        self.text_sent = self.text_sent or bool(events)
        return events

    def _take_tool(self, owner: str, block_id: str, payload: Mapping[str, Any], *, append: bool) -> Iterator[Event]:
        tool = self._tools.get((owner, block_id))
        if tool is None:
            tool = self._tools[owner, block_id] = ToolBlock()
        self.tool_seen = True
        queries: Iterable[str] = ()
        if (event := tool.apply(payload, append=append)) is not None:
            yield event
            if tool.name in self._search_tool_names:
                queries = tool.queries()
        contents = payload.get("contents")
        results = [c.get("searchResult") for c in contents if isinstance(c, dict)] if isinstance(contents, list) else []
        yield from self._found(queries, self._sources.add_results(results))

    def _take_search(self, owner: str, block_id: str, payload: Mapping[str, Any], *, append: bool) -> Iterator[Event]:
        """`{keywords, webPages}` of the older form (protocol C.12, frames 62-64)."""
        keywords, pages = payload.get("keywords"), payload.get("webPages")
        queries = [k for k in keywords if isinstance(k, str)] if isinstance(keywords, list) else []
        if not isinstance(pages, list):
            yield from self._found(queries, ())
            return
        first, count = self._pages.get((owner, block_id), (self._page_total + 1, 0))
        number = first + count if append else first
        self._pages[owner, block_id] = (first, number - first + len(pages))
        self._page_total = max(self._page_total, number - 1 + len(pages))
        yield from self._found(queries, self._sources.add_pages(pages, number))

    def _found(self, queries: Iterable[str], sources: Iterable[Any]) -> Iterator[Event]:
        fresh = tuple(q for q in dict.fromkeys(queries) if q not in self._queries)
        pages = tuple(sources)
        if fresh or pages:
            self._queries.update(fresh)
            yield SearchResults(queries=fresh, sources=pages)

    def _count_unknown(self, kind: str) -> None:
        self.unknown_blocks += 1
        log.debug("a block of unknown kind %.40r was left out", kind)
