"""What the model wrote -> what the caller asked for: its own turn only, tool calls, JSON, `stop` and `max_tokens`.

Sans-I/O: a protocol's events in, the caller's events out, in order; cut anywhere, the same comes out. Knows when
nothing more is wanted (`over`), and when the answer is not what was asked for (`problem`), so that the model can be
told so (`repair`) and asked once more in the same chat.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..events import Event, FinishReason, NativeTool, Notice, TextDelta
from ..request import ChatRequest
from ..shaping import JsonAnswer, Shaper
from ..tools import Toolbox
from .transcript import TranscriptGuard


class Answering:
    """One answer, and its repairs. `json` reads it, where that is wanted; `guarded`: the model sees a transcript."""

    def __init__(self, request: ChatRequest, toolbox: Toolbox, json: JsonAnswer | None, *, guarded: bool) -> None:
        self._toolbox = toolbox
        self._guarded = guarded
        self._json = json
        self._shaper = Shaper(stop=request.stop, max_tokens=request.max_tokens)
        self._calls = 0
        self._native: set[str] = set()
        self._repaired = False
        self._begin()

    def _begin(self) -> None:
        self._guard = TranscriptGuard() if self._guarded else None
        self._parser = self._toolbox.parser(first_index=self._calls) if self._toolbox.active else None
        if self._json is not None:
            self._json.begin()

    @property
    def over(self) -> bool:
        """Nothing that the model still writes is wanted."""
        return (
            self._shaper.finish is not None
            or (self._guard is not None and self._guard.stopped)
            or (self._parser is not None and self._parser.stopped)
        )

    @property
    def whole(self) -> bool:
        """After `close`: the caller has got all that the model wrote, and at the first go."""
        refused = self._parser is not None and self._parser.outcome.refused
        return not (self.over or self._repaired or refused)

    @property
    def problem(self) -> str | None:
        """Why the answer is not what was asked for, after `close`; None when it is, or when the caller cut it short."""
        if self._shaper.finish is not None or self._calls:
            return None
        if self._parser is not None and self._parser.outcome.needs_repair:
            refused = sorted({f"'{call.name}' ({call.reason})" for call in self._parser.outcome.refused})
            return f"calls that can't be made: {', '.join(refused)}" if refused else "no tool call"
        if self._json is not None and self._json.problem is not None:
            return f"no JSON as asked for: {self._json.problem}"
        return None

    @property
    def repair(self) -> str | None:
        """What to tell the model about the `problem`; None when it is too late."""
        if self._parser is not None and self._parser.outcome.needs_repair:
            return self._toolbox.repair_text(self._parser.outcome)
        return None if self._json is None or self._json.shown else self._json.repair_text

    def begin_again(self) -> None:
        """What follows answers `repair`."""
        self._repaired = True
        self._begin()

    def finish(self, reason: FinishReason) -> FinishReason:
        """Why the answer ended; `reason` is the service's own."""
        if self._shaper.finish is not None:
            return self._shaper.finish
        return "tool_calls" if self._calls else reason

    def feed(self, event: Event) -> list[Event]:
        """What callers see of `event`."""
        if self.over:
            return []
        match event:
            case TextDelta(text):
                return self._shown(self._read([event] if self._parser is None else self._parser.feed(text)))
            case NativeTool() if self._parser is not None:
                return self._foreign(event)
        return self._shown([event])

    def _foreign(self, event: NativeTool) -> list[Event]:
        """A tool of the service's own runs in its sandbox, not where the caller's do: that is told, once."""
        if event.call_id in self._native:
            return []
        self._native.add(event.call_id)
        said = f"Kimi ran its own tool '{event.name}' although the caller's tools were offered"
        return [Notice(code="native_tool", message=said)]

    def close(self) -> list[Event]:
        """What was still held back."""
        events: list[Event] = []
        if self._parser is not None:
            events += self._read(self._parser.close())
            self._calls += self._parser.outcome.calls
        if self._guard is not None:
            events += self._as_json(self._guard.close())
        if self._json is not None and not self._calls and (text := self._json.close()):
            events.append(TextDelta(text))
        return [*self._shown(events), *self._shaper.close()]

    def _read(self, events: Iterable[Event]) -> list[Event]:
        """Text of the model's own turn, as JSON if so wanted, and calls. An argument may hold a header of a turn: only
        text outside of calls is guarded.
        """
        out: list[Event] = []
        for event in events:
            if self._guard is not None and self._guard.stopped:
                break
            if not isinstance(event, TextDelta):
                if self._guard is not None:
                    out += self._as_json(self._guard.close())
                out.append(event)
            else:
                out += self._as_json(event.text if self._guard is None else self._guard.feed(event.text))
        return out

    def _as_json(self, text: str) -> list[Event]:
        if self._json is not None:
            text = self._json.feed(text)
        return [TextDelta(text)] if text else []

    def _shown(self, events: Iterable[Event]) -> list[Event]:
        return self._shaper.feed(events)
