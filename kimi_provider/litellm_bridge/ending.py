"""The end of a proxy that is told to stop.

uvicorn ends its process with the very signal that told it to, so nothing that is registered with `atexit` runs.
LiteLLM's own shutdown is the last thing that does: the engine is closed in front of it. Unnecessary once LiteLLM tells
its callbacks of its end.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from ..engine import KimiEngine


def close_with(proxy_server: ModuleType, engine: KimiEngine) -> list[str]:
    """Close `engine` with the proxy. Returns a sentence when it can't be done."""
    original = getattr(proxy_server, "proxy_shutdown_event", None)
    if original is None:
        return [
            "a stop may lose the tokens of a refresh under way, and running streams count for 45 s longer (LiteLLM has "
            "changed how it stops)"
        ]

    @functools.wraps(original)
    async def shut_down(*args: Any, **kwargs: Any) -> Any:
        await engine.close()
        return await original(*args, **kwargs)

    proxy_server.proxy_shutdown_event = shut_down  # type: ignore[attr-defined]  # where LiteLLM looks for it
    return []
