"""`stop` and `max_tokens` on an answer's events, the last step before the caller.

Law: events in, events out, in order; once `finish` is set the answer is over and nothing more comes out. Thinking and
arguments of calls count against `max_tokens` as text does; stop strings are looked for in text alone, and the one that
was met is the last event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from ..events import Event, StopReached, TextDelta, ThinkingDelta, ToolCallDelta
from .stops import StopFilter
from .tokens import TokenLimit


class Shaper:
    """Feed it what the caller is to see. `finish` is why the answer ended early; None: it did not."""

    def __init__(self, *, stop: Sequence[str] = (), max_tokens: int | None = None) -> None:
        self._stops = StopFilter(stop)
        self._limit = TokenLimit(max_tokens) if max_tokens is not None else None
        self.finish: Literal["stop", "length"] | None = None

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """What of `events` may be shown."""
        out: list[Event] = []
        for event in events:
            if self.finish is not None:
                break
            match event:
                case TextDelta():
                    self._text(out, self._stops.feed(event.text))
                    if self.finish is None and self._stops.stopped is not None:
                        self.finish = "stop"
                        out.append(StopReached(self._stops.stopped))
                case ThinkingDelta():
                    if text := self._within(event.text):
                        out.append(ThinkingDelta(text))
                case ToolCallDelta():
                    self._text(out, self._stops.close())
                    if self.finish is None:
                        out.append(replace(event, arguments=self._within(event.arguments)))
                case _:
                    out.append(event)
        return out

    def close(self) -> list[Event]:
        """What was held back, at the end of the answer."""
        out: list[Event] = []
        if self.finish is None:
            self._text(out, self._stops.close())
        return out

    def _text(self, out: list[Event], text: str) -> None:
        if text := self._within(text):
            out.append(TextDelta(text))

    def _within(self, text: str) -> str:
        if self._limit is None:
            return text
        text = self._limit.feed(text)
        if self._limit.reached:
            self.finish = "length"
        return text
