"""One message to the service, and how it was answered: once, with no second attempt and no other account.

The engine would mend what the doctor wants to see. A failure is a value here; only what is none of ours is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from ..errors import KimiError
from ..events import ChatOpened, Citation, TextDelta
from ..protocols import ChatProtocol, Turn
from ..upstream import ModelSpec
from ..web import Session


@dataclass(slots=True)
class Asked:
    """What one message brought: how many characters of text, how many citations."""

    chat_id: str | None = None
    characters: int = 0
    citations: int = 0
    failure: KimiError | None = None


async def ask(
    protocol: ChatProtocol,
    session: Session,
    spec: ModelSpec,
    prompt: str,
    *,
    timeout_s: float,
    chat_id: str | None = None,
    opened: Callable[[str], None] = lambda _: None,
) -> Asked:
    """Ask in the chat `chat_id`, or in a new one, of which `opened` hears at once."""
    asked = Asked(chat_id=chat_id)
    # The least that a model which always thinks can be asked to think.
    effort = spec.effort_for(next(iter(spec.efforts), None) if spec.thinking_always else None, None)
    turn = Turn(
        prompt=prompt,
        spec=spec,
        thinking=effort.thinking,
        effort=effort.value,
        search=spec.search,
        deadline=asyncio.get_running_loop().time() + timeout_s,
        chat_id=chat_id,
    )
    try:
        async with aclosing(protocol.stream(turn, session)) as batches:
            async for batch in batches:
                for event in batch:
                    match event:
                        case ChatOpened(chat_id=str(new)) if new != asked.chat_id:
                            asked.chat_id = new
                            opened(new)
                        case TextDelta():
                            asked.characters += len(event.text)
                        case Citation():
                            asked.citations += 1
    except KimiError as exc:
        asked.failure = exc
    return asked
