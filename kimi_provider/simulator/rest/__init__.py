"""The legacy protocol (protocol B): REST calls, and answers as server-sent events.

Parts by concern: `guard` and `refusals` for every call, `chats` and `account` around the chat, `call`, `turn` and
`completion` for the answer, `scenario` and the tables it joins for what the answer looks like.
"""

from __future__ import annotations

from starlette.routing import Route

from ..state import Simulator
from . import account, chats, completion


def routes(simulator: Simulator) -> list[Route]:
    """All of them."""
    return [*chats.routes(simulator), *account.routes(simulator), *completion.routes(simulator)]
