"""An HTTP answer that is no stream and no success, in either generation.

Law: says what is the same for both: how much of such an answer is read, where its error object stands, what a status
means when the body does not tell, whose call it was. What an error object means is the generation's to say
(`failures`). Does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from ..errors import AccountSuspended, CredentialError, KimiError
from ..events import Event
from ..web import Reply, host_of, status_error

#: As much of a refusal's body as is read.
MAX_REFUSAL_BYTES: Final = 64 * 1024


class Refusal:
    """A `pump.Decoder` for an answer that is no stream: reads a little of it and raises what it means."""

    content_frames = 0
    done = False
    ended = False

    def __init__(self, status: int, headers: Mapping[str, str], meaning: Callable[[Reply], KimiError]) -> None:
        self._status, self._headers, self._meaning = status, headers, meaning
        self._body = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Keep the chunk."""
        self._body += chunk
        self.ended = len(self._body) > MAX_REFUSAL_BYTES
        return iter(())

    def close(self) -> Iterator[Event]:
        """Raise what the answer means."""
        raise self._meaning(Reply(self._status, self._headers, bytes(self._body)))


def error_object(got: object, *marks: str) -> Mapping[str, Any] | None:
    """The error in JSON: under `error`, or `got` itself when one of `marks` names a text in it."""
    if not isinstance(got, dict):
        return None
    inner = got.get("error")
    if isinstance(inner, dict) and inner:
        return inner
    return got if any(isinstance(text := got.get(mark), str) and text for mark in marks) else None


def refused(reply: Reply, url: str, account: str, told: KimiError | None) -> KimiError:
    """What its body `told`, else what its status means. A 401 is about the credential, whatever else is said."""
    if reply.status == 401 and not isinstance(told, CredentialError | AccountSuspended):
        return CredentialError(f"{host_of(url)} rejected the credential (HTTP 401)", account=account)
    return status_error(reply.status, url, reply.headers.get("retry-after")) if told is None else told


@contextmanager
def naming(account: str) -> Iterator[None]:
    """Failures of the doorway don't know whose call it was."""
    try:
        yield
    except KimiError as exc:
        exc.account = exc.account or account
        raise
