"""The REST generation's chat calls as bytes: bodies of the requests, the answer's decoder (protocol B.3-B.5).

Law of the requests: what is needed and nothing that imitates a browser; links in prompts stay as they are. Law of the
decoder: sans-I/O, any chunking, the same events after `events.merged` however the bytes are cut. HTTP 200 proves
nothing: an answer ends with `all_done`, or with the connection after `done` or `length`, and exactly one `Finished`
is its last event, or a KimiError is raised; only an answer that is cut at the output cap and may go on ends without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from ...errors import KimiError, ModelNotFound, ProtocolError
from ...events import Event
from ...upstream import ModelSpec, RestAgent, Upstream
from .. import FileToUpload, Turn, UploadedFile
from .answer import Answer, error_of, failure_of
from .sse import EventStream

log: Final = logging.getLogger(__name__)


def agent_of(spec: ModelSpec, upstream: Upstream) -> RestAgent | None:
    """How the model of `spec` is asked for in this generation, or None when it can't be."""
    wanted = spec.kimiplus_id or ""
    if upstream.agents.regex.fullmatch(wanted):
        return RestAgent(kimiplus_id=wanted)
    return upstream.rest.agents.get(wanted)


def needed_agent(turn: Turn, upstream: Upstream) -> RestAgent:
    """The same, with the turn's thinking applied. Raises ModelNotFound."""
    agent = agent_of(turn.spec, upstream)
    if agent is None:
        raise ModelNotFound(
            f"{turn.spec.title} can't be reached over Kimi's REST protocol",
            cure="Set KIMI_PROTOCOL to auto or connect, or choose another model.",
        )
    if turn.thinking and agent.thinking_kimiplus_id:
        return agent.model_copy(update={"kimiplus_id": agent.thinking_kimiplus_id})
    return agent


def create_body(agent: RestAgent, upstream: Upstream) -> dict[str, Any]:
    """What opens a chat."""
    name = upstream.rest.chat_name
    return {"enter_method": "new_chat", "is_example": False, "kimiplus_id": agent.kimiplus_id, "name": name}


def completion_body(turn: Turn, agent: RestAgent) -> bytes:
    """What asks for an answer in a chat."""
    body = {
        "kimiplus_id": agent.kimiplus_id,
        "messages": [{"role": "user", "content": turn.prompt}],
        "refs": [file.id for file in turn.files],
        **({"refs_file": [_reference(file) for file in turn.files]} if turn.files else {}),
        "use_math": False,
        "use_research": agent.use_research,
        "use_search": turn.search,
        "extend": {"sidebar": True},
        **agent.body,
    }
    return orjson.dumps(body)


def _reference(file: UploadedFile) -> dict[str, Any]:
    return {
        "detail": file.detail,
        "done": True,
        "file": {},
        "file_info": {},
        "id": file.id,
        "name": file.name,
        "parse_status": "success",
        "size": file.size_bytes,
        "upload_progress": 100,
        "upload_status": "success",
    }


def presign_body(file: FileToUpload) -> dict[str, Any]:
    """What asks for a place to put a file."""
    return {"action": file.kind, "name": file.name}


def register_body(file: FileToUpload, place: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the bytes at `place`, the answer to `presign_body`, a file of the account."""
    if file.kind == "image":
        return {"type": "image", "file_id": place.get("file_id"), "name": file.name}
    return {"type": "file", "name": file.name, "object_name": place.get("object_name"), "file_id": ""}


def continue_body(segment_id: str, agent: RestAgent) -> bytes:
    """What asks for the rest of an answer that was cut at the output cap (protocol B.4)."""
    body = {
        "segment_id": segment_id,
        "action": "continue",
        "messages": [{"role": "user", "content": " "}],
        "kimiplus_id": agent.kimiplus_id,
        "extend": {"sidebar": True},
    }
    return orjson.dumps(body)


class AnswerDecoder:
    """Implements `pump.Decoder` for one call that brings the answer or, with `answer` given, its next piece.

    With `may_continue` an answer that is cut ends without `Finished` and `cut` says so.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        account: str | None = None,
        answer: Answer | None = None,
        may_continue: bool = False,
    ) -> None:
        self._upstream = upstream
        self._account = account
        self._answer = answer = answer or Answer(upstream, account)
        self._may_continue = may_continue
        self._stream = EventStream(upstream.rest.max_frame_bytes)
        #: Frames with content and what takes them; all others are heartbeats, names or unknown.
        self._content: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "cmpl": answer.said,
            "k1": answer.thought,
            "think": answer.thought,
            "search_plus": answer.searched,
            "ref_docs": answer.referred,
            "req": answer.asked,
            "resp": answer.opened,
            "zone_set": answer.zone,
        }
        self._frames = 0
        self._capped = False
        self.content_frames = 0
        self.done = False
        self.ended = False

    @property
    def cut(self) -> bool:
        """The call ended at the output cap and another one may bring the rest."""
        return self.ended and self._capped and self._may_continue and bool(self._answer.segment_id)

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Events that `chunk` completes. Raises KimiError where the answer fails, after the events before it."""
        if self.ended:
            return ()
        try:
            self._take_all(self._stream.feed(chunk))
        except KimiError as failure:
            return self._broken(failure)
        return self._answer.drained()

    def close(self) -> Iterable[Event]:
        """The connection ended. Raises KimiError unless the answer was complete (protocol B.5)."""
        if self.ended:
            return ()
        try:
            self._take_all(self._stream.close())
            self._take_close()
        except KimiError as failure:
            return self._broken(failure)
        return self._answer.drained()

    def _broken(self, failure: KimiError) -> Iterator[Event]:
        self.ended = True
        failure.account = failure.account or self._account
        return _then_raise(self._answer.drained(), failure)

    def _take_all(self, found: Iterable[bytes]) -> None:
        for data in found:
            self._take_data(data)
            if self.ended:
                return

    def _take_close(self) -> None:
        if self.ended:
            return
        if self.done:
            self._finish()
            return
        self._answer.flush()
        if not self._frames:
            try:
                got = orjson.loads(self._stream.stray)
            except orjson.JSONDecodeError:
                got = None
            if error_of(got) is not None:
                raise failure_of(got, upstream=self._upstream, account=self._account)
            raise ProtocolError("Kimi sent a page or nothing at all instead of an answer", account=self._account)
        raise ProtocolError("The connection ended in the middle of the answer", account=self._account)

    def _take_data(self, data: bytes) -> None:
        try:
            frame = orjson.loads(data)
        except orjson.JSONDecodeError:
            frame = None
        if isinstance(frame, dict):
            self._take_frame(frame)
        else:
            log.debug("a frame of %d bytes that is no JSON object was skipped", len(data))

    def _take_frame(self, frame: dict[str, Any]) -> None:
        self._frames += 1
        event = frame.get("event")
        if not isinstance(event, str):
            event = ""
        if event == "error" or error_of(frame) is not None:
            self.ended = self._answer.failed(frame)
        elif (take := self._content.get(event)) is not None:
            self.content_frames += 1
            # Another segment follows after all: only its own end is the end.
            self.done = self.done and event not in ("cmpl", "k1", "think")
            take(frame)
        elif event == "all_done":
            self._finish()
        elif event == "length":
            self._capped = self.done = True
        elif event == "done":
            self.done = True

    def _finish(self) -> None:
        self.ended = True
        if not self.cut:
            self._answer.finish("length" if self._capped else "stop")


def _then_raise(events: list[Event], failure: KimiError) -> Iterator[Event]:
    yield from events
    raise failure
