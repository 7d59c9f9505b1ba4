"""Reads the JSON of a Chat request as strictly as the service does (protocol C.2), and names the field it refuses.

Proto-JSON: every field in snake or camel case, unknown fields ignored (so top-level `messages` is, too), unknown enum
values refused, unknown tool types stored as `{}`. Touches no state: whether a chat exists is asked elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .models import legal_efforts, model_of
from .refusals import violation
from .settings import SimulatorSettings

SCENARIOS = frozenset(
    f"SCENARIO_{name}"
    for name in ("CHAT", "K2", "K1", "SEARCH", "RESEARCH", "K2D5", "OK_COMPUTER", "OK_COMPUTER_SWARM", "SLIDES")
)
UNVERIFIED_SCENARIOS = frozenset(f"SCENARIO_{name}" for name in ("K2D6", "K3", "K3_THINKING", "AUTOMATION_K3"))
TOOL_TYPES = frozenset(
    f"TOOL_TYPE_{name}"
    for name in [
        "SEARCH",
        "IMAGE_GENERATION",
        "SEMANTIC_MEMORY",
        "AUDIO_GENERATION",
        "DEVICE_LBS",
        "DEVICE_TOOL",
        "PARALLEL_AGENT",
        "ASK_USER",
        "CRON_JOB",
        "GOAL",
        "PARALLEL_AGENT_V2",
        "BANANA",
        "SLIDES_OUTLINE",
    ]
)
AGENT_MODES = frozenset({"TYPE_NORMAL", "TYPE_ULTRA"})
EFFORTS = frozenset(f"REASONING_EFFORT_{name}" for name in ("NONE", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH", "MAX"))
CONTEXT_LENGTHS = frozenset({"CONTEXT_LENGTH_L", "CONTEXT_LENGTH_XL"})
KIMI_PLUS_IDS = frozenset({"ok-computer", "deep-researcher"})
_AGENT_ID = re.compile(r"[0-9a-z]{20}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatCall:
    """A Chat request that is well formed."""

    chat_id: str
    parent_id: str
    message_id: str
    scenario: str
    tools: list[dict[str, Any]]
    text: str
    blocks: list[dict[str, Any]]
    file_ids: list[str]
    options: dict[str, Any]
    kimi_plus_id: str
    agent_mode: str

    @property
    def thinking(self) -> bool:
        """Whether the answer thinks first: the switch, or any effort but NONE."""
        effort = self.options.get("reasoningEffort", "REASONING_EFFORT_NONE")
        return bool(self.options.get("thinking", effort != "REASONING_EFFORT_NONE"))

    @property
    def searches(self) -> bool:
        """Whether the native search tool is offered."""
        return any(tool.get("type") == "TOOL_TYPE_SEARCH" for tool in self.tools)

    @property
    def wish(self) -> tuple[object, ...]:
        """What it asks for, whatever it says."""
        model, new = self.options.get("model"), not self.chat_id
        return self.scenario, model, self.kimi_plus_id, self.agent_mode, self.thinking, self.searches, new

    @property
    def system_prompt(self) -> str:
        """`options.system_prompt`, or nothing."""
        return str(self.options.get("systemPrompt", ""))

    @property
    def required_level(self) -> str:
        """The plan this call needs (protocol C.8, D.3)."""
        if self.options.get("contextLength") == "CONTEXT_LENGTH_XL":
            return "LEVEL_ADVANCED"
        swarm = self.agent_mode == "TYPE_ULTRA" or self.scenario == "SCENARIO_OK_COMPUTER_SWARM"
        return "LEVEL_BASIC" if swarm or self.options.get("model") == "k3-agent-swarm" else "LEVEL_FREE"


def read_call(body: dict[str, Any], settings: SimulatorSettings) -> ChatCall:
    """The call, or a Refusal that names the offending field."""
    scenarios = _scenarios(settings)
    scenario = _enum(body, "scenario", scenarios, required=True)
    chat_id = _text(body, "chat_id")
    if settings.empty_chat_id_refused and chat_id == "":
        raise violation("chat_id", "must not be empty")
    message = _object(body, "message", required=True)
    if message.get("role") != "user":
        raise violation("message.role", "must be user")
    _enum(message, "scenario", scenarios, path="message.scenario")
    parent_id = _text(message, "parent_id", path="message.parent_id")
    if settings.empty_chat_id_refused and parent_id == "" and not chat_id:
        raise violation("message.parent_id", "must not be empty")
    blocks, texts, file_ids = _blocks(message)
    options = _options(body, scenario, settings)
    return ChatCall(
        chat_id=chat_id or "",
        parent_id=parent_id or "",
        message_id=_text(message, "id", path="message.id") or "",
        scenario=scenario,
        tools=_tools(body),
        text="\n".join(texts),
        blocks=blocks,
        file_ids=file_ids,
        options=options,
        kimi_plus_id=_kimi_plus_id(body, settings),
        agent_mode=_enum(body, "agent_mode", AGENT_MODES),
    )


def _scenarios(settings: SimulatorSettings) -> frozenset[str] | None:
    """Those that may be asked for; None: any."""
    if settings.any_word:
        return None
    return SCENARIOS | UNVERIFIED_SCENARIOS if settings.unverified_scenarios else SCENARIOS


def field_of(value: dict[str, Any], snake: str) -> Any:
    """A field under its proto name or its JSON name; None when absent."""
    if snake in value:
        return value[snake]
    return value.get(_camel(snake))


def _text(value: dict[str, Any], name: str, *, path: str = "") -> str | None:
    found = field_of(value, name)
    if found is not None and not isinstance(found, str):
        raise violation(path or name, "must be a string")
    return found


def _object(value: dict[str, Any], name: str, *, required: bool = False, path: str = "") -> dict[str, Any]:
    found = field_of(value, name)
    if found is None and required:
        raise violation(path or name, "must be set")
    if found is not None and not isinstance(found, dict):
        raise violation(path or name, "must be an object")
    return found or {}


def _enum(
    value: dict[str, Any], name: str, allowed: frozenset[str] | None, *, required: bool = False, path: str = ""
) -> str:
    """A word of `allowed`, of any when that is None."""
    found = _text(value, name, path=path)
    if found is None and not required:
        return ""
    if found is None or (allowed is not None and found not in allowed):
        raise violation(path or name, f"invalid enum value {found!r}")
    return found


def _kimi_plus_id(body: dict[str, Any], settings: SimulatorSettings) -> str:
    # Two spellings are in use and which one counts is unsettled (protocol C.2), so both are read.
    found = _text(body, "kimiplus_id") or _text(body, "kimi_plus_id", path="kimiplus_id") or ""
    known = not found or found in KIMI_PLUS_IDS or _AGENT_ID.fullmatch(found)
    if not known and not settings.any_word:
        raise violation("kimiplus_id", f"unknown id {found!r}")
    return found


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    tools = body.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise violation("tools", "must be a list of objects")
    return [tool if tool.get("type") in TOOL_TYPES else {} for tool in tools]


def _blocks(message: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    blocks = message.get("blocks")
    if not isinstance(blocks, list) or not blocks:
        raise violation("message.blocks", "must not be empty")
    stored: list[dict[str, Any]] = []
    texts: list[str] = []
    file_ids: list[str] = []
    for number, block in enumerate(blocks, 1):
        if not isinstance(block, dict):
            raise violation("message.blocks", "must be objects")
        if "text" in block:
            content = _object(block, "text", path="message.blocks.text").get("content")
            if not isinstance(content, str) or not content:
                raise violation("message.blocks.text.content", "must not be empty")
            texts.append(content)
            stored.append({"id": str(number), "text": {"content": content}})
        elif "file" in block:
            file_id = _object(block, "file", path="message.blocks.file").get("id")
            if not isinstance(file_id, str) or not file_id:
                raise violation("message.blocks.file.id", "must not be empty")
            file_ids.append(file_id)
            stored.append({"id": str(number), "file": {"id": file_id}})
        else:
            raise violation("message.blocks", "must hold text or file")
    return stored, texts, file_ids


def _options(body: dict[str, Any], scenario: str, settings: SimulatorSettings) -> dict[str, Any]:
    given = _object(body, "options")
    options: dict[str, Any] = {}
    for name in ("thinking", "enable_plugin"):
        flag = field_of(given, name)
        if flag is not None and not isinstance(flag, bool):
            raise violation(f"options.{name}", "must be a boolean")
        if flag is not None:
            options[_camel(name)] = flag
    model = None
    if model_id := _text(given, "model", path="options.model"):
        model = model_of(model_id, settings.more_models)
        if model is None and not settings.any_word:
            raise violation("options.model", f"unknown model {model_id!r}")
        if model is not None and model["scenario"] != scenario and not settings.any_word:
            raise violation("options.model", f"{model_id!r} is not served in {scenario}")
        options["model"] = model_id
    effort = _enum(given, "reasoning_effort", EFFORTS, path="options.reasoning_effort")
    legal = None if settings.any_word else legal_efforts(scenario, model)
    if effort and legal is not None and effort not in legal:
        raise violation("options.reasoning_effort", f"{effort} is not offered by this model")
    length = _enum(given, "context_length", CONTEXT_LENGTHS, path="options.context_length")
    prompt = _text(given, "system_prompt", path="options.system_prompt")
    named = {"reasoningEffort": effort, "contextLength": length, "systemPrompt": prompt}
    return options | {name: value for name, value in named.items() if value}


def _camel(snake: str) -> str:
    head, *rest = snake.split("_")
    return head + "".join(word.capitalize() for word in rest)
