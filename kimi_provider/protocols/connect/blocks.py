"""State of one block, built up by `set` and `append` (protocol C.6).

Law: payload keys decide, masks only say whether a missing text means "emptied". What was handed out can't be taken
back, so a block hands out only what its text has grown by. Values of a wrong type count as absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson

from ...events import NativeTool

Channel = Literal["text", "thinking", "tool"]
ToolState = Literal["started", "running", "done", "failed"]

_STATES: Final[dict[str, ToolState]] = {
    "STATUS_PENDING": "started",
    "STATUS_RUNNING": "running",
    "STATUS_DONE": "done",
}
_FAILED: Final = re.compile("FAIL|ERROR|CANCEL")
_NUMBERED: Final = re.compile(r"[:_]\d+$")


class GrownText:
    """A text of which only the growth is handed out.

    After a replacement that is no extension, the new text counts as handed out: its beginning is lost to a reader of
    the stream, its further growth is not. A text that was cut back first has to grow past what was handed out.
    """

    __slots__ = ("_ahead", "_kept_chars", "pieces", "replaced")

    def __init__(self) -> None:
        #: The text in pieces, always this list. Appending to it directly is allowed while `straight`.
        self.pieces: list[str] = []
        #: How often a text was replaced by something else.
        self.replaced = 0
        # Set while the text was cut back: what was handed out, and how much of it the text is.
        self._ahead: str | None = None
        self._kept_chars = 0

    @property
    def straight(self) -> bool:
        """Whether all of the text, and nothing else, was handed out."""
        return self._ahead is None

    def append(self, piece: str) -> str:
        """Extend the text; returns what is to be handed out."""
        ahead = self._ahead
        if ahead is None:
            self.pieces.append(piece)
            return piece
        if ahead.startswith(piece, self._kept_chars):
            self._kept_chars += len(piece)
            return ""
        return self._step(ahead[: self._kept_chars] + piece, ahead)

    def replace(self, text: str) -> str:
        """Set the text; returns what is to be handed out."""
        return self._step(text, "".join(self.pieces) if self._ahead is None else self._ahead)

    def _step(self, text: str, ahead: str) -> str:
        if len(text) < len(ahead) and ahead.startswith(text):
            self._ahead, self._kept_chars = ahead, len(text)
            return ""
        self._ahead, self.pieces[:] = None, (text,)
        if text.startswith(ahead):
            return text[len(ahead) :]
        self.replaced += 1
        return ""


class Block:
    """What an append to a block looks like on the wire, so that the decoder can take it without detours.

    It is `{"id": block_id, kind: {leaf: piece}}` under `mask`, in message `owner`, and may go straight to `pieces`.
    """

    __slots__ = ("block_id", "channel", "kind", "leaf", "mask", "owner", "pieces")

    def __init__(self, owner: str, block_id: str, kind: str, leaf: str, pieces: list[str]) -> None:
        #: Where its text goes.
        self.channel: Channel = "thinking" if kind == "think" else "text"
        self.owner = owner
        self.block_id = block_id
        self.kind = kind
        self.leaf = leaf
        self.mask = f"block.{kind}.{leaf}"
        self.pieces = pieces


class TextBlock(Block):
    """A block of text or thinking: `kind` is `text` or `think`."""

    __slots__ = ("grown", "started")

    def __init__(self, owner: str, block_id: str, kind: str) -> None:
        self.grown = GrownText()
        super().__init__(owner, block_id, kind, "content", self.grown.pieces)
        #: Whether anything was handed out.
        self.started = False

    def apply(self, payload: Mapping[str, Any], *, append: bool, emptied: bool) -> str:
        """Take `{content, flags}`; returns what the text has grown by. `emptied`: a missing content is an empty one."""
        if (flags := payload.get("flags")) is not None:
            self.channel = "thinking" if _says_thinking(flags) else "text"
        content = payload.get("content")
        if isinstance(content, str):
            return self.grown.append(content) if append else self.grown.replace(content)
        return self.grown.replace("") if emptied and content is None and not append else ""


class ToolBlock(Block):
    """A tool that runs inside the service; its answer is folded into the text."""

    __slots__ = ("_call_id", "_failed", "_name", "_output", "_state")

    def __init__(self, owner: str, block_id: str) -> None:
        super().__init__(owner, block_id, "tool", "args", [])
        self.channel = "tool"
        self._call_id = ""
        self._name = ""
        self._output: list[str] = []
        self._failed = False
        self._state: ToolState | None = None

    @property
    def name(self) -> str:
        """As told once, else what the call id (`ask_user:1`) begins with."""
        return self._name or _NUMBERED.sub("", self._call_id)

    def apply(self, payload: Mapping[str, Any], *, append: bool) -> NativeTool | None:
        """Take `{toolCallId, name, args, contents, status, isError, errorCode}`; an event when the state changes."""
        name, call_id, arguments = payload.get("name"), payload.get("toolCallId"), payload.get("args")
        if isinstance(name, str):
            self._name = name
        if isinstance(call_id, str) and not self._call_id:
            # The first one stays, although it is normalised later (ipython_0 -> ipython:1): one id for one call.
            self._call_id = call_id
        if isinstance(arguments, str):
            if not append:
                self.pieces.clear()
            self.pieces.append(arguments)
        contents = payload.get("contents")
        if isinstance(contents, list):
            texts = [text for c in contents if isinstance(c, dict) and isinstance(text := c.get("text"), str)]
            self._output = [*self._output, *texts] if append else texts
        if payload.get("isError") is True or payload.get("errorCode"):
            self._failed = True
        state = self._next_state(payload.get("status"), has_contents=isinstance(contents, list))
        if state is None or state == self._state:
            return None
        self._state = state
        return NativeTool(
            call_id=self._call_id,
            name=self.name,
            state=state,
            arguments=self.arguments,
            output="\n".join(self._output),
        )

    @property
    def arguments(self) -> str:
        """The arguments so far, JSON text that may be incomplete."""
        return "".join(self.pieces)

    def queries(self) -> list[str]:
        """The words of a search call, when its arguments are complete."""
        return [query for query in self._listed("queries") if isinstance(query, str)]

    def questions(self) -> str:
        """What the user is asked, each question with its options below it; nothing while arguments are incomplete."""
        asked = (one for one in self._listed("questions") if isinstance(one, dict))
        return "\n\n".join(filter(None, map(_question, asked)))

    def _listed(self, key: str) -> list[Any]:
        try:
            arguments = orjson.loads(self.arguments)
        except orjson.JSONDecodeError:
            return []
        listed = arguments.get(key) if isinstance(arguments, dict) else None
        return listed if isinstance(listed, list) else []

    def _next_state(self, status: object, *, has_contents: bool) -> ToolState | None:
        if isinstance(status, str) and status in _STATES:
            state = _STATES[status]
        elif isinstance(status, str) and _FAILED.search(status):
            state = "failed"
        elif has_contents:
            # Results without a status are the older form of "done".
            state = "done"
        elif self._state is None and self._name:
            state = "started"
        else:
            return None
        return "failed" if state == "done" and self._failed else state


def _question(asked: Mapping[str, Any]) -> str:
    """`{question, type, options: [{option, description, recommended}]}` as text (protocol C.6)."""
    options = asked.get("options")
    lines = [asked.get("question"), *(map(_option, options) if isinstance(options, list) else ())]
    return "\n".join(line for line in lines if isinstance(line, str) and line)


def _option(offered: object) -> str:
    if not isinstance(offered, dict) or not isinstance(offered.get("option"), str):
        return ""
    description = offered.get("description")
    remark = f": {description}" if isinstance(description, str) and description else ""
    return f"- {offered['option']}{remark}" + (" (recommended)" if offered.get("recommended") is True else "")


def _says_thinking(flags: object) -> bool:
    """`text.flags` splits thinking from answer in one client (protocol C.6, G.18); its shape is unknown."""
    words = flags if isinstance(flags, list) else [flags]
    return any(isinstance(word, str) and "think" in word.lower() for word in words)
