"""Opening a chat: a caller that leaves meanwhile is kept until the chat's id is known.

The service makes the chat all the same, and only its id lets it be removed (protocol E.6). Knows no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: The id is in the first frames, which come at once unless the service hangs (protocol C.12, frame 02).
_PATIENCE_S: Final = 2.0


async def until_known(opening: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """What `opening` brings, and whether the caller has been cancelled: it then tells what it got and ends as such.

    Raises what `opening` raises, and CancelledError when that brings nothing soon.
    """
    task = asyncio.create_task(opening)
    try:
        try:
            return await asyncio.shield(task), False
        except asyncio.CancelledError:
            await asyncio.wait((task,), timeout=_PATIENCE_S)
            if not task.done() or task.cancelled() or task.exception() is not None:
                raise
            return task.result(), True
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        del task  # its failure would hold this frame, and this frame the failure
