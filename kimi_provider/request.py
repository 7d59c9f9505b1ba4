"""What a caller asks for, as frozen values.

Knows nothing of LiteLLM, HTTP or Kimi's wire format: the bridge builds a `ChatRequest`, the engine and the
protocols read it. Standard library only, so that every room may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Plain text of a message."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePart:
    """A file or an image: `source` is a `data:` or `https:` URL, or base64.

    `place` is where it stands in the caller's own request ("Message 3, part 2"), for errors. Parts that differ in
    nothing else are equal.
    """

    kind: Literal["image", "file"]
    source: str = field(repr=False)
    filename: str | None = None
    media_type: str | None = None
    place: str = field(default="", compare=False)


Part = TextPart | FilePart


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A call the assistant made in an earlier turn; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of the history, oldest first in `ChatRequest.messages`."""

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    #: A tool's result that tells of a failure.
    is_error: bool = False

    @property
    def text(self) -> str:
        """All text parts, joined by line breaks."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A function the caller offers; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolChoice:
    """Whether tools are called: at will, never, or at least one. `names`: only these may be; empty: all."""

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()


#: The model decides.
ANY_TOOL = ToolChoice()


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonFormat:
    """The answer is to be JSON: valid by `schema`, or any object without one."""

    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """One answer wanted.

    `model` is the name behind `kimi/`. `thinking` and `effort` are the caller's words (`none`, `minimal`, `low`,
    `medium`, `high`, `xhigh`, `max`); None leaves the model's default. `stop` ends the answer before any of its
    strings, `max_tokens` by estimate. `collected`: the caller gets the answer as a whole, so it may be mended before it
    is shown. `credential` is a deployment's own api_key: then only that account is used. `timeout_s` bounds the whole
    call.

    `caller` says who asks, in any words: conversations of different callers never meet. `conversation` is what they
    call theirs, also an id of a chat of the account's owner; `previous_answer` the answer that this one follows;
    `answer_id` what they will call this one. With either of the first two the messages may leave out what came before.
    `lasts`: there will be more of this conversation.
    """

    model: str
    messages: tuple[Message, ...]
    thinking: bool | None = None
    effort: str | None = None
    search: bool | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = ANY_TOOL
    parallel_tool_calls: bool = True
    response_format: JsonFormat | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    collected: bool = False
    credential: str | None = field(default=None, repr=False)
    timeout_s: float | None = None
    caller: str | None = field(default=None, repr=False)
    conversation: str | None = None
    previous_answer: str | None = None
    answer_id: str | None = None
    lasts: bool = False
