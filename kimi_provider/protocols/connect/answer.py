"""Blocks of the assistant's message -> events (protocol C.6, C.7).

Law: state per (message id, block id), output in the order of arrival. Thinking blocks are joined by a blank line, text
blocks without anything between; tools and searches become events of their own. Knows neither frames nor how an answer
ends. Unknown kinds of blocks are counted and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...events import Event, SearchResults, Source, TextDelta, ThinkingDelta
from ...upstream import Upstream
from .. import Marks
from ..citations import CitationResolver
from ..sources import Sources
from .blocks import Block, TextBlock, ToolBlock

log: Final = logging.getLogger(__name__)

#: Masks under which a missing content means an empty one (proto-JSON leaves out empty strings).
_EMPTYING: Final = frozenset(("block", "block.text", "block.text.content", "block.think", "block.think.content"))
#: Names, and the progress of stages: nothing a caller could use (protocol G.18).
_SILENT: Final = frozenset(("id", "parentId", "messageId", "message_id", "multiStage", "stage"))


class Answer:
    """All that one answer has said so far. Events go to `out`, in order."""

    def __init__(self, upstream: Upstream, out: list[Event], *, marks: Marks = "cite") -> None:
        self._out = out
        self._sources = Sources()
        self.citations = CitationResolver(upstream.citations, self._sources, marks=marks)
        self._search_tool_names = upstream.connect.search_tool_names
        self._question_tool_names = upstream.connect.question_tool_names
        self._texts: dict[tuple[str, str, str], TextBlock] = {}
        self._tools: dict[tuple[str, str], ToolBlock] = {}
        self._queries: set[str] = set()
        # Where the pages of a search block begin in the numbering of pages, and how many it has.
        self._pages: dict[tuple[str, str], tuple[int, int]] = {}
        self._page_total = 0
        #: By mask: the block of the current message that took a piece last, while an append to it needs no thought.
        self.growing: dict[str, Block] = {}
        self._owner = ""
        #: What was handed out so far.
        self.text_sent = False
        self.thinking_sent = False
        self.tool_seen = False
        self.unknown_blocks = 0

    def turn_to(self, owner: str) -> None:
        """Blocks that name no message belong to `owner` from here on."""
        self._owner = owner
        self.growing.clear()

    def take(self, owner: str, block: Mapping[str, Any], *, append: bool, mask: str) -> None:
        """Take one `block` payload of message `owner`."""
        block_id = block.get("id")
        if not isinstance(block_id, str):
            block_id = ""
        for kind, payload in block.items():
            if kind in _SILENT:
                continue
            if not isinstance(payload, dict):
                self._count_unknown(kind)
            elif kind == "text" or kind == "think":
                self._take_text(owner, block_id, kind, payload, append, mask)
            elif kind == "tool":
                self._take_tool(owner, block_id, payload, append)
            elif kind == "search":
                self._take_search(owner, block_id, payload, append)
            else:
                self._count_unknown(kind)

    def take_refs(self, refs: Mapping[str, Any]) -> None:
        """Take `message.refs`."""
        for name in ("searchChunks", "usedSearchChunks"):
            if name in refs:
                self._found((), self._sources.add_results(refs[name]))

    def say(self, text: str, *, thinking: bool) -> None:
        """Hand out text that needs nothing done to it."""
        if thinking:
            self.thinking_sent = True
            self._out.append(ThinkingDelta(text))
        else:
            self.text_sent = True
            self._out.append(TextDelta(text))

    def flush(self) -> None:
        """Hand out what was held back because it could have become a citation mark."""
        self._sent(self.citations.flush())

    def _take_text(
        self, owner: str, block_id: str, kind: str, payload: Mapping[str, Any], append: bool, mask: str
    ) -> None:
        key = (owner, block_id, kind)
        block = self._texts.get(key)
        if block is None:
            block = self._texts[key] = TextBlock(owner, block_id, kind)
        never_replaced = not block.grown.replaced
        piece = block.apply(payload, append=append, emptied=mask in _EMPTYING)
        if never_replaced and block.grown.replaced:
            log.warning("the service replaced text it had already sent; the stream keeps the earlier wording")
        if piece:
            if block.channel == "thinking":
                joint = not block.started and self.thinking_sent
                self.say("\n\n" + piece if joint else piece, thinking=True)
            elif self.citations.is_plain(piece):
                self.say(piece, thinking=False)
            else:
                self._sent(self.citations.feed(piece))
            block.started = True
        self._note(block, simple=block.started and block.grown.straight)

    def _note(self, block: Block, *, simple: bool) -> None:
        if simple and block.owner == self._owner:
            self.growing[block.mask] = block
        else:
            self.growing.pop(block.mask, None)

    def _sent(self, events: list[Event]) -> None:
        if events:
            self.text_sent = True
            self._out += events

    def _take_tool(self, owner: str, block_id: str, payload: Mapping[str, Any], append: bool) -> None:
        tool = self._tools.get((owner, block_id))
        if tool is None:
            tool = self._tools[owner, block_id] = ToolBlock(owner, block_id)
        self._note(tool, simple=True)
        queries: list[str] = []
        if (event := tool.apply(payload, append=append)) is not None:
            self.tool_seen = True
            self._out.append(event)
            if tool.name in self._search_tool_names:
                queries = tool.queries()
            elif event.state == "running" and tool.name in self._question_tool_names and (asked := tool.questions()):
                # Nothing else follows: the question is the answer, to which the caller's next turn replies.
                self.say(f"\n\n{asked}" if self.text_sent else asked, thinking=False)
        contents = payload.get("contents")
        if isinstance(contents, list):
            results = [c.get("searchResult") for c in contents if isinstance(c, dict)]
            self._found(queries, self._sources.add_results(results))
        elif queries:
            self._found(queries, ())

    def _take_search(self, owner: str, block_id: str, payload: Mapping[str, Any], append: bool) -> None:
        """`{keywords, webPages}` of the older form (protocol C.12, frames 62-64)."""
        keywords, pages = payload.get("keywords"), payload.get("webPages")
        queries = [k for k in keywords if isinstance(k, str)] if isinstance(keywords, list) else []
        if not isinstance(pages, list):
            self._found(queries, ())
            return
        first, count = self._pages.get((owner, block_id), (self._page_total + 1, 0))
        number = first + count if append else first
        self._pages[owner, block_id] = (first, number - first + len(pages))
        self._page_total = max(self._page_total, number - 1 + len(pages))
        self._found(queries, self._sources.add_pages(pages, number))

    def _found(self, queries: Iterable[str], sources: Iterable[Source]) -> None:
        fresh = tuple(q for q in dict.fromkeys(queries) if q not in self._queries)
        pages = tuple(sources)
        if fresh or pages:
            self._queries.update(fresh)
            self._out.append(SearchResults(queries=fresh, sources=pages))

    def _count_unknown(self, kind: str) -> None:
        self.unknown_blocks += 1
        log.debug("a block of unknown kind %.40r was left out", kind)
