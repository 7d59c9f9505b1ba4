"""What an answer is made of: the nouns that flow from a protocol to the bridge.

Values only. An ability of the service that callers can see is one more event here, never a callback. Standard
library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer. Citation marks are already `[n]`."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of the model's reasoning."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A page the service found. Only `url` is certain to be there."""

    url: str
    title: str = ""
    site_name: str = ""
    snippet: str = ""
    published: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResults:
    """Native search went on: words searched for and pages found since the last such event."""

    queries: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Citation:
    """The text so far ends in `[number]`, which stands for `source` (emitted at each use)."""

    number: int
    source: Source


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeTool:
    """A tool that runs inside the service (protocol C.6), never a call for the client to make.

    `arguments` and `output` are text as the service gave it.
    """

    call_id: str
    name: str
    state: Literal["started", "running", "done", "failed"]
    arguments: str = ""
    output: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallDelta:
    """A call for the client to make; pieces with one `index` belong together."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """The service remarks on the answer: `code` is ours (`model_degraded`, `unknown`), `message` its own words."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StopReached:
    """The model wrote one of the caller's stop strings: the answer ended before it."""

    stop: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatOpened:
    """Where the answer lives in the account. Either id may still be missing and follow in a later event."""

    chat_id: str | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class ConversationFound:
    """Comes before an answer that may be gone on from: did it go on in the chat of an earlier one?"""

    continued: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens, always an estimate: the service tells none (protocol E.10)."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The last event of every answer that did not fail."""

    reason: FinishReason = "stop"


Event = (
    TextDelta
    | ThinkingDelta
    | SearchResults
    | Citation
    | NativeTool
    | ToolCallDelta
    | Notice
    | StopReached
    | ChatOpened
    | ConversationFound
    | Usage
    | Finished
)


def merged(events: Iterable[Event]) -> list[Event]:
    """Join neighbouring text and thinking deltas: each event costs the gateway 0.2 ms, whatever its length."""
    out: list[Event] = []
    kind: type[TextDelta] | type[ThinkingDelta] | None = None
    pieces: list[str] = []
    for event in events:
        if kind is not None:
            if type(event) is kind:
                pieces.append(event.text)
                continue
            out.append(kind("".join(pieces)))
            kind = None
        if isinstance(event, (TextDelta, ThinkingDelta)):
            kind, pieces = type(event), [event.text]
        else:
            out.append(event)
    if kind is not None:
        out.append(kind("".join(pieces)))
    return out
