"""Every shim over LiteLLM, each probed before it is put in place and applied to our models only.

1. `_complete_custom_providers`: LiteLLM builds the stream object of a custom provider before the provider was asked
   anything, so an error of the first upstream step becomes a 200 with an error event, without retry or fallback.
   `acompletion` awaits a coroutine that this function returns; ours opens the answer first.
   Unnecessary once LiteLLM awaits `astreaming` of a custom handler.
2. `get_optional_params`: LiteLLM drops what it believes a custom provider does not support (reasoning_effort, thinking,
   ...), or answers 400 when `drop_params` is off. Ours says that the provider takes them; it honours or reports each.
   Unnecessary once a custom handler can name its parameters.
3. `Cache.should_use_cache`: LiteLLM's cache key ignores parameters it does not know, so one conversation would be
   answered from another (`caching`). Unnecessary once a custom handler can say what is cacheable.
4. The translations of Anthropic's and Responses' requests to chat messages: LiteLLM drops documents that are text,
   titles, and files in a tool's result; ours carries them past (`carrying`). Unnecessary once its adapters keep them.
5. The translations of answers: searches and citations (`compat_answers`).

Outside the tested versions a shim whose probe fails stays off, and one start-up line says what that means.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import litellm
import litellm.main
from litellm.caching.caching import Cache
from litellm.utils import CustomStreamWrapper

from ..errors import KimiError
from . import caching, compat_answers, outbound
from .carrying import Carrier

if TYPE_CHECKING:
    from .llm import KimiLLM

log = logging.getLogger(__name__)

#: What the first shim reads of LiteLLM's dispatch context.
_CONTEXT_FIELDS = frozenset(
    {"acompletion", "api_key", "custom_llm_provider", "litellm_params", "logging", "messages", "model"}
    | {"optional_params", "stream", "timeout"}
)


#: Parameters that LiteLLM would otherwise drop or refuse before they reach us.
_TAKEN = ["reasoning_effort", "thinking", "verbosity", "user", "context_management", "web_search_options"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Translation:
    """A translation of LiteLLM's to chat messages: the method of a class in one of `modules`, by version.

    `hide` takes the caller's blocks out of the argument `source`, `messages` finds the result's messages.
    """

    api: str
    modules: tuple[str, ...]
    adapter: str
    method: str
    source: str
    hide: Callable[[Carrier, Any], Any]
    messages: Callable[[Any], Any]


_TRANSLATIONS = (
    _Translation(
        api="/v1/messages",
        modules=compat_answers.ANTHROPIC_ADAPTERS,
        adapter="LiteLLMAnthropicMessagesAdapter",
        method="translate_anthropic_messages_to_openai",
        source="messages",
        hide=Carrier.anthropic,
        messages=lambda translated: translated,
    ),
    _Translation(
        api="/v1/responses",
        modules=("litellm.responses.litellm_completion_transformation.transformation",),
        adapter="LiteLLMCompletionResponsesConfig",
        method="transform_responses_api_request_to_chat_completion_request",
        source="input",
        hide=Carrier.responses,
        messages=lambda translated: translated["messages"],
    ),
)


def install(handler: KimiLLM, provider: str) -> list[str]:
    """Put the shims in place, once. Returns what falls back to LiteLLM's own behaviour, a sentence each."""
    limits = []
    version = metadata.version("litellm")
    dispatch = getattr(litellm.main, "_complete_custom_providers", None)
    if dispatch is None or not _context_fits():
        limits.append(
            "streamed errors before the first token reach clients inside a 200 answer, without retry or fallback "
            f"(litellm {version} has changed where streams are opened)"
        )
    elif not _is_ours(dispatch):
        litellm.main._complete_custom_providers = _opening_first(dispatch, handler, provider)
    parameters = getattr(litellm.main, "get_optional_params", None)
    if parameters is None or "allowed_openai_params" not in inspect.signature(parameters).parameters:
        limits.append(
            f"reasoning_effort and thinking need allowed_openai_params on the deployment (litellm {version} has "
            "changed where parameters are checked)"
        )
    elif not _is_ours(parameters):
        litellm.main.get_optional_params = _taking_more(parameters, provider)
    should_use = getattr(Cache, "should_use_cache", None)
    if should_use is None:
        limits.append(
            f"keep 'cache: true' off: conversations would share answers (litellm {version} has changed its cache)"
        )
    elif not _is_ours(should_use):
        Cache.should_use_cache = _caching_plain_prompts(should_use, handler, provider)
    for translation in _TRANSLATIONS:
        adapter = next((found for name in translation.modules if (found := _class(name, translation.adapter))), None)
        method = getattr(adapter, translation.method, None)
        if (
            method is None
            or not {translation.source, "custom_llm_provider"} <= inspect.signature(method).parameters.keys()
        ):
            limits.append(
                f"documents given as text, titles, and files in a tool's result are lost on {translation.api} (litellm "
                f"{version} has changed how it translates requests)"
            )
        elif not _is_ours(method):
            carrying = _carrying_blocks(method, translation, provider)
            is_static = isinstance(inspect.getattr_static(adapter, translation.method), staticmethod)
            setattr(adapter, translation.method, staticmethod(carrying) if is_static else carrying)
    return limits + compat_answers.install(provider, version)


def _caching_plain_prompts(original: Callable[..., bool], handler: KimiLLM, provider: str) -> Callable[..., bool]:
    @functools.wraps(original)
    def should_use_cache(self: Any, **kwargs: Any) -> bool:
        model = kwargs.get("model")
        if isinstance(model, str) and (
            kwargs.get("custom_llm_provider") == provider or model.startswith(f"{provider}/")
        ):
            try:
                spec = handler.engine().upstream.resolve(model.removeprefix(f"{provider}/"))
            except KimiError:
                return False
            if not caching.may_cache(kwargs, spec):
                return False
        return original(self, **kwargs)

    should_use_cache.kimi_provider = True  # type: ignore[attr-defined]  # marks our own wrapper
    return should_use_cache


def _carrying_blocks(original: Callable[..., Any], translation: _Translation, provider: str) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def translate(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        if call.arguments.get("custom_llm_provider") != provider:
            return original(*args, **kwargs)
        carrier = Carrier()
        call.arguments[translation.source] = translation.hide(carrier, call.arguments[translation.source])
        translated = original(*call.args, **call.kwargs)
        carrier.put_back(translation.messages(translated))
        return translated

    translate.kimi_provider = True  # type: ignore[attr-defined]  # marks our own wrapper
    return translate


def _class(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError:
        return None


def _is_ours(function: Callable[..., Any]) -> bool:
    return getattr(function, "kimi_provider", False) is True


def _context_fits() -> bool:
    context = getattr(litellm.main, "CompletionDispatchContext", None)
    return context is not None and is_dataclass(context) and {f.name for f in fields(context)} >= _CONTEXT_FIELDS


def _taking_more(original: Callable[..., Any], provider: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_optional_params(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("custom_llm_provider") == provider:
            kwargs["allowed_openai_params"] = [*(kwargs.get("allowed_openai_params") or ()), *_TAKEN]
        return original(*args, **kwargs)

    get_optional_params.kimi_provider = True  # type: ignore[attr-defined]  # marks our own wrapper
    return get_optional_params


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
        stream.created = opened.created  # chunks of LiteLLM's own carry it, too
        outbound.attach_headers(stream, opened.headers)
        return stream

    dispatch.kimi_provider = True  # type: ignore[attr-defined]  # marks our own wrapper
    return dispatch
