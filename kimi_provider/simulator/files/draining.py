"""Reads what is left of a refused upload, so that the client sees the answer and not a broken pipe."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request


async def drain(request: Request) -> None:
    """Drop the rest of the body; a body that was read already, or whose sender left, is no concern."""
    try:
        async for _ in request.stream():
            pass
    except (ClientDisconnect, RuntimeError):
        return
