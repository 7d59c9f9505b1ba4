"""Frames of the Chat answer -> events (protocol C.4, C.5).

Law: only the assistant's message speaks; the user echo is neither emitted nor searched. HTTP 200 and `done` prove
nothing: the answer ends with the end-of-stream frame or the connection, and exactly one `Finished` is its last event,
or a KimiError is raised. A JSON value of a wrong type counts as absent.

Replays: a block or references whose `eventOffset` is not above the last one were seen before and are left out. Frames
without a number always count, and so do endings and errors whatever their number: losing one would turn a failure
into an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson

from ...errors import ContentFiltered, KimiError, ProtocolError, UpstreamError
from ...events import ChatOpened, Event, Finished, Notice
from ...upstream import Upstream
from .. import Marks
from ..failures import from_wire, shown
from .answer import Answer
from .envelope import END_STREAM

log: Final = logging.getLogger(__name__)


class FrameReducer:
    """State of one answer; events go to `out`, in order. Methods raise KimiError where the answer fails."""

    def __init__(self, upstream: Upstream, account: str | None, *, marks: Marks = "cite") -> None:
        self._upstream = upstream
        self._account = account
        self.out: list[Event] = []
        self.answer = Answer(upstream, self.out, marks=marks)
        self._assistants: set[str] = set()
        self._assistant = ""
        self._others: set[str] = set()
        self._chat_id = ""
        # Blocks that came before any message was known to be the assistant's.
        self._early: list[tuple[dict[str, Any], bool, str]] = []
        self._early_bytes = 0
        self.last_offset = -1
        self._completed = False
        self.content_frames = 0
        self.done = False
        self.ended = False
        #: For the log: frames that could not be read, and frames seen before.
        self.skipped_frames = 0
        self.replayed_frames = 0

    def take_close(self) -> None:
        """The connection ended: success only if the answer was complete (protocol C.4)."""
        self._rest()
        if not (self.done or self._completed):
            raise ProtocolError("The connection ended in the middle of the answer", account=self._account)
        self._finish()

    def take_control(self, flags: int, payload: bytes) -> None:
        """Empty frames, the end-of-stream frame, gRPC-web's trailer."""
        if flags & END_STREAM:
            self._trailer(payload)
        elif payload and isinstance(trailer := _parsed(payload), dict) and (error := trailer.get("error")):
            # A gRPC-web trailer says nothing to us unless it carries an error (protocol C.4).
            self._fail_with(error)

    def _trailer(self, payload: bytes) -> None:
        if not payload:
            # It says nothing: no more than a closed connection.
            self.take_close()
            return
        trailer = _parsed(payload)
        if not isinstance(trailer, dict):
            raise ProtocolError("The answer's last frame can't be read", account=self._account)
        self._rest()
        error = trailer.get("error")
        # An empty error is success in one client and failure in another (protocol C.4): the answer decides.
        if error or (error is not None and not (self._completed or self.answer.text_sent)):
            self._fail_with(error)
        else:
            self._finish()

    def take_frame(self, frame: object, size: int) -> None:
        """A message of `size` bytes as JSON; None when it is none."""
        if not isinstance(frame, dict):
            self.skipped_frames += 1
            log.debug("a frame of %d bytes that is no JSON object was skipped", size)
            return
        replayed = False
        if type(offset := frame.get("eventOffset")) is int:
            replayed = offset <= self.last_offset
            self.last_offset = max(offset, self.last_offset)
        # One payload per frame; a failure beside another one must not be lost. A heartbeat is no content, and what is
        # unknown may be a new kind of heartbeat.
        self.content_frames += 1
        if (exception := frame.get("exception")) is not None:
            self._take_exception(exception)
        elif error := frame.get("error"):
            self._fail_with(error)
        elif isinstance(block := frame.get("block"), dict):
            mask = frame.get("mask")
            self._take_block(block, frame.get("op") == "append", mask if isinstance(mask, str) else "", size, replayed)
        elif isinstance(message := frame.get("message"), dict):
            self._take_message(message, replayed)
        elif isinstance(chat := frame.get("chat"), dict):
            self._take_chat(chat)
        elif isinstance(notification := frame.get("notification"), dict):
            self._take_notification(notification)
        elif isinstance(done := frame.get("done"), dict) or done is True:
            self.done = True
        else:
            self.content_frames -= 1

    def _take_block(self, block: dict[str, Any], append: bool, mask: str, size: int, replayed: bool) -> None:
        if (exception := block.get("exception")) is not None:
            self._take_exception(exception)
            return
        if replayed:
            self.replayed_frames += 1
            return
        if not self._assistants:
            self._early_bytes += size
            if self._early_bytes > self._upstream.connect.max_frame_bytes:
                raise ProtocolError("The answer belongs to no message", account=self._account)
            self._early.append((block, append, mask))
            return
        owner = _owner(block) or self._assistant
        if owner in self._assistants:
            self.answer.take(owner, block, append=append, mask=mask)

    def _take_message(self, message: Mapping[str, Any], replayed: bool) -> None:
        """Follow the assistant's message; those of others only tell that they are not it (protocol C.5)."""
        message_id, role = message.get("id"), message.get("role")
        if not isinstance(message_id, str) or not message_id:
            message_id = self._assistant
        if isinstance(role, str) and message_id not in self._assistants:
            if role.lower().endswith("assistant"):
                self._open(message_id)
            else:
                self._others.add(message_id)
        if message_id not in self._assistants:
            return
        status, refs, blocks = message.get("status"), message.get("refs"), message.get("blocks")
        if isinstance(status, str) and message_id == self._assistant:
            self._completed = self._completed or status in self._upstream.connect.completed_statuses
        if replayed:
            self.replayed_frames += 1
            return
        if isinstance(refs, dict):
            self.answer.take_refs(refs)
        # A message that brings its blocks along (a snapshot) sets them.
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, dict) and not self.ended:
                self._take_block({**block, "messageId": message_id}, False, "", 0, False)

    def _open(self, message_id: str) -> None:
        """The assistant's message is known from here on."""
        self._assistants.add(message_id)
        self._assistant = message_id
        self._completed = False
        self.answer.turn_to(message_id)
        if message_id:
            self.out.append(ChatOpened(message_id=message_id))
        # Blocks from before are its own only if they name it.
        for block, append, mask in self._early:
            if message_id and _owner(block) == message_id:
                self.answer.take(message_id, block, append=append, mask=mask)
        self._early.clear()

    def _take_chat(self, chat: Mapping[str, Any]) -> None:
        chat_id = chat.get("id")
        if isinstance(chat_id, str) and chat_id and chat_id != self._chat_id:
            self._chat_id = chat_id
            self.out.append(ChatOpened(chat_id=chat_id))

    def _take_notification(self, notification: Mapping[str, Any]) -> None:
        codes = self._upstream.connect.notices
        names = [name for key in ("type", "source") if isinstance(name := notification.get(key), str)]
        code = next((codes[name] for name in names if name in codes), "unknown")
        message = shown(notification.get("message"))
        if code == ContentFiltered.code:
            self._fail(ContentFiltered(f"Kimi withdrew or refused this answer: {message}", account=self._account))
        else:
            self.out.append(Notice(code=code, message=message))

    def _take_exception(self, exception: object) -> None:
        """`{error: {reason, ...}}`, or the reason without the wrapping."""
        inner = exception.get("error") if isinstance(exception, dict) else None
        self._fail_with(inner if isinstance(inner, dict) else exception)

    # --- endings ---

    def _fail_with(self, error: object) -> None:
        self._fail(from_wire(error, upstream=self._upstream, account=self._account))

    def _fail(self, failure: KimiError) -> None:
        """Raise `failure`; an answer that is withdrawn after its text went out ends as filtered (protocol C.11)."""
        if not (isinstance(failure, ContentFiltered) and self.answer.text_sent):
            raise failure
        self.ended = True
        self.out.append(Finished(reason="content_filter"))

    def _rest(self) -> None:
        """Hand out what waited for more. With no assistant in the whole stream, blocks of nobody are the answer."""
        for block, append, mask in self._early:
            if (owner := _owner(block)) not in self._others:
                self.answer.take(owner, block, append=append, mask=mask)
        self.answer.flush()

    def _finish(self) -> None:
        answer = self.answer
        if not (answer.text_sent or answer.thinking_sent or answer.tool_seen):
            raise UpstreamError("Kimi ended the answer without saying anything", account=self._account)
        self.ended = True
        self.out.append(Finished())


def _owner(block: Mapping[str, Any]) -> str:
    """The message a block names, if it does (protocol G.24)."""
    owner = block.get("messageId") or block.get("message_id")
    return owner if isinstance(owner, str) else ""


def _parsed(payload: bytes) -> object:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
