"""Tokens of a request that is only to be counted: what `usage` would say of it, an estimate as there (protocol E.10).

LiteLLM's own counter fails on what it does not know, an answer's search results among it, and does not know how tools
are explained to the model. Files count nothing, as in `usage`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from litellm.types.utils import TokenCountResponse

from ..engine import Asking, Attachments
from ..errors import KimiError
from ..request import FilePart
from . import compat_answers, inbound, malformed

if TYPE_CHECKING:
    from .listing import Listing
    from .llm import KimiLLM


class Counting:
    """Counts for names of this gateway that lead to our models."""

    def __init__(self, handler: KimiLLM, listing: Listing, provider: str) -> None:
        self._handler, self._listing, self._provider = handler, listing, provider

    async def tokens(self, name: str, body: Mapping[str, Any]) -> int:
        """Of a chat request. Raises KimiError."""
        engine, model = self._handler.engine(), self._listing.model_of(name) or name
        params = {key: value for key, value in body.items() if key not in ("messages", "model")}
        request = inbound.read(
            model=model,
            messages=body["messages"],
            optional_params=params,
            litellm_params=None,
            timeout=None,
            api_key=None,
        ).request
        files = [part for message in request.messages for part in message.parts if isinstance(part, FilePart)]
        # A conversation that is too long can be counted.
        spec = (await engine.resolve(model)).model_copy(update={"context_tokens": sys.maxsize})
        labels = Attachments(labels=dict.fromkeys(files, "file"))
        return Asking(request, spec, engine.upstream, labels, deadline=0.0).prompt_tokens

    def install(self, proxy_server: Any) -> list[str]:
        """Count for every route of LiteLLM's that counts. Returns a sentence when that can't be done. Unnecessary once
        a custom handler can count.
        """
        original, adapters = getattr(proxy_server, "count_request_tokens", None), compat_answers.anthropic_adapters()
        if original is None or adapters is None:
            return ["tokens are counted by LiteLLM, which fails on search results (it has changed how it counts)"]

        async def count_request_tokens(request: Any, *args: Any, **kwargs: Any) -> Any:
            model = self._listing.model_of(request.model)
            if model is None or request.contents is not None:
                return await original(request, *args, **kwargs)
            try:
                messages = request.messages or [{"role": "user", "content": request.prompt}]
                if kwargs.get("messages_format") == "anthropic":
                    malformed.check("anthropic_messages", {"messages": messages, "tools": request.tools})
                    translation = adapters.LiteLLMAnthropicMessagesAdapter()
                    messages = translation.translate_anthropic_messages_to_openai(
                        messages=messages, custom_llm_provider=self._provider
                    )
                if request.system:
                    messages = [{"role": "system", "content": request.system}, *messages]
                tokens = await self.tokens(request.model, {"messages": messages, "tools": request.tools})
            except KimiError as exc:
                message = f"{exc.describe(self._handler.language)} [{exc.code}]"
                raise HTTPException(exc.status, {"error": message}) from None
            return TokenCountResponse(
                total_tokens=tokens,
                request_model=request.model,
                model_used=model,
                tokenizer_type="estimate",
                count_source="local_estimate",
            )

        proxy_server.count_request_tokens = count_request_tokens
        return []
