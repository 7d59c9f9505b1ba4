"""What may be changed about a running simulator: plain values, checked by kind and, where only some words do, by word.

Each is a question the protocol document leaves open, or a fault a test wants. Reset brings the first values back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

K1_AGENT = "crm40ee9e5jvhsn7ptcg"
"""The agent that was the K1 thinking model (protocol D.1)."""

# What JSON may give for a field, by its annotation.
_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "list[str]": list,
    "list[dict[str, Any]]": list,
    "dict[str, str]": dict,
}


def _word(*choices: str) -> Any:
    """A field that is one of these words; the first is the default."""
    return field(default=choices[0], metadata={"choices": choices})


@dataclass(kw_only=True, slots=True)
class SimulatorSettings:
    """What `POST /_sim/settings` may change."""

    max_streams: int = 2
    """Running streams of one account (protocol E.7; the real figure is unknown)."""
    empty_chat_id_refused: bool = True
    """Refuse empty `chat_id` and `parent_id` of a new chat (protocol C.2: measured both ways)."""
    unverified_scenarios: bool = False
    """Accept scenarios that only one client was seen to send (protocol C.3)."""
    any_word: bool = False
    """Accept scenarios, models and agents that the protocol document doesn't have, as a recording may need."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Words of the protocol that this service spells otherwise: its own word by the document's. Any word will do: a
    scenario, a reason, a field, a citation sign (protocol G)."""
    access_ttl_s: float = 900
    refresh_ttl_s: float = 90 * 86400
    cookie_ttl_s: float = 30 * 86400
    legacy_refresh_rotates: bool = True
    """Form 1 kills the old refresh token too (protocol A.5: not measured, so the stricter)."""
    reuse_kills_session: bool = False
    """A refresh token used again ends its session, new tokens and all, as other services do (RFC 9700, 4.14.2)."""
    refresh_delay_s: float = 0
    """How long a refresh takes; rotation happens at its start."""
    pace: float = 1.0
    """Factor on the natural speed of demo answers; 0 removes the pauses."""
    unimplemented: list[str] = field(
        default_factory=lambda: [
            "kimi.gateway.chat.v1.ChatService/CreateChat",
            "kimi.chat.v1.ChatService/CreateChat",
            "kimi.chat.v1.ChatService/CancelChat",
        ]
    )
    """Methods answered with 501 (protocol C.10)."""
    chat_delay_s: float = 0
    """From the moment a chat is made until its maker is told the id."""
    deletion_fails: bool = False
    """Chats can't be deleted for now, as it was seen right after moderation (protocol E.6)."""
    more_models: list[dict[str, Any]] = field(default_factory=list)
    """Rows that the newest model list has besides its own, as if the service had added models (protocol C.8)."""

    agents: list[str] = field(default_factory=lambda: [K1_AGENT, "cagent0translator000", "cagent00essaywriter0"])
    """Ids of Kimi+ agents the legacy protocol knows besides `kimi` (protocol B.4, D.1)."""
    rest_retired: str = _word("", "404", "405", "410", "redirect")
    """The legacy endpoints answer as a retired host does (protocol B.1)."""
    rest_retired_scope: str = _word("all", "completion")
    """What is retired: everything legacy but the refresh, or only the completion stream."""
    rest_pushing: str = _word("event", "json")
    """A second legacy stream is refused by an `error` event with HTTP 200, or by a JSON body with HTTP 400."""
    research_total: int = 5
    """Explorer calls of one account (protocol B.3)."""
    research_shape: str = _word("flat", "nested")
    """`{"remain","total","used"}`, or the form with `research_usage` inside."""

    max_file_bytes: int = 100 * 1024 * 1024
    """Larger uploads are refused (protocol D.3)."""
    parse_delay_s: float = 0.3
    """From the end of an upload until it is parsed."""
    parse_result: str = _word("", "fail", "never")
    """Force what becomes of the files uploaded from now on."""
    parse_fail_status: str = "PROCESS_STATUS_FAIL"
    """How Connect spells a failure; any word with FAIL in it (protocol C.9)."""
    upload_refusal: str = _word("", "rate_limited", "unavailable")
    """Refuse uploads themselves (protocol C.9: free users can be limited there)."""

    def changed(self, values: Mapping[str, Any]) -> SimulatorSettings:
        """A copy with new values. ValueError for an unknown name or a value of the wrong kind."""
        known = {one.name: one for one in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"unknown setting {name!r}; known: {', '.join(known)}")
            kind = _KINDS[str(known[name].type)]
            choices = known[name].metadata.get("choices")
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"setting {name!r} can't be {value!r}")
            if choices is not None and value not in choices:
                raise ValueError(f"setting {name!r} must be one of {', '.join(map(repr, choices))}")
        return SimulatorSettings(**{**asdict(self), **values})
