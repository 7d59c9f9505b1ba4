"""Blocks that LiteLLM would change or drop, carried past its translation of a request to chat messages.

LiteLLM's adapters for Anthropic's Messages and OpenAI's Responses keep text and some images, and drop the rest without
a word: documents that are text, titles, files in a tool's result, that a result is an error, audio. While they
translate, a line of text stands for each block that is not text; afterwards the block takes its place again, as the
caller wrote it. So nothing is lost, the order is kept, hooks and LiteLLM's own edits of the history still apply, and no
file is copied. Pure.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from .parts import PlacedPart, place_of

#: What LiteLLM's adapters translate themselves.
_ANTHROPIC_OWN = frozenset({"text", "tool_result"})
_RESPONSES_OWN = frozenset(
    {"text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "encrypted_content"}
)
#: Stands for Anthropic's `is_error`, which becomes a field of the chat message.
_IS_ERROR = PlacedPart({}, "")


class Carrier:
    """The blocks of one request, from `anthropic` or `responses` to `put_back`."""

    def __init__(self) -> None:
        self._blocks: list[PlacedPart] = []
        self._sign = f"[{secrets.token_hex(16)}:"  # no caller can guess it

    def anthropic(self, messages: Sequence[Any]) -> list[Any]:
        """The same messages with lines for blocks."""
        return [self._in_message(number, message) for number, message in enumerate(messages, start=1)]

    def responses(self, items: Any) -> Any:
        """The same `input` with lines for blocks."""
        if not isinstance(items, list):
            return items
        return [self._in_item(number, item) for number, item in enumerate(items, start=1)]

    def put_back(self, messages: Sequence[Any]) -> None:
        """Change the translated `messages`: each line becomes its block again."""
        for message in messages if self._blocks else ():
            content = message.get("content")
            if isinstance(content, str) and self._sign in content:
                parts = self._split(content)
            elif isinstance(content, list):
                parts = [part for item in content for part in self._found(item)]
            else:
                continue
            message["content"] = [part for part in parts if part is not _IS_ERROR]
            if len(message["content"]) < len(parts):
                message["is_error"] = True

    def _in_message(self, number: int, message: Any) -> Any:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, list) or message.get("role") != "user":
            return message
        blocks = self._lines(content, "text", _ANTHROPIC_OWN, number)
        for at, block in enumerate(blocks):
            if isinstance(block, Mapping) and block.get("type") == "tool_result":
                blocks[at] = {**block, "content": self._in_result(block, number, at + 1)}
        return {**message, "content": blocks}

    def _in_result(self, block: Mapping[str, Any], number: int, at: int) -> Any:
        content = block.get("content")
        if isinstance(content, list):
            content = self._lines(content, "text", _ANTHROPIC_OWN, number, at)
        if block.get("is_error") is not True:
            return content
        shown = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        return [{"type": "text", "text": self._line(_IS_ERROR)}, *shown]

    def _in_item(self, number: int, item: Any) -> Any:
        if not isinstance(item, Mapping):
            return item
        changed = {
            name: self._lines(item[name], "input_text", _RESPONSES_OWN, number)
            for name in ("content", "output")
            if isinstance(item.get(name), list)
        }
        return {**item, **changed} if changed else item

    def _lines(self, blocks: Sequence[Any], text_type: str, own: frozenset[str], number: int, *outer: int) -> list[Any]:
        kept = []
        for at, block in enumerate(blocks, start=1):
            if isinstance(block, Mapping) and block.get("type") not in own:
                # A type that LiteLLM accepts in every message.
                part = PlacedPart({"type": "file", "file": block}, place_of(number, *outer, at))
                block = {"type": text_type, "text": self._line(part)}
            kept.append(block)
        return kept

    def _line(self, part: PlacedPart) -> str:
        self._blocks.append(part)
        return f"{self._sign}{len(self._blocks) - 1}]"

    def _found(self, item: Any) -> list[Any]:
        text = item.get("text") if isinstance(item, Mapping) else None
        return self._split(text) if isinstance(text, str) and self._sign in text else [item]

    def _split(self, text: str) -> list[Any]:
        pieces = re.split(re.escape(self._sign) + r"(\d+)\]", text)
        parts: list[Any] = []
        for at, piece in enumerate(pieces):
            if at % 2:
                parts.append(self._blocks[int(piece)])
            elif piece:
                parts.append({"type": "text", "text": piece})
        return parts
