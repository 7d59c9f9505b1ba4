"""All that one simulated service remembers, in one object.

`Simulator` owns accounts, chats, running streams, the queue of scenarios, the log of requests and the settings. It
opens no socket and knows no HTTP; the modules with routes read and change it. Key and clock are given, so that a
restarted simulator accepts its old tokens and a test can own the time.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .accounts import Accounts
from .chats import Chats
from .streams import StreamGate
from .tokens import TokenMint

KEPT_REQUESTS = 200
NATURAL_PAUSE_S = 0.03
# What JSON may give for a field, by its annotation.
_KINDS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "list[str]": list}


@dataclass(kw_only=True, slots=True)
class SimulatorSettings:
    """What `POST /_sim/settings` may change."""

    max_streams: int = 2
    """Running streams of one account (protocol E.7; the real figure is unknown)."""
    empty_chat_id_refused: bool = True
    """Refuse empty `chat_id` and `parent_id` of a new chat (protocol C.2: measured both ways)."""
    unverified_scenarios: bool = False
    """Accept scenarios that only one client was seen to send (protocol C.3)."""
    access_ttl_s: float = 900
    refresh_ttl_s: float = 90 * 86400
    cookie_ttl_s: float = 30 * 86400
    legacy_refresh_rotates: bool = True
    """Form 1 kills the old refresh token too (protocol A.5: not measured, so the stricter)."""
    refresh_delay_s: float = 0
    """How long a refresh takes; rotation happens at its start."""
    pace: float = 1.0
    """Factor on the natural speed of demo answers; 0 removes the pauses."""
    unimplemented: list[str] = field(
        default_factory=lambda: [
            "kimi.gateway.chat.v1.ChatService/CreateChat",
            "kimi.chat.v1.ChatService/CreateChat",
            "kimi.chat.v1.ChatService/CancelChat",
        ]
    )
    """Methods answered with 501 (protocol C.10)."""

    def changed(self, values: Mapping[str, Any]) -> SimulatorSettings:
        """A copy with new values. ValueError for an unknown name or a value of the wrong kind."""
        kinds = {one.name: _KINDS[str(one.type)] for one in fields(self)}
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(f"unknown setting {name!r}; known: {', '.join(kinds)}")
            if not isinstance(value, kinds[name]) or (isinstance(value, bool) and kinds[name] is not bool):
                raise ValueError(f"setting {name!r} can't be {value!r}")
        return SimulatorSettings(**{**asdict(self), **values})


@dataclass(kw_only=True, slots=True)
class RecordedRequest:
    """One request as it arrived, credentials replaced by digests."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None


@dataclass(kw_only=True, slots=True)
class QueuedScenario:
    """A scenario for the next `times` chats; None: until it is cleared."""

    name: str
    params: dict[str, Any]
    times: int | None


class Simulator:
    """The state of one simulated service."""

    def __init__(
        self,
        *,
        key: bytes | None = None,
        clock: Callable[[], float] = time.time,
        settings: SimulatorSettings | None = None,
    ) -> None:
        self.clock = clock
        self.settings = settings or SimulatorSettings()
        self._first_settings = self.settings
        self.accounts = Accounts(TokenMint(key or secrets.token_bytes(64), clock), clock)
        self.chats = Chats(clock)
        self.streams = StreamGate()
        self.requests: deque[RecordedRequest] = deque(maxlen=KEPT_REQUESTS)
        self.bytes_received = 0
        self.queue: deque[QueuedScenario] = deque()
        self.failures: Counter[str] = Counter()

    def take_queued(self) -> QueuedScenario | None:
        """The scenario queued for this chat, counted down."""
        if not self.queue:
            return None
        head = self.queue[0]
        if head.times is not None:
            head.times -= 1
            if head.times <= 0:
                self.queue.popleft()
        return head

    def reset(self) -> None:
        """Forget all but the accounts and their tokens; break off running streams."""
        self.settings = self._first_settings
        self.chats.clear()
        self.streams.clear()
        self.requests.clear()
        self.bytes_received = 0
        self.queue.clear()
        self.failures.clear()
        self.accounts.refreshes = 0

    def snapshot(self) -> dict[str, Any]:
        """What `GET /_sim/state` shows: plain JSON values, no credential."""
        return {
            "active_streams": self.streams.active,
            "active_by_account": self.streams.by_owner(),
            "peak_streams": self.streams.peak,
            "total_streams": self.streams.total,
            "bytes_received": self.bytes_received,
            "requests": [asdict(one) for one in list(self.requests)],
            "chats": [
                {
                    "id": chat.id,
                    "account": chat.owner,
                    "name": chat.name,
                    "last_request": chat.last_request,
                    "messages": [asdict(one) for one in list(chat.messages.values())],
                }
                for chat in self.chats.all()
            ],
            "refreshes": self.accounts.refreshes,
            "cancelled": list(self.streams.cancelled),
            "deleted": list(self.chats.deleted),
            "settings": asdict(self.settings),
            "queue": [asdict(one) for one in list(self.queue)],
        }
