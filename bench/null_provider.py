"""A provider that does nothing with a request but answer it: what LiteLLM itself makes of a large one."""

from __future__ import annotations

from typing import Any

from litellm import CustomLLM, ModelResponse
from litellm.types.utils import Choices, Message


class NullProvider(CustomLLM):
    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        answer = Message(role="assistant", content="nothing")
        return ModelResponse(model="null", choices=[Choices(index=0, message=answer, finish_reason="stop")])


handler = NullProvider()
