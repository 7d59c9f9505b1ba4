"""A plain question as JSON, for each API that LiteLLM itself serves: path and body, without model and stream."""

from __future__ import annotations

from typing import Any

ASK = [{"role": "user", "content": "Weather in Oslo?"}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": ASK}),
    "messages": ("/v1/messages", {"messages": ASK, "max_tokens": 4000}),
    "responses": ("/v1/responses", {"input": "Weather in Oslo?"}),
}
