"""Waiting until the service has read an uploaded file, the same for both generations.

Does no I/O of its own: `look` asks the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from ..errors import BadRequest, UpstreamTimeout
from ..upstream import Files
from . import FileToUpload

Parsing = Literal["waiting", "parsed", "failed"]


async def until_parsed(
    look: Callable[[], Awaitable[Parsing]],
    file: FileToUpload,
    limits: Files,
    *,
    deadline: float,
    account: str,
    now: Parsing = "waiting",
) -> None:
    """Ask `look` until it is certain; `now` is what the upload itself told. `deadline` is in loop time.

    Raises BadRequest (the service can't read the file), UpstreamTimeout (it takes too long), and what `look` raises.
    """
    loop = asyncio.get_running_loop()
    until = min(deadline, loop.time() + limits.parse_timeout_s)
    pauses = iter(limits.parse_poll_s)
    while now == "waiting":
        pause_s = next(pauses, limits.parse_poll_s[-1])
        if loop.time() + pause_s > until:
            raise UpstreamTimeout(f"Kimi has not read {file.name!r} in the time allowed", account=account)
        await asyncio.sleep(pause_s)
        now = await look()
    if now == "failed":
        raise BadRequest(
            f"Kimi can't read {file.name!r} ({file.media_type})",
            account=account,
            cure="Check that the file opens elsewhere, or send its text.",
        )
