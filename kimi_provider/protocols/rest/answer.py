"""Frames of the answer -> events (protocol B.5).

Law: the echo of the question is never emitted, unknown frames are left out, a JSON value of a wrong type counts as
absent. One `Answer` lives as long as the whole answer, also when the service cuts it at its output cap and several
calls bring the pieces: citation marks, numbers of sources and zones go on over the seam. Knows neither bytes nor how
a call ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ...errors import ContentFiltered, KimiError, UpstreamError
from ...events import ChatOpened, Event, Finished, FinishReason, SearchResults, Source, TextDelta, ThinkingDelta
from ...upstream import Upstream
from .. import Marks
from ..citations import CitationResolver
from ..failures import classify
from ..refusals import error_object
from ..sources import Sources

#: Where a search may say what it looks for; no capture shows it.
_QUERY_FIELDS: Final = ("queries", "keywords", "query")


class Answer:
    """All that one answer has said so far. Events go to `out`, in order."""

    def __init__(self, upstream: Upstream, account: str | None = None, *, marks: Marks = "cite") -> None:
        self._upstream = upstream
        self.account = account
        self.out: list[Event] = []
        self._sources = Sources()
        self._citations = CitationResolver(upstream.citations, self._sources, marks=marks)
        self._queries: set[str] = set()
        self._results = 0
        self._in_thinking_zone = False
        self._message_id = ""
        #: The question's segment, which a "continue" call names.
        self.segment_id = ""
        #: What was handed out so far.
        self.text_sent = False
        self.thinking_sent = False

    def asked(self, frame: Mapping[str, Any]) -> None:
        """`req`: the echo of the question."""
        self.segment_id = _string(frame, "id") or self.segment_id

    def opened(self, frame: Mapping[str, Any]) -> None:
        """`resp`: the answer's own segment."""
        if (message_id := _string(frame, "id")) and message_id != self._message_id:
            self._message_id = message_id
            self.out.append(ChatOpened(message_id=message_id))

    def zone(self, frame: Mapping[str, Any]) -> None:
        """`zone_set`: whether the text that follows is thinking."""
        self._in_thinking_zone = _string(frame, "zone_type") in self._upstream.rest.thinking_zones

    def thought(self, frame: Mapping[str, Any]) -> None:
        """`k1`, `think`: a piece of thinking."""
        if text := _string(frame, "text"):
            self.thinking_sent = True
            self.out.append(ThinkingDelta(text))

    def said(self, frame: Mapping[str, Any]) -> None:
        """`cmpl`: a piece of the answer, or of thinking inside its zone."""
        text = _string(frame, "text")
        if not text:
            return
        if self._in_thinking_zone:
            self.thought(frame)
        elif self._citations.is_plain(text):
            self.text_sent = True
            self.out.append(TextDelta(text))
        else:
            self._sent(self._citations.feed(text))

    def searched(self, frame: Mapping[str, Any]) -> None:
        """`search_plus`: a search begins, or has found a page; `[^N^]` is the Nth one unless it brings its number."""
        message = frame.get("msg")
        if not isinstance(message, dict):
            return
        if _string(message, "type") == "get_res":
            self._results += 1
            self._found((), self._sources.add_pages([_card(message)], self._results))
        else:
            self._found(_queries(message), ())

    def referred(self, frame: Mapping[str, Any]) -> None:
        """`ref_docs`: the pages, once more or at last, behind the answer."""
        cards = frame.get("ref_cards")
        pages = [_card(card) for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        # With results of a search there are numbers already, which these cards must not change.
        self._found((), self._sources.add_results(pages) if self._results else self._sources.add_pages(pages, 1))

    def failed(self, frame: Mapping[str, Any]) -> bool:
        """`error`. Raises what it means; one that withdraws an answer that was already seen ends it instead: True."""
        failure = failure_of(frame, upstream=self._upstream, account=self.account)
        if isinstance(failure, ContentFiltered) and self.text_sent:
            self.out.append(Finished(reason="content_filter"))
            return True
        raise failure

    def flush(self) -> None:
        """Hand out what was held back because it could have become a citation mark."""
        self._sent(self._citations.flush())

    def finish(self, reason: FinishReason) -> None:
        """The service is through. Raises UpstreamError when it said nothing: never an empty answer."""
        self.flush()
        if not (self.text_sent or self.thinking_sent):
            raise UpstreamError("Kimi ended the answer without saying anything", account=self.account)
        self.out.append(Finished(reason=reason))

    def drained(self) -> list[Event]:
        """What there is to hand out, once."""
        events = self.out[:]
        self.out.clear()
        return events

    def _sent(self, events: list[Event]) -> None:
        if events:
            self.text_sent = True
            self.out += events

    def _found(self, queries: Iterable[str], sources: Iterable[Source]) -> None:
        fresh = tuple(q for q in dict.fromkeys(queries) if q not in self._queries)
        pages = tuple(sources)
        if fresh or pages:
            self._queries.update(fresh)
            self.out.append(SearchResults(queries=fresh, sources=pages))


def error_of(got: object) -> Mapping[str, Any] | None:
    """The error in a JSON answer or frame: `{error_type, message, detail}`, bare or under `error` (protocol B.6)."""
    return error_object(got, "error_type")


def failure_of(
    got: object, *, upstream: Upstream, account: str | None, status: int = 0, retry_after_s: float | None = None
) -> KimiError:
    """What an error frame or an HTTP error's JSON means. Never raises."""
    error = error_of(got) or {"message": got.get("error") or got.get("message") if isinstance(got, dict) else None}
    reason = _string(error, "error_type") or _string(error, "reason")
    codes = upstream.rest.error_codes
    return classify(
        code=codes.get(reason) or codes.get(str(status)) or "",
        reason=reason,
        message=error.get("message"),
        details=error,
        upstream=upstream,
        account=account,
        retry_after_s=retry_after_s,
    )


def _queries(message: Mapping[str, Any]) -> Iterator[str]:
    for name in _QUERY_FIELDS:
        value = message.get(name)
        for query in value if isinstance(value, list) else (value,):
            if isinstance(query, str) and query:
                yield query


def _card(found: Mapping[str, Any]) -> dict[str, Any]:
    """A page as `Sources` takes it; the shape of rag-refs (`ref_id`, `ref_doc`) is understood, too (protocol B.3)."""
    inner = found.get("ref_doc")
    page = inner if isinstance(inner, dict) else found
    return {
        "refIndex": found.get("ref_id"),
        "url": page.get("url"),
        "title": page.get("title"),
        "siteName": page.get("site_name"),
        "snippet": page.get("snippet"),
        "publishTime": page.get("date"),
    }


def _string(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
