"""KimiError -> the LiteLLM exception whose status and retry rules fit.

LiteLLM keeps the status of its own classes on every surface and routes by them: context and content errors reach
their special fallbacks, a retry-after header sets the length of a deployment's cool-down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import litellm

from ..errors import (
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    CredentialError,
    KimiError,
    NotFound,
    Overloaded,
    PermissionRefused,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from ..wording import Language

_CLASSES: tuple[tuple[type[KimiError], Callable[..., Exception]], ...] = (
    (ContextTooLong, litellm.ContextWindowExceededError),
    (ContentFiltered, litellm.ContentPolicyViolationError),
    (BadRequest, litellm.BadRequestError),
    (CredentialError, litellm.AuthenticationError),
    (PermissionRefused, litellm.PermissionDeniedError),
    (NotFound, litellm.NotFoundError),
    (RateLimited, litellm.RateLimitError),
    (UpstreamError, litellm.BadGatewayError),
    (Overloaded, litellm.ServiceUnavailableError),
    (Unavailable, litellm.ServiceUnavailableError),
)


def to_litellm(error: KimiError, *, model: str, language: Language) -> Exception:
    """The exception to raise instead of `error`; its text is ours, with the cure."""
    message = f"{error.describe(language)} [{error.code}]"
    if isinstance(error, UpstreamTimeout):
        timeout: Exception = litellm.Timeout(message, model, "kimi", exception_status_code=error.status)
        return timeout
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    elif isinstance(error, CredentialError | NotFound):
        # No waiting cures these. Without the zero LiteLLM would cool the deployment down for some seconds, and callers
        # would read "no deployments available" in place of the cause.
        headers["retry-after"] = "0"
    response = httpx.Response(
        error.status, headers=headers, request=httpx.Request("POST", "https://kimi.invalid/"), text=message
    )
    arguments: dict[str, Any] = {"message": message, "model": model, "llm_provider": "kimi", "response": response}
    for ours, theirs in _CLASSES:
        if isinstance(error, ours):
            return theirs(**arguments)
    other: Exception = litellm.InternalServerError(**arguments)
    return other
