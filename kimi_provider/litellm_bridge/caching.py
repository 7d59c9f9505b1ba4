"""Which of our answers LiteLLM's cache may hold.

Its key ignores parameters it does not know, so a cached answer of one conversation would be given to another, and an
answer that was searched, researched or built by an agent, with tools or from files is one of many. Only plain prompts
are cached. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..upstream import ModelSpec

#: Each of these, when set, makes an answer belong to its own call.
_OWN = (
    "conversation_id",
    "conversation",
    "chat_id",
    "parent_id",
    "previous_response_id",
    "session_id",
    "litellm_session_id",
    "web_search_options",
    "use_search",
    "use_research",
    "research",
    "tools",
    "functions",
    "audio",
    "extra_body",
)
_TEXT_PARTS = {"text", "input_text", "output_text"}


def may_cache(call: Mapping[str, Any], spec: ModelSpec) -> bool:
    """Whether the answer to `call` (LiteLLM's keyword arguments) may be read from or written to the cache."""
    if spec.search or spec.kimiplus_id is not None or spec.agent_mode is not None:
        return False
    if any(call.get(name) not in (None, False, [], {}) for name in _OWN if name != "web_search_options"):
        return False
    if call.get("web_search_options") is not None:  # an empty object switches search on
        return False
    return all(_is_text(call.get(name)) for name in ("messages", "input"))


def _is_text(messages: Any) -> bool:
    """Whether every message of a chat or Responses request is text alone."""
    if not isinstance(messages, list):
        return True
    return all(_is_text_message(message) for message in messages)


def _is_text_message(message: Any) -> bool:
    if not isinstance(message, Mapping) or message.get("tool_calls") or message.get("role") in ("tool", "function"):
        return False
    if message.get("type", "message") != "message":  # an item of Responses: a call, its output, ...
        return False
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return all(
        isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS) for part in parts
    )
