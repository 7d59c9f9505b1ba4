"""All that one simulated service remembers, in one object.

`Simulator` owns accounts, chats, files, running streams, the queue of scenarios, the log of requests and settings. It
opens no socket and knows no HTTP; the modules with routes read and change it. Key and clock are given, so that a
restarted simulator accepts its old tokens and a test can own the time.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..recordings import Recording
from .accounts import Accounts
from .chats import Chat, Chats
from .files import Files
from .refusals import Refusal
from .settings import SimulatorSettings
from .streams import StreamGate
from .tokens import TokenMint

KEPT_REQUESTS = 200
NATURAL_PAUSE_S = 0.03


@dataclass(kw_only=True, slots=True)
class RecordedRequest:
    """One request as it arrived, credentials replaced by digests."""

    method: str
    path: str
    headers: dict[str, str]
    body_bytes: int = 0
    body: Any = None


@dataclass(kw_only=True, slots=True)
class AnsweredCall:
    """One admitted chat call of either protocol.

    `round_trips_before_first_byte` counts the requests of the account (this call included, uploads and refreshes too)
    from the end of its previous answer until the first piece of text or thinking of this one; None when none came.
    So 1 is the least. Concurrent calls of one account share the count. `uploaded_bytes`: of this request's body.
    The chain of `message_id` in its chat is what the model saw and said.
    """

    protocol: str
    account: str
    uploaded_bytes: int = 0
    chat_id: str | None = None
    message_id: str | None = None
    round_trips_before_first_byte: int | None = None


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
        recording: Recording | None = None,
    ) -> None:
        self.clock = clock
        self.recording = recording
        self.settings = settings or SimulatorSettings(any_word=recording is not None)
        self._first_settings = self.settings
        self.accounts = Accounts(TokenMint(key or secrets.token_bytes(64), clock), clock)
        self.chats = Chats(clock)
        self.files = Files(clock, self.chats.now)
        self.streams = StreamGate()
        self.requests: deque[RecordedRequest] = deque(maxlen=KEPT_REQUESTS)
        self.bytes_received = 0
        self.queue: deque[QueuedScenario] = deque()
        self.failures: Counter[str] = Counter()
        self.played: Counter[tuple[object, ...]] = Counter()
        self.round_trips: Counter[str] = Counter()
        self.calls: deque[AnsweredCall] = deque(maxlen=KEPT_REQUESTS)
        self.mimicry: Counter[str] = Counter()
        self.research_used: Counter[str] = Counter()

    def begin_call(self, protocol: str, account: str) -> AnsweredCall:
        """Record a chat call that is about to be answered."""
        call = AnsweredCall(protocol=protocol, account=account)
        self.calls.append(call)
        return call

    def first_content(self, call: AnsweredCall) -> None:
        """Text or thinking of this call goes out; the first time counts."""
        if call.round_trips_before_first_byte is None:
            call.round_trips_before_first_byte = self.round_trips[call.account]

    def end_call(self, call: AnsweredCall) -> None:
        """The answer is over, however it ended."""
        self.round_trips[call.account] = 0

    def delete_chat(self, chat: Chat) -> None:
        """On an account's own call of either protocol. Refusal (500) while deletions fail."""
        if self.settings.deletion_fails:
            raise Refusal("internal", "the chat could not be deleted")
        self.chats.delete(chat)

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
        self.files.clear()
        self.streams.clear()
        self.requests.clear()
        self.bytes_received = 0
        self.queue.clear()
        self.played.clear()
        for counted in (self.failures, self.round_trips, self.mimicry, self.research_used):
            counted.clear()
        self.calls.clear()
        self.accounts.reset()

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
                    "creator": chat.creator,
                    "last_request": chat.last_request,
                    "messages": [asdict(one) for one in list(chat.messages.values())],
                }
                for chat in self.chats.all()
            ],
            "files": self.files.shown(),
            "calls": [asdict(one) for one in list(self.calls)],
            "mimicry": dict(self.mimicry),
            "research_used": dict(self.research_used),
            "refreshes": self.accounts.refreshes,
            "cancelled": list(self.streams.cancelled),
            "deleted": list(self.chats.deleted),
            "settings": asdict(self.settings),
            "queue": [asdict(one) for one in list(self.queue)],
        }
