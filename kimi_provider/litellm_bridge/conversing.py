"""Which conversation a call belongs to, and who leads it: from what LiteLLM and the caller say beside the messages.

Pure. A conversation has a name when the caller gives one; a session of a client's has several conversations, so its id
is no name, but tells that there will be more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm.responses.utils import ResponsesAPIRequestUtils

from ..errors import BadRequest

#: Fields of a request that name a conversation: ours, and OpenAI's of its Responses API.
NAMES = ("conversation_id", "conversation")
_MAX_NAME_CHARS = 512
_SESSION_HEADERS = ("x-litellm-session-id", "session-id", "session_id")
#: Who asks, as LiteLLM knows it: the key's hash, its owner, the caller's own word for its user.
_WHO = ("user_api_key_hash", "user_api_key_user_id", "user_api_key_team_id", "user_api_key_end_user_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversing:
    """As the fields of `ChatRequest` that have these names."""

    caller: str | None
    conversation: str | None
    previous_answer: str | None
    lasts: bool


def read(params: Mapping[str, Any], litellm_params: Mapping[str, Any]) -> Conversing:
    """Read it. Raises BadRequest for a name that is none."""
    metadata, caller = _mapping(litellm_params.get("metadata")), _mapping(litellm_params.get("proxy_server_request"))
    body, headers = _mapping(caller.get("body")), _mapping(caller.get("headers"))
    who = [str(metadata.get(name) or "") for name in _WHO]
    responses = "input" in body and "messages" not in body
    return Conversing(
        caller="\n".join(who) if any(who) else None,
        conversation=_name(params, body),
        previous_answer=_previous(body.get("previous_response_id")),
        # An answer of the Responses API may be gone on from by its id, unless the caller says no.
        lasts=(responses and body.get("store") is not False) or any(headers.get(name) for name in _SESSION_HEADERS),
    )


def _name(params: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    for source in (params, _mapping(body.get("metadata"))):
        for field in NAMES:
            value = source.get(field)
            name = value.get("id") if isinstance(value, Mapping) else value
            if name is None or name == "":
                continue
            if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS:
                raise BadRequest(f"{field} must be a text of at most {_MAX_NAME_CHARS} characters")
            return name
    return None


def _previous(value: Any) -> str | None:
    """The id that the answer left with: LiteLLM wraps it in one of its own."""
    if not isinstance(value, str) or not value:
        return None
    return str(ResponsesAPIRequestUtils.decode_previous_response_id_to_original_previous_response_id(value))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
