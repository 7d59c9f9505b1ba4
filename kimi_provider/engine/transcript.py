"""A history as the one message that the service takes, and a guard against it being continued.

The service reads a single user message per call (protocol E.1). A lone user message goes as it is; anything longer
becomes a transcript with the system text first and a header line per turn (protocol E.2). Files follow the text, so a
line in the transcript stands where each was; calls and results stand there as `tools` spells them. A model that sees a
transcript sometimes writes the next user turn itself: `TranscriptGuard` ends the answer there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import BadRequest
from ..request import FilePart, Message, TextPart
from ..tools import Toolbox

USER = "[USER]"
ASSISTANT = "[ASSISTANT]"
#: Begins the line above every result (`tools.texts` of upstream.yaml).
TOOL = "[TOOL RESULT"

_INTRODUCTION = (
    f"The conversation so far is written below; a line {USER} or {ASSISTANT} opens each turn. "
    "Write only the next assistant turn, without such a line."
)

#: A line that opens a turn which is not the model's to write.
_HEADER = re.compile("^(?:" + "|".join(map(re.escape, (USER, TOOL))) + ")", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Text for the service. `guarded`: it is a transcript, so the answer needs a `TranscriptGuard`."""

    text: str
    guarded: bool


def flatten(
    messages: Sequence[Message],
    toolbox: Toolbox,
    labels: Mapping[FilePart, str] | None = None,
    *,
    instructions: str = "",
) -> Prompt:
    """Join `messages`. `labels` name their files, `instructions` follow the system text.

    Raises BadRequest when there is nothing to answer.
    """
    system = "\n\n".join(filter(None, (system_text(messages), toolbox.instructions, instructions)))
    turns = _turns(messages, labels or {})
    if (alone := _alone(turns)) is not None and not toolbox.example:
        # A model that may call a tool sometimes writes the result as well.
        return Prompt(text=f"{system}\n\n{alone}" if system else alone, guarded=toolbox.active)
    blocks = [system] if system else []
    blocks.append(_INTRODUCTION)
    blocks.extend(_headed(turn.role, turn.text) for turn in toolbox.example)
    blocks.extend(_block(message, text, toolbox) for message, text in turns)
    blocks.append(ASSISTANT)
    return Prompt(text="\n\n".join(blocks), guarded=True)


def going_on(messages: Sequence[Message], toolbox: Toolbox, labels: Mapping[FilePart, str], *, guarded: bool) -> Prompt:
    """Join what follows in a chat that holds all before; `guarded`: the chat holds a transcript.

    Raises BadRequest when there is nothing to answer.
    """
    turns = _turns(messages, labels)
    if (alone := _alone(turns)) is not None:
        return Prompt(text=alone, guarded=guarded or toolbox.active)
    return Prompt(text="\n\n".join(_block(message, text, toolbox) for message, text in turns), guarded=True)


def system_text(messages: Sequence[Message]) -> str:
    """That of all system messages."""
    return "\n\n".join(message.text for message in messages if message.role == "system" and message.text.strip())


def _turns(messages: Sequence[Message], labels: Mapping[FilePart, str]) -> list[tuple[Message, str]]:
    """Messages that are turns, with their texts. Raises BadRequest when there is nothing to answer."""
    texts = [(message, _text(message, labels)) for message in messages if message.role != "system"]
    turns = [(m, text) for m, text in texts if m.role == "tool" or text.strip() or m.tool_calls]
    if not any(text.strip() or m.tool_calls for m, text in turns):
        raise BadRequest("The messages hold no text to answer", cure="Add a user message with text.")
    return turns


def _alone(turns: Sequence[tuple[Message, str]]) -> str | None:
    """The text of a lone user message, which needs no transcript."""
    if len(turns) != 1 or turns[0][0].role != "user":
        return None
    message, marked = turns[0]
    files = sum(isinstance(part, FilePart) for part in message.parts)
    # One file needs no name; several stand in an order.
    return message.text if message.text.strip() and files < 2 else marked


def _text(message: Message, labels: Mapping[FilePart, str]) -> str:
    """The parts of `message`, a line in the place of each file."""
    lines = (part.text if isinstance(part, TextPart) else f"[{labels[part]}]" for part in message.parts)
    return "\n".join(lines)


def _block(message: Message, text: str, toolbox: Toolbox) -> str:
    if message.role == "tool":
        return toolbox.result_text(message.tool_call_id or message.name or "", text, failed=message.is_error)
    if message.role == "assistant":
        return _headed("assistant", "\n\n".join(filter(None, (text, toolbox.calls_text(message.tool_calls)))))
    return _headed("user", text)


def _headed(role: str, text: str) -> str:
    """A turn under its header; a result brings its own."""
    return text if role == "tool" else f"{ASSISTANT if role == 'assistant' else USER}\n{text}"


class TranscriptGuard:
    """Takes an answer piece by piece and ends it before a line that opens another turn.

    `feed` returns what may be shown; `stopped` becomes True at a user's or tool's header. Leading assistant headers
    are dropped. Only what could begin a header is held back, with the line breaks before it, so that the same text is
    shown however the answer was cut.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._held = ""
        self._line_start = True
        #: Nothing but blanks and assistant headers so far; the second: there was such a header.
        self._opening = True
        self._own_header = False

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
        text, self._held = self._held, ""
        if self._opening:
            text = self._without_own_header(text)
            if self._opening and not final:
                self._held = text
                return ""
        # The line that the shown text ended in can't open a turn any more.
        start = 0 if self._line_start else text.find("\n") + 1
        if (start or self._line_start) and (header := _HEADER.search(text, start)):
            self.stopped = True
            return text[: header.start()].rstrip("\n")
        cut = len(text) if final else self._surely_shown(text)
        self._held = text[cut:]
        self._line_start = self._line_start and cut == 0
        return text[:cut]

    def _without_own_header(self, text: str) -> str:
        """Drop leading assistant headers; the opening lasts while another one could follow."""
        rest = text.lstrip("\n ")
        while rest.startswith(ASSISTANT):
            self._own_header = True
            rest = rest[len(ASSISTANT) :].lstrip("\n ")
        self._opening = ASSISTANT.startswith(rest)
        return rest if self._own_header else text

    def _surely_shown(self, text: str) -> int:
        """How much of `text` is neither a header's beginning nor a line break before one."""
        line_at = text.rfind("\n") + 1
        if not line_at and not self._line_start:
            return len(text)
        line = text[line_at:]
        if not any(marker.startswith(line) for marker in (USER, TOOL)):
            return len(text)
        return len(text[:line_at].rstrip("\n"))
