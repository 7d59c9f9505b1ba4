"""The Chat request on the wire (protocol C.2).

Law: one compact JSON object in one envelope; ids are left out when the chat is new, options the model's row does not
have are not sent, every spelling comes from upstream.yaml. The answer's half is `reducer.ChatDecoder`.
"""

from __future__ import annotations

from typing import Any

import orjson

from ...upstream import Upstream
from .. import Turn
from .envelope import encode
from .reducer import ChatDecoder

__all__ = ["ChatDecoder", "chat_body"]


def chat_body(turn: Turn, upstream: Upstream) -> bytes:
    """The bytes to POST."""
    spec = turn.spec
    options: dict[str, Any] = {"thinking": turn.thinking}
    if turn.effort:
        options["reasoning_effort"] = turn.effort
    if spec.model:
        options["model"] = spec.model
    options["enable_plugin"] = spec.enable_plugin
    if spec.context_length:
        options["context_length"] = spec.context_length
    message: dict[str, Any] = {
        "role": "user",
        "blocks": [{"message_id": "", "text": {"content": turn.prompt}}],
        "scenario": spec.scenario,
    }
    if turn.parent_id:
        message = {"parent_id": turn.parent_id, **message}
    body: dict[str, Any] = {"chat_id": turn.chat_id} if turn.chat_id else {}
    body["scenario"] = spec.scenario
    if spec.kimiplus_id:
        body[upstream.connect.fields.get("kimiplus_id", "kimiplus_id")] = spec.kimiplus_id
    if spec.agent_mode:
        body["agent_mode"] = spec.agent_mode
    body["tools"] = [*spec.tools, *(upstream.connect.search_tools if turn.search else ())]
    body["message"] = message
    body["options"] = options
    return encode(orjson.dumps(body))
