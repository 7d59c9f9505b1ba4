"""Kimi as LiteLLM's custom provider `kimi/`. Importing this registers it.

In a proxy, name `kimi_provider.litellm_bridge.handler` in `custom_provider_map`; as a library, the import alone is
enough. The rooms: `inbound` (keyword arguments -> ChatRequest), `llm` (the handler), `outbound` (events -> chunks),
`failures` (errors), `compat` (shims over LiteLLM), `routes` (our own pages on the proxy).
"""

from __future__ import annotations

import sys

import litellm

from . import compat, registry
from .llm import KimiLLM

PROVIDER = "kimi"

handler = KimiLLM()


def _register() -> None:
    if all(item["provider"] != PROVIDER for item in litellm.custom_provider_map):
        litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": handler})
    litellm.utils.custom_llm_setup()
    registry.register_models(PROVIDER)
    limits = compat.install(handler, PROVIDER)
    if "litellm.proxy.proxy_server" in sys.modules:
        from . import routes

        routes.start_up(handler, limits, PROVIDER)
    else:
        for limit in limits:
            compat.log.warning("%s", limit)


_register()

__all__ = ["PROVIDER", "handler"]
