"""What every generation of the service's protocol offers, and the list of them.

A protocol turns one `Turn` into events and knows neither accounts nor retries. A third protocol is one folder beside
`connect` and one line in `generations`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from ..errors import UpstreamError
from ..events import Event
from ..upstream import ModelSpec
from ..web import Sendable, Session

#: What becomes of citation marks (protocol C.7): `[n]` with its source, nothing, or they stay as they are.
Marks = Literal["cite", "drop", "keep"]

#: A unary call that takes longer is of no use to anyone who waits for it.
UNARY_TIMEOUT_S: Final = 30.0


class EndpointRetired(UpstreamError):
    """The service no longer has a call of this generation: use another protocol, now and later."""

    another_account = False
    try_again = False


class FileToUpload(Sendable, Protocol):
    """A caller's file, as `files` hands it out."""

    @property
    def kind(self) -> Literal["image", "file"]: ...  # noqa: D102  # its name says it


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadedFile:
    """A file that the account holds and the service has read; `detail` is all the service said of it."""

    id: str
    name: str
    size_bytes: int
    detail: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message to the service.

    `effort` is the service's own value (`REASONING_EFFORT_LOW`) or None. `marks` is what becomes of citation
    marks. `system_prompt` is the option of that name,
    which only Connect has (protocol C.2). `files` were uploaded to the same account over the same protocol. `chat_id`
    and `parent_id` continue a chat (protocol E.1); without them a new one is opened. `deadline` is in loop time.
    """

    prompt: str
    spec: ModelSpec
    thinking: bool
    effort: str | None
    search: bool
    deadline: float
    marks: Marks = "cite"
    system_prompt: str | None = None
    files: tuple[UploadedFile, ...] = ()
    chat_id: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveModel:
    """A row of the service's own model list (protocol C.8)."""

    id: str
    key: str
    title: str
    scenario: str
    kimiplus_id: str | None = None
    agent_mode: str | None = None
    efforts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Whose credential it is; ids only, no personal data."""

    user_id: str
    region: str = ""


class ChatProtocol(Protocol):
    """Chat over one protocol. Every method raises KimiError only.

    `max_streams` is the generation's own bound on running answers of one account, None where only KIMI_MAX_STREAMS
    counts. `takes_opaque`: works with what an old opaque refresh token gives (protocol A.6).
    """

    @property
    def name(self) -> Literal["connect", "rest"]: ...  # noqa: D102  # its name says it

    @property
    def max_streams(self) -> int | None: ...  # noqa: D102  # its name says it

    @property
    def takes_opaque(self) -> bool: ...  # noqa: D102  # its name says it

    def serves(self, spec: ModelSpec) -> bool:
        """Whether the model can be asked for in this generation."""

    def stream(self, turn: Turn, session: Session) -> AsyncGenerator[list[Event], None]:
        """Batches of events; the last event of an answer is `Finished`. Closing the generator closes the call."""

    async def upload(self, file: FileToUpload, session: Session, *, deadline: float) -> UploadedFile:
        """Bring a file into the account and wait until the service has read it. `deadline` is in loop time.

        Raises BadRequest when the service can't read it.
        """

    async def cancel_chat(self, session: Session, chat_id: str, message_id: str) -> None:
        """Stop the generation (best effort)."""

    async def delete_chat(self, session: Session, chat_id: str) -> None:
        """Remove the chat from the account; a chat that is gone already is no error."""

    async def newest_answer(self, session: Session, chat_id: str) -> str | None:
        """Id of the last answer in a chat of the account, which the next message follows (protocol E.1); None where
        none needs to be named. Raises ChatNotFound.
        """

    async def profile(self, session: Session) -> Profile:
        """Who the session belongs to: the cheapest call that proves a token (protocol A.7)."""

    async def models(self, session: Session) -> tuple[LiveModel, ...]:
        """What the service offers this session."""
