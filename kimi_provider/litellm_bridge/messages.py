"""What LiteLLM's adapter leaves out of an answer of Anthropic's API: searches, citations, the stop string that was met.

A search is a `server_tool_use` and its `web_search_tool_result`, before the text that rests on it; cited text is a text
block of its own that ends with its mark. Pure: events and blocks in, events and blocks out, and the numbers of blocks
are counted anew.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from .citing import joined, location

Json = dict[str, Any]

_MARK = re.compile(r"\[\d+\]")


def with_search(content: Sequence[Json], message: Mapping[str, Any]) -> list[Json]:
    """The blocks of a whole answer; `message` is the chat message they were made of."""
    found = message.get("provider_specific_fields") or {}
    pages = {page["url"]: page for page in found.get("search_results") or ()}
    blocks: list[Json] = []
    searched = _search(found)
    for block in content:
        if block.get("type") != "text":
            blocks.append(block)
            continue
        blocks += [*searched, *_cited(block, message.get("annotations") or (), pages)]
        searched = []
    return [*blocks, *searched]


def ending(fields: Mapping[str, Any]) -> Json:
    """How an answer ended whose message has provider `fields`; nothing when they name no stop string."""
    stop = fields.get("stop_sequence")
    return {} if stop is None else {"stop_reason": "stop_sequence", "stop_sequence": stop}


class AnswerEvents:
    """The same for a stream: `note` the fields of each chunk, then `take` the adapter's events that follow it."""

    def __init__(self) -> None:
        self._count = 0
        #: The block that is open to the client, and the one that the adapter believes to be.
        self._open: Json | None = None
        self._inner: Json = {"type": "text", "text": ""}
        self._found: list[Mapping[str, Any]] = []
        self._citations: list[Json] = []
        self._ending: Json = {}

    def note(self, fields: Mapping[str, Any]) -> None:
        """What came with a chunk (`outbound`)."""
        if citation := fields.get("citation"):
            self._citations.append(citation)
        if "search_results" in fields:
            self._found.append(fields)
        self._ending = self._ending or ending(fields)

    def take(self, event: Json) -> Iterator[Json]:
        """The client's events for one of the adapter's."""
        kind = event.get("type")
        delta = event.get("delta") or {}
        yield from self._cite(delta.get("text"))
        if kind == "content_block_start":
            yield from self._close()
            self._inner = event["content_block"]
        elif kind == "content_block_delta":
            if delta.get("type") == "text_delta":
                yield from self._search()
            if self._open is None:
                yield self._opened(self._inner)
            yield {**event, "index": self._count - 1}
        elif kind == "content_block_stop":
            if self._open is None and self._inner["type"] not in ("text", "thinking"):
                yield self._opened(self._inner)  # a call without arguments
            yield from self._close()
            self._inner = {"type": "text", "text": ""}
        else:
            if kind in ("message_delta", "message_stop"):
                yield from self._search()
            yield {**event, "delta": {**delta, **self._ending}} if kind == "message_delta" else event

    def _cite(self, text: str | None) -> Iterator[Json]:
        """Citations of the open block end it, unless the next text is one more mark of the same place."""
        if not self._citations:
            return
        citations, self._citations = self._citations, []
        if self._open is None or self._open["type"] != "text":
            return
        for citation in citations:
            delta = {"type": "citations_delta", "citation": citation}
            yield {"type": "content_block_delta", "index": self._count - 1, "delta": delta}
        if not (text and _MARK.fullmatch(text)):
            yield from self._close()

    def _search(self) -> Iterator[Json]:
        blocks = _search(joined(self._found))
        self._found.clear()
        if blocks:
            yield from self._close()
        for block in blocks:
            if block["type"] == "server_tool_use":
                yield self._opened({**block, "input": {}})
                delta = {"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}
                yield {"type": "content_block_delta", "index": self._count - 1, "delta": delta}
            else:
                yield self._opened(block)
            yield from self._close()

    def _opened(self, block: Json) -> Json:
        self._open = block
        self._count += 1
        return {"type": "content_block_start", "index": self._count - 1, "content_block": block}

    def _close(self) -> Iterator[Json]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._count - 1}


def _search(found: Mapping[str, Any]) -> list[Json]:
    queries, pages = found.get("search_queries") or (), found.get("search_results") or ()
    if not queries and not pages:
        return []
    call_id = f"srvtoolu_{uuid.uuid4().hex}"
    call = {"type": "server_tool_use", "id": call_id, "name": "web_search", "input": {"query": "; ".join(queries)}}
    results = [
        {
            "type": "web_search_result",
            "url": page["url"],
            "title": page["title"] or page["url"],
            "page_age": page["date"] or None,
            "encrypted_content": "",
        }
        for page in pages
    ]
    return [call, {"type": "web_search_tool_result", "tool_use_id": call_id, "content": results}]


def _cited(block: Json, annotations: Sequence[Mapping[str, Any]], pages: Mapping[str, Json]) -> Iterator[Json]:
    """A text block, cut behind each place that is cited."""
    text, done = block["text"], 0
    piece: Json | None = None
    for annotation in annotations:
        place = annotation["url_citation"]
        begin, end = place["start_index"], place["end_index"]
        if piece is None or begin > done:
            if piece is not None:
                yield piece
            piece = {**block, "text": "", "citations": []}
        page = pages.get(place["url"]) or {}
        piece["text"] += text[done:end]
        piece["citations"].append(location(place["url"], place["title"], page.get("snippet") or ""))
        done = end
    if piece is not None:
        yield piece
    if done < len(text) or piece is None:
        yield {**block, "text": text[done:]}
