"""Frames of the Chat answer -> events (protocol C.4, C.5).

Law: sans-I/O, any chunking, the same events after `events.merged` however the bytes are cut. Only the assistant's
message speaks; the user echo is neither emitted nor searched. HTTP 200 and `done` prove nothing: the answer ends with
the end-of-stream frame or the connection, and exactly one `Finished` is its last event, or a KimiError is raised. A
JSON value of a wrong type counts as absent.

Replays: a block or references whose `eventOffset` is not above the last one were seen before and are left out. Frames
without a number always count, and so do endings and errors whatever their number: losing one would turn a failure
into an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from ...errors import ContentFiltered, KimiError, ProtocolError, UpstreamError
from ...events import ChatOpened, Event, Finished, Notice, TextDelta, ThinkingDelta
from ...upstream import Upstream
from ..failures import from_wire, shown
from .answer import Answer
from .blocks import TextBlock
from .envelope import END_STREAM, EnvelopeDecoder

log: Final = logging.getLogger(__name__)

_CONTENT: Final = frozenset(("chat", "message", "block", "notification", "exception", "error", "done"))


class ChatDecoder:
    """Implements `web.Decoder` for one answer; `account` goes into errors."""

    def __init__(self, upstream: Upstream, *, account: str | None = None) -> None:
        self._upstream = upstream
        self._account = account
        self._frames = EnvelopeDecoder(upstream.connect.max_frame_bytes)
        self._answer = Answer(upstream)
        self._assistants: set[str] = set()
        self._assistant = ""
        self._chat_id = ""
        # Blocks that came before any message was known to be the assistant's.
        self._early: list[tuple[dict[str, Any], bool, str]] = []
        self._early_bytes = 0
        self._last_offset = -1
        self._completed = False
        self.content_frames = 0
        self.done = False
        self.ended = False
        #: For the log: frames that could not be read, and frames seen before.
        self.skipped_frames = 0
        self.replayed_frames = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Events that `chunk` completes. Raises KimiError where the answer fails, after the events before it."""
        frames = () if self.ended else self._frames.feed(chunk)
        # The shortcut for most frames of an answer: an append to the block that took text last, which goes out as it
        # came. It accepts exactly the frames for which `_frame` would do the same; neighbours leave as one event.
        hot, owner, is_plain = self._hot(), self._assistant, self._answer.citations.is_plain
        run: list[str] = []
        try:
            for flags, payload in frames:
                if flags or not payload:
                    if run:
                        yield self._joined(run)
                    yield from self._control(flags, payload)
                    if self.ended:
                        return
                    continue
                try:
                    frame = orjson.loads(payload)
                except orjson.JSONDecodeError:
                    self.skipped_frames += 1
                    log.debug("a frame of %d bytes that is no JSON was skipped", len(payload))
                    continue
                if (
                    hot is not None
                    and type(frame) is dict
                    and frame.get("mask") == hot.mask
                    and frame.get("op") == "append"
                    and type(block := frame.get("block")) is dict
                    and block.get("id") == hot.block_id
                    and type(part := block.get(hot.kind)) is dict
                    and len(part) == 1
                    and type(piece := part.get("content")) is str
                    and piece
                    and (len(block) == 2 or (len(block) == 3 and block.get("messageId") == owner))
                    and (hot.thinking or is_plain(piece))
                ):
                    if len(frame) == 4 and type(offset := frame.get("eventOffset")) is int:
                        if offset > self._last_offset:
                            self._last_offset = offset
                            self.content_frames += 1
                            hot.grown.pieces.append(piece)
                            run.append(piece)
                            continue
                    elif len(frame) == 3:
                        self.content_frames += 1
                        hot.grown.pieces.append(piece)
                        run.append(piece)
                        continue
                if run:
                    yield self._joined(run)
                yield from self._frame(frame, len(payload))
                if self.ended:
                    return
                hot, owner = self._hot(), self._assistant
            if run:
                yield self._joined(run)
        except KimiError:
            self.ended = True
            if run:
                yield self._joined(run)
            raise

    def close(self) -> Iterator[Event]:
        """The connection ended. Raises ProtocolError unless the answer was complete (protocol C.4)."""
        if self.ended:
            return
        self.ended = True
        yield from self._rest()
        if not (self.done or self._completed):
            raise ProtocolError("The connection ended in the middle of the answer", account=self._account)
        yield self._finished()

    def _hot(self) -> TextBlock | None:
        hot = self._answer.hot
        return hot if hot is not None and hot.owner == self._assistant else None

    def _joined(self, run: list[str]) -> Event:
        """The run as one event; the run is empty afterwards."""
        hot, text = self._answer.hot, "".join(run)
        run.clear()
        if hot is not None and hot.thinking:
            return ThinkingDelta(text)
        self._answer.text_sent = True
        return TextDelta(text)

    # --- frames ---

    def _control(self, flags: int, payload: bytes) -> Iterator[Event]:
        """Empty frames, the end-of-stream frame, gRPC-web's trailer."""
        if flags & END_STREAM:
            yield from self._trailer(payload)
        elif payload and isinstance(trailer := _parsed(payload), dict) and (error := trailer.get("error")):
            # A gRPC-web trailer says nothing to us unless it carries an error (protocol C.4).
            yield from self._fail(from_wire(error, upstream=self._upstream, account=self._account))

    def _trailer(self, payload: bytes) -> Iterator[Event]:
        if not payload:
            yield from self.close()
            return
        trailer = _parsed(payload)
        if not isinstance(trailer, dict):
            raise ProtocolError("The answer's last frame can't be read", account=self._account)
        yield from self._rest()
        error = trailer.get("error")
        # An empty error is success in one client and failure in another (protocol C.4): the answer decides.
        if error or (error is not None and not (self._completed or self._answer.text_sent)):
            yield from self._fail(from_wire(error, upstream=self._upstream, account=self._account))
            return
        self.ended = True
        yield self._finished()

    def _frame(self, frame: object, size: int) -> Iterator[Event]:
        if not isinstance(frame, dict):
            self.skipped_frames += 1
            return
        if not _CONTENT.isdisjoint(frame):
            self.content_frames += 1
        replayed = False
        if type(offset := frame.get("eventOffset")) is int:
            replayed = offset <= self._last_offset
            self._last_offset = max(offset, self._last_offset)
        if (exception := frame.get("exception")) is not None:
            yield from self._exception(exception)
        elif error := frame.get("error"):
            yield from self._fail(from_wire(error, upstream=self._upstream, account=self._account))
        elif isinstance(block := frame.get("block"), dict):
            append, mask = frame.get("op") == "append", frame.get("mask")
            mask = mask if isinstance(mask, str) else ""
            if (exception := block.get("exception")) is not None:
                yield from self._exception(exception)
            elif replayed:
                self.replayed_frames += 1
            else:
                yield from self._block(block, append=append, mask=mask, size=size)
        elif isinstance(message := frame.get("message"), dict):
            yield from self._message(message, replayed=replayed)
        elif isinstance(chat := frame.get("chat"), dict):
            chat_id = chat.get("id")
            if isinstance(chat_id, str) and chat_id and chat_id != self._chat_id:
                self._chat_id = chat_id
                yield ChatOpened(chat_id=chat_id)
        elif isinstance(notification := frame.get("notification"), dict):
            yield from self._notice(notification)
        elif isinstance(done := frame.get("done"), dict) or done is True:
            self.done = True

    def _message(self, message: Mapping[str, Any], *, replayed: bool) -> Iterator[Event]:
        """Follow the assistant's message; those of others only tell that they are not it (protocol C.5)."""
        message_id, role = message.get("id"), message.get("role")
        if not isinstance(message_id, str) or not message_id:
            message_id = self._assistant
        if isinstance(role, str) and role.lower().endswith("assistant") and message_id not in self._assistants:
            self._assistants.add(message_id)
            self._assistant = message_id
            self._completed = False
            if message_id:
                yield ChatOpened(message_id=message_id)
            yield from self._early_blocks(message_id)
        if message_id not in self._assistants:
            return
        status, refs, blocks = message.get("status"), message.get("refs"), message.get("blocks")
        if message_id == self._assistant and isinstance(status, str):
            self._completed = self._completed or status in self._upstream.connect.completed_statuses
        if replayed:
            self.replayed_frames += 1
            return
        if isinstance(refs, dict):
            yield from self._answer.take_refs(refs)
        # A message that brings its blocks along (a snapshot) counts as setting them.
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, dict) and (exception := block.get("exception")) is not None:
                yield from self._exception(exception)
                return
            if isinstance(block, dict):
                yield from self._answer.take(message_id, block, append=False, mask="")

    def _block(self, block: dict[str, Any], *, append: bool, mask: str, size: int) -> Iterator[Event]:
        if not self._assistants:
            self._early_bytes += size
            if self._early_bytes > self._upstream.connect.max_frame_bytes:
                raise ProtocolError("The answer belongs to no message", account=self._account)
            self._early.append((block, append, mask))
            return
        owner = _owner(block) or self._assistant
        if owner in self._assistants:
            yield from self._answer.take(owner, block, append=append, mask=mask)

    def _early_blocks(self, message_id: str) -> Iterator[Event]:
        """Blocks from before the assistant was known: they are its own only if they name it."""
        early, self._early = self._early, []
        for block, append, mask in early:
            if _owner(block) == message_id != "":
                yield from self._answer.take(message_id, block, append=append, mask=mask)

    def _notice(self, notification: Mapping[str, Any]) -> Iterator[Event]:
        codes = self._upstream.connect.notices
        names = [name for key in ("type", "source") if isinstance(name := notification.get(key), str)]
        code = next((codes[name] for name in names if name in codes), "unknown")
        message = shown(notification.get("message"))
        if code == ContentFiltered.code:
            yield from self._fail(ContentFiltered(f"Kimi withdrew this answer: {message}", account=self._account))
        else:
            yield Notice(code=code, message=message)

    # --- endings ---

    def _exception(self, exception: object) -> Iterator[Event]:
        inner = exception.get("error") if isinstance(exception, dict) else None
        error = inner if isinstance(inner, dict) else exception
        yield from self._fail(from_wire(error, upstream=self._upstream, account=self._account))

    def _fail(self, failure: KimiError) -> Iterator[Event]:
        """Raise `failure`; an answer that is withdrawn after its text went out ends as filtered (protocol C.11)."""
        if not (isinstance(failure, ContentFiltered) and self._answer.text_sent):
            raise failure
        self.ended = True
        yield Finished(reason="content_filter")

    def _rest(self) -> Iterator[Event]:
        """What waited for more. With no assistant in the whole stream, its blocks are the answer (frames 27-34)."""
        if not self._assistants:
            for block, append, mask in self._early:
                yield from self._answer.take("", block, append=append, mask=mask)
        yield from self._answer.flush()

    def _finished(self) -> Finished:
        answer = self._answer
        if not (answer.text_sent or answer.thinking_sent or answer.tool_seen):
            raise UpstreamError("Kimi ended the answer without saying anything", account=self._account)
        return Finished()


def _owner(block: Mapping[str, Any]) -> str:
    """The message a block names, if it does (protocol G.24)."""
    owner = block.get("messageId") or block.get("message_id")
    return owner if isinstance(owner, str) else ""


def _parsed(payload: bytes) -> object:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
