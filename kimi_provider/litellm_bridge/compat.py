"""Every shim over LiteLLM, each probed before it is put in place and applied to our models only.

1. `_complete_custom_providers`: LiteLLM builds the stream object of a custom provider before the provider was asked
   anything, so an error of the first upstream step becomes a 200 with an error event, without retry or fallback.
   `acompletion` awaits a coroutine that this function returns; ours opens the answer first.
   Unnecessary once LiteLLM awaits `astreaming` of a custom handler.

Outside the tested versions a shim whose probe fails stays off, and one start-up line says what that means.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import litellm
import litellm.main
from litellm.utils import CustomStreamWrapper

from . import outbound

if TYPE_CHECKING:
    from .llm import KimiLLM

log = logging.getLogger(__name__)

#: What the first shim reads of LiteLLM's dispatch context.
_CONTEXT_FIELDS = frozenset(
    {"acompletion", "api_key", "custom_llm_provider", "litellm_params", "logging", "messages", "model"}
    | {"optional_params", "stream", "timeout"}
)


def install(handler: KimiLLM, provider: str) -> list[str]:
    """Put the shims in place, once. Returns what falls back to LiteLLM's own behaviour, a sentence each."""
    original = getattr(litellm.main, "_complete_custom_providers", None)
    if getattr(original, "kimi_provider", False):
        return []
    if original is None or not _context_fits():
        return [
            "streamed errors before the first token reach clients inside a 200 answer, without retry or fallback "
            f"(litellm {litellm_version()} has changed where streams are opened)"
        ]
    litellm.main._complete_custom_providers = _opening_first(original, handler, provider)
    return []


def _context_fits() -> bool:
    from dataclasses import fields, is_dataclass

    context = getattr(litellm.main, "CompletionDispatchContext", None)
    return context is not None and is_dataclass(context) and {f.name for f in fields(context)} >= _CONTEXT_FIELDS


def litellm_version() -> str:
    """The installed version, without importing more of LiteLLM."""
    from importlib.metadata import version

    return version("litellm")


def _opening_first(original: Callable[[Any], Any], handler: KimiLLM, provider: str) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def dispatch(ctx: Any) -> Any:
        if ctx.custom_llm_provider != provider or ctx.acompletion is not True or ctx.stream is not True:
            return original(ctx)
        return open_stream(ctx)

    async def open_stream(ctx: Any) -> Any:
        opened = await handler.open(
            {
                "model": ctx.model,
                "messages": ctx.messages,
                "optional_params": ctx.optional_params,
                "litellm_params": ctx.litellm_params,
                "timeout": ctx.timeout,
                "api_key": ctx.api_key,
            }
        )
        stream = CustomStreamWrapper(
            completion_stream=opened,
            model=ctx.model,
            custom_llm_provider=provider,
            logging_obj=ctx.logging,
        )
        outbound.attach_headers(stream, opened.headers)
        return stream

    dispatch.kimi_provider = True  # type: ignore[attr-defined]  # marks our own wrapper
    return dispatch
