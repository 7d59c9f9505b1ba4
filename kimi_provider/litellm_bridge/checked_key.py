"""Who calls a route of ours: LiteLLM's own check of the key, so that every key that it takes works there."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

#: The caller's key, checked by LiteLLM; one that may not call ends the request.
CheckedKey = Annotated[UserAPIKeyAuth, Depends(user_api_key_auth)]
