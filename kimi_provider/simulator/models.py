"""The model lists the service shows, by the version a client claims to be (protocol C.8), as data.

Three buckets: the list of September 2026, the one of August, and the stale list that clients without a recent
`x-msh-version` get. Only the newest carries the ids that `options.model` takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_NONE_LOW = [
    {"effort": "REASONING_EFFORT_NONE", "displayName": "Standard"},
    {"effort": "REASONING_EFFORT_LOW", "displayName": "High"},
]
_LOW_HIGH_MAX = [
    {"effort": "REASONING_EFFORT_LOW", "displayName": "Standard"},
    {"effort": "REASONING_EFFORT_HIGH", "displayName": "High"},
    {"effort": "REASONING_EFFORT_MAX", "displayName": "Max", "description": "More credits"},
]
_CONTEXTS = [
    {"contextLength": "CONTEXT_LENGTH_L", "displayName": "Standard", "available": True},
    {
        "contextLength": "CONTEXT_LENGTH_XL",
        "displayName": "Extra Long",
        "description": "Up to 1M tokens",
        "label": "Allegro plan only",
        "minMembershipLevel": "LEVEL_ADVANCED",
    },
]
_AGENT = {"scenario": "SCENARIO_OK_COMPUTER", "kimiPlusId": "ok-computer", "agentMode": "TYPE_NORMAL"}

CURRENT: dict[str, Any] = {
    "availableModels": [
        {
            "scenario": "SCENARIO_CHAT",
            "displayName": "Instant",
            "description": "Quick answers",
            "inputPlaceholder": "Ask anything",
            "key": "k2d6",
            "id": "k2d6-chat",
            "reasoningEffortOptions": _NONE_LOW,
            "defaultReasoningEffort": "REASONING_EFFORT_LOW",
        },
        {
            **_AGENT,
            "displayName": "K2.8",
            "label": ["Preview"],
            "key": "k28-preview",
            "id": "k28-agent-preview",
            "reasoningEffortOptions": _LOW_HIGH_MAX,
            "defaultReasoningEffort": "REASONING_EFFORT_HIGH",
            "contextLengthOptions": _CONTEXTS,
            "defaultContextLength": "CONTEXT_LENGTH_L",
        },
        {
            **_AGENT,
            "displayName": "K3",
            "key": "k3",
            "id": "k3-agent",
            "switchableTo": ["k3-agent-swarm"],
            "reasoningEffortOptions": _LOW_HIGH_MAX,
            "defaultReasoningEffort": "REASONING_EFFORT_HIGH",
            "contextLengthOptions": _CONTEXTS,
            "defaultContextLength": "CONTEXT_LENGTH_L",
        },
        {
            "scenario": "SCENARIO_OK_COMPUTER_SWARM",
            "displayName": "K3 Swarm",
            "kimiPlusId": "ok-computer",
            "agentMode": "TYPE_ULTRA",
            "key": "k3-agent-ultra",
            "id": "k3-agent-swarm",
            "minMembershipLevel": "LEVEL_BASIC",
            "greeting": "Many hands",
        },
    ],
    "defaultScenario": {"scenario": "SCENARIO_CHAT", "model": "k2d6-chat"},
}

# The two older buckets are known by key, scenario and mode only; display names are ours.
AUGUST: dict[str, Any] = {
    "availableModels": [
        {"scenario": "SCENARIO_K2D5", "displayName": "K2.6", "key": "k2d6"},
        {**_AGENT, "displayName": "K3", "key": "k3"},
        {**_AGENT, "displayName": "K3 Swarm", "agentMode": "TYPE_ULTRA", "key": "k3-agent-ultra"},
    ],
    "defaultScenario": {"scenario": "SCENARIO_K2D5"},
}
STALE: dict[str, Any] = {
    "availableModels": [
        {"scenario": "SCENARIO_K2D5", "displayName": "K2.6", "key": "k2d6", "thinking": False},
        {"scenario": "SCENARIO_K2D5", "displayName": "K2.6 Thinking", "key": "k2d6-thinking", "thinking": True},
        {**_AGENT, "displayName": "K2.6 Agent", "key": "k2d6-agent", "thinking": False},
        {
            **_AGENT,
            "displayName": "K2.6 Agent Swarm",
            "agentMode": "TYPE_ULTRA",
            "key": "k2d6-agent-ultra",
            "thinking": False,
        },
    ],
    "defaultScenario": {"scenario": "SCENARIO_K2D5"},
}


def model_list(version: str | None, more: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The list for an `x-msh-version` header; the newest one has the rows of `more`, too."""
    found = re.match(r"(\d+)\.(\d+)", version or "")
    if found is None or int(found[1]) < 2:
        return STALE
    if (int(found[1]), int(found[2])) == (2, 0):
        return AUGUST
    return {**CURRENT, "availableModels": [*CURRENT["availableModels"], *more]}


def model_of(model_id: str, more: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of an id that `options.model` takes."""
    return next((row for row in (*CURRENT["availableModels"], *more) if row.get("id") == model_id), None)


def legal_efforts(scenario: str, model: dict[str, Any] | None) -> frozenset[str] | None:
    """The reasoning efforts a call may name; None where the protocol document knows no bound."""
    if model is not None and "reasoningEffortOptions" in model:
        return frozenset(one["effort"] for one in model["reasoningEffortOptions"])
    if scenario in ("SCENARIO_CHAT", "SCENARIO_K2D5"):
        return frozenset(one["effort"] for one in _NONE_LOW)
    if scenario.startswith("SCENARIO_OK_COMPUTER"):
        return frozenset(one["effort"] for one in _LOW_HIGH_MAX)
    return None
