"""A history as the one message that the service takes, and a guard against it being continued.

The service reads a single user message per call (protocol E.1). A lone user message goes as it is; anything longer
becomes a transcript with the system text first and a header line per turn (protocol E.2). A model that sees a
transcript sometimes writes the next user turn itself: `TranscriptGuard` ends the answer there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import BadRequest
from .request import FilePart, Message

USER = "[USER]"
ASSISTANT = "[ASSISTANT]"
TOOL = "[TOOL RESULT]"

_INTRODUCTION = (
    f"The conversation so far is written below; a line {USER} or {ASSISTANT} opens each turn. "
    "Write only the next assistant turn, without such a line."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Text for the service. `guarded`: it is a transcript, so the answer needs a `TranscriptGuard`."""

    text: str
    guarded: bool


def flatten(messages: Sequence[Message]) -> Prompt:
    """Join `messages`. Raises BadRequest when there is nothing to answer or a part can't be sent."""
    for number, message in enumerate(messages, start=1):
        for part in message.parts:
            if isinstance(part, FilePart):
                raise BadRequest(
                    f"Message {number} holds {'an image' if part.kind == 'image' else 'a file'}, "
                    "which this version can't send to Kimi",
                    cure="Send text only, or route such requests to another provider.",
                )
    system = "\n\n".join(m.text for m in messages if m.role == "system" and m.text.strip())
    turns = [m for m in messages if m.role != "system" and (m.text.strip() or m.tool_calls)]
    if not turns:
        raise BadRequest("The messages hold no text to answer", cure="Add a user message with text.")
    if len(turns) == 1 and turns[0].role == "user":
        text = f"{system}\n\n{turns[0].text}" if system else turns[0].text
        return Prompt(text=text, guarded=False)
    blocks = [system] if system else []
    blocks.append(_INTRODUCTION)
    blocks.extend(_block(message) for message in turns)
    blocks.append(ASSISTANT)
    return Prompt(text="\n\n".join(blocks), guarded=True)


def _block(message: Message) -> str:
    match message.role:
        case "assistant":
            calls = [f"(called {call.name} with {call.arguments})" for call in message.tool_calls]
            return "\n".join([ASSISTANT, *([message.text] if message.text else []), *calls])
        case "tool":
            return f"{TOOL}\n{message.text}"
        case _:
            return f"{USER}\n{message.text}"


class TranscriptGuard:
    """Takes an answer piece by piece and ends it before a line that opens another turn.

    `feed` returns what may be shown; `stopped` becomes True at a user's or tool's header. A leading assistant header
    is dropped. Only the few characters that could begin a header are held back.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._held = ""
        self._line_start = True
        self._any_text = False

    def feed(self, text: str) -> str:
        """The part of the answer that is surely no header."""
        if self.stopped:
            return ""
        if not self._held and not self._line_start and "\n" not in text:
            return text
        self._held += text
        return self._release(final=False)

    def close(self) -> str:
        """What was still held back."""
        return "" if self.stopped else self._release(final=True)

    def _release(self, *, final: bool) -> str:
        shown: list[str] = []
        rest, self._held = self._held, ""
        while rest:
            if self._line_start:
                verdict = self._header(rest, final=final)
                if verdict is None:
                    self._held = rest
                    break
                if verdict < 0:
                    self.stopped = True
                    break
                rest = rest[verdict:]
                if verdict:
                    continue
            line, newline, rest = rest.partition("\n")
            shown += (line, newline)
            self._any_text = self._any_text or bool(line.strip())
            self._line_start = bool(newline)
        text = "".join(shown)
        # Blank lines before a header belong to it.
        return text.rstrip() if self.stopped else text

    def _header(self, rest: str, *, final: bool) -> int | None:
        """At the start of a line: -1 another turn opens, n > 0 characters to drop, 0 plain text, None undecided."""
        for marker in (USER, TOOL):
            if rest.startswith(marker):
                return -1
            if not final and marker.startswith(rest):
                return None
        if not self._any_text:
            if rest.startswith(ASSISTANT):
                after = rest[len(ASSISTANT) :]
                return len(ASSISTANT) + len(after) - len(after.lstrip("\n "))
            if not final and ASSISTANT.startswith(rest):
                return None
        return 0
