"""The Chat call as bytes: the request's envelope, the answer's decoder (protocol C.2, C.4).

Law of the request: one compact JSON object in one envelope; ids are left out when the chat is new, options the model's
row does not have are not sent. Law of the decoder: sans-I/O, any chunking, the same events after `events.merged`
however the bytes are cut; it knows how an append looks, all the rest is `reducer.FrameReducer`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from ...errors import KimiError
from ...events import Event
from ...upstream import Upstream
from .. import Marks, Turn
from .blocks import Block
from .envelope import EnvelopeDecoder, encode
from .reducer import FrameReducer

log: Final = logging.getLogger(__name__)


def chat_body(turn: Turn, upstream: Upstream) -> bytes:
    """The bytes to POST."""
    spec = turn.spec
    options: dict[str, Any] = {"thinking": turn.thinking}
    if turn.effort:
        options["reasoning_effort"] = turn.effort
    if spec.model:
        options["model"] = spec.model
    options["enable_plugin"] = spec.enable_plugin
    if spec.context_length:
        options["context_length"] = spec.context_length
    if turn.system_prompt:
        options["system_prompt"] = turn.system_prompt
    message: dict[str, Any] = {
        "role": "user",
        "blocks": [
            {"message_id": "", "text": {"content": turn.prompt}},
            *({"file": {"id": file.id, "status": upstream.connect.parsed_status}} for file in turn.files),
        ],
        "scenario": spec.scenario,
    }
    if turn.parent_id:
        message = {"parent_id": turn.parent_id, **message}
    body: dict[str, Any] = {"chat_id": turn.chat_id} if turn.chat_id else {}
    body["scenario"] = spec.scenario
    if spec.kimiplus_id:
        body[upstream.connect.fields.get("kimiplus_id", "kimiplus_id")] = spec.kimiplus_id
    if spec.agent_mode:
        body["agent_mode"] = spec.agent_mode
    body["tools"] = [*spec.tools, *(upstream.connect.search_tools if turn.search else ())]
    body["message"] = message
    body["options"] = options
    return encode(orjson.dumps(body))


class ChatDecoder(FrameReducer):
    """Implements `pump.Decoder` for one answer; `account` goes into errors."""

    def __init__(self, upstream: Upstream, *, account: str | None = None, marks: Marks = "cite") -> None:
        super().__init__(upstream, account, marks=marks)
        self._frames = EnvelopeDecoder(upstream.connect.max_frame_bytes)

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Events that `chunk` completes. Raises KimiError where the answer fails, after the events before it."""
        if self.ended:
            return ()
        try:
            self._decode(chunk)
        except KimiError as failure:
            return self._broken(failure)
        return self._drained()

    def close(self) -> Iterable[Event]:
        """The connection ended. Raises ProtocolError unless the answer was complete (protocol C.4)."""
        if self.ended:
            return ()
        if self._frames.pending_bytes:
            log.debug("the stream ended inside a frame, %d bytes of it are lost", self._frames.pending_bytes)
        try:
            self.take_close()
        except KimiError as failure:
            return self._broken(failure)
        return self._drained()

    def _drained(self) -> list[Event]:
        events = self.out[:]
        del self.out[:]
        return events

    def _broken(self, failure: KimiError) -> Iterator[Event]:
        self.ended = True
        failure.account = failure.account or self._account
        return _then_raise(self._drained(), failure)

    def _decode(self, chunk: bytes) -> None:
        loads, growing, is_plain = orjson.loads, self.answer.growing, self.answer.citations.is_plain
        run: list[str] = []
        grower: Block | None = None
        try:
            for flags, payload in self._frames.feed(chunk):
                if flags or not payload:
                    if run:
                        self._grow(grower, run)
                    self.take_control(flags, payload)
                    if self.ended:
                        return
                    continue
                try:
                    frame = loads(payload)
                except orjson.JSONDecodeError:
                    frame = None
                # The shortcut for most frames of an answer: an append to a block that grows already, of a piece that
                # goes out as it came. It takes only frames for which `take_frame` would do the same, anything else
                # in any place leads there; neighbours leave as one event.
                simple = False
                try:
                    if frame.get("op") == "append" and (hot := growing.get(frame["mask"])) is not None:
                        block, size = frame["block"], len(frame)
                        part = block[hot.kind]
                        piece = part[hot.leaf]
                        simple = (
                            block["id"] == hot.block_id
                            and type(piece) is str
                            and piece != ""
                            and len(part) == 1
                            and (len(block) == 2 or (len(block) == 3 and block["messageId"] == hot.owner))
                            and (hot.channel != "text" or is_plain(piece))
                            # Three fields are those above; the fourth may only be a number not seen before.
                            and (
                                size == 3
                                or (
                                    size == 4
                                    and type(offset := frame["eventOffset"]) is int
                                    and offset > self.last_offset
                                )
                            )
                        )
                except (AttributeError, KeyError, TypeError):
                    simple = False
                if simple and hot is not None:
                    if size == 4:
                        self.last_offset = offset
                    if grower is not hot:
                        if run:
                            self._grow(grower, run)
                        grower = hot
                    run.append(piece)
                    continue
                if run:
                    self._grow(grower, run)
                self.take_frame(frame, len(payload))
                if self.ended:
                    return
        finally:
            if run:
                self._grow(grower, run)

    def _grow(self, block: Block | None, run: list[str]) -> None:
        """Give `block` the pieces of `run`, which is empty afterwards."""
        assert block is not None
        self.content_frames += len(run)
        block.pieces += run
        if block.channel != "tool":
            self.answer.say("".join(run), thinking=block.channel == "thinking")
        run.clear()


def _then_raise(events: list[Event], failure: KimiError) -> Iterator[Event]:
    yield from events
    raise failure
