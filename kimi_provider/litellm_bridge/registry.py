"""Our models in LiteLLM's table: window, abilities, and a price of nothing.

Names come from `upstream.yaml` and the service's own list; what is registered here is what `/v1/models`, `/model/info`
and LiteLLM's context checks show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import litellm

from ..settings import Settings, SettingsError
from ..upstream import ModelSpec, Upstream

_RATES = (
    "input_cost_per_token",
    "output_cost_per_token",
    "output_cost_per_reasoning_token",
    "cache_creation_input_token_cost",
    "cache_read_input_token_cost",
)


def register_models(provider: str) -> None:
    """Register every model and alias. A broken overlay is reported by the first call, not by the import."""
    try:
        upstream = Upstream.load(Settings.load().kimi_upstream_file)
    except SettingsError:
        upstream = Upstream.load()
    register(provider, {name: upstream.resolve(name) for name in (*upstream.models, *upstream.aliases)})


def register(provider: str, rows: Mapping[str, ModelSpec]) -> None:
    """Register `rows` under `provider/name`."""
    litellm.register_model({f"{provider}/{name}": _row(provider, spec) for name, spec in rows.items()})


def _row(provider: str, spec: ModelSpec) -> dict[str, Any]:
    return {
        "litellm_provider": provider,
        "mode": "chat",
        "max_tokens": spec.context_tokens,
        "max_input_tokens": spec.context_tokens,
        "max_output_tokens": spec.context_tokens,
        # Every rate: then LiteLLM takes the model for free, rather than look after each call for a price it has missed.
        **dict.fromkeys(_RATES, 0.0),
        "supports_reasoning": spec.thinking or bool(spec.efforts),
        "supports_system_messages": True,
        "supports_web_search": True,
        "supports_vision": True,
        "supports_pdf_input": True,
        "supports_function_calling": True,
    }
