"""Reads the JSON of a completion as strictly as protocol B.4 words it, and names the field it refuses.

Exactly one message, of the user, not empty. Unknown fields are ignored. Touches no state: whether a chat, a segment or
a file exists is asked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..call import KIMI_PLUS_IDS
from ..settings import K1_AGENT, SimulatorSettings
from .refusals import RestRefusal, invalid

DEFAULT_AGENT = "kimi"


@dataclass(frozen=True, kw_only=True, slots=True)
class RestCall:
    """A completion that is well formed."""

    text: str
    kimiplus_id: str
    file_ids: list[str]
    use_search: bool
    use_research: bool
    use_math: bool
    segment_id: str

    @property
    def thinking(self) -> bool:
        """Whether the answer thinks first: the K1 agent does."""
        return self.kimiplus_id == K1_AGENT

    @property
    def wish(self) -> tuple[object, ...]:
        """What it asks for, whatever it says."""
        return self.kimiplus_id, self.searches, self.use_research, bool(self.segment_id)

    @property
    def searches(self) -> bool:
        """Whether the answer shows search progress."""
        return self.use_search or self.use_research


def read_completion(body: dict[str, Any], settings: SimulatorSettings) -> RestCall:
    """The call, or a RestRefusal."""
    text = _message(body)
    if not isinstance(body.get("extend", {}), dict):
        raise invalid("extend", "must be an object")
    return RestCall(
        text=text,
        kimiplus_id=read_agent(body, settings),
        file_ids=_file_ids(body),
        use_search=_flag(body, "use_search"),
        use_research=_flag(body, "use_research"),
        use_math=_flag(body, "use_math"),
        segment_id=_segment_id(body),
    )


def read_agent(body: dict[str, Any], settings: SimulatorSettings) -> str:
    """`kimiplus_id`: absent, `kimi`, a slug or a known agent's id."""
    found = body.get("kimiplus_id", DEFAULT_AGENT)
    if found != DEFAULT_AGENT and found not in KIMI_PLUS_IDS and found not in settings.agents:
        raise RestRefusal("kimiplus.not_found", f"unknown agent {found!r}", 400, "kimiplus_id")
    return str(found)


def _message(body: dict[str, Any]) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise invalid("messages", "must be one message")
    if messages[0].get("role") != "user":
        raise invalid("messages.role", "must be user")
    content = messages[0].get("content")
    if not isinstance(content, str) or not content:
        raise invalid("messages.content", "must not be empty")
    return content


def _flag(body: dict[str, Any], name: str) -> bool:
    flag = body.get(name, False)
    if not isinstance(flag, bool):
        raise invalid(name, "must be a boolean")
    return flag


def _file_ids(body: dict[str, Any]) -> list[str]:
    refs, described = body.get("refs", []), body.get("refs_file", [])
    if not isinstance(refs, list) or not all(isinstance(one, str) and one for one in refs):
        raise invalid("refs", "must be file ids")
    if not isinstance(described, list) or not all(isinstance(one, dict) and one.get("id") for one in described):
        raise invalid("refs_file", "must be objects with an id")
    return list(dict.fromkeys([*refs, *(str(one["id"]) for one in described)]))


def _segment_id(body: dict[str, Any]) -> str:
    """The segment to continue, or nothing; `action` and `segment_id` only come together."""
    action, segment_id = body.get("action"), body.get("segment_id")
    if action is None and segment_id is None:
        return ""
    if action != "continue":
        raise invalid("action", "must be continue")
    if not isinstance(segment_id, str) or not segment_id:
        raise invalid("segment_id", "must not be empty")
    return segment_id
