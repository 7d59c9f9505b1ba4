"""One legacy answer in the making: writes its events as SSE and keeps what the chat will remember (protocol B.5).

The counterpart of the Connect turn, over the same chats: blocks are stored in the same form, so a list call shows an
exchange whichever way it came. A continued answer goes on in the message it was cut from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from ..accounts import Caller
from ..chats import COMPLETED, GENERATING, Chat, CutAnswer, Message
from ..playing import HttpAnswer
from ..refusals import Refusal
from ..state import Simulator
from ..streams import RunningStream
from ..tokens import new_xid
from .call import RestCall
from .refusals import EVENT_STREAM, translated


def sse(value: dict[str, Any]) -> bytes:
    """One event: a `data:` line and a blank one."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def error_event(error_type: str, message: str) -> bytes:
    """The event that ends a failed answer."""
    return sse({"event": "error", "error": {"error_type": error_type, "message": message, "detail": ""}})


def _piece(content: str) -> bytes:
    return sse({"event": "cmpl", "idx_s": 0, "idx_z": 0, "text": content, "view": "cmpl"})


class RestTurn:
    """An answer to one completion."""

    media_type = EVENT_STREAM

    def __init__(self, simulator: Simulator, caller: Caller, call: RestCall, chat: Chat, stream: RunningStream) -> None:
        self.simulator = simulator
        self.account = caller.account
        self.jti = caller.jti
        self.call = call
        self.chat = chat
        self.cut: CutAnswer | None = chat.cut if call.segment_id else None
        chat.cut = None
        # The rest of a chat's first answer belongs to the new chat, too.
        self.is_new = len(chat.messages) <= (0 if self.cut is None else 2)
        self.group_id = new_xid()
        self.segment_id = call.segment_id
        self.record = simulator.begin_call("rest", self.account.sub)
        self.record.chat_id = chat.id
        self._stream = stream
        self._answer: Message | None = None
        self._before = [] if self.is_new else chat.asked(chat.newest().id)

    @property
    def answer(self) -> Message:
        """The assistant's message; exists after the opening."""
        if self._answer is None:
            raise RuntimeError("a scenario spoke before the opening events")
        return self._answer

    def event(self, kind: str, **fields: Any) -> bytes:
        """Any event."""
        return sse({"event": kind, **fields})

    def opening(self, *, echo: str | None = None) -> Iterator[bytes]:
        """`req` and `resp`; `echo` replaces the prompt in the first."""
        call, chat = self.call, self.chat
        chat.last_request = {
            "kimiplus_id": call.kimiplus_id,
            "use_search": call.use_search,
            "use_research": call.use_research,
            "use_math": call.use_math,
        }
        chat.status = "STATUS_GENERATING"
        chat.update_time = self.simulator.chats.now()
        texts = [{"id": "1", "text": {"content": call.text}}]
        files = [{"id": str(at), "file": {"id": file_id}} for at, file_id in enumerate(call.file_ids, 2)]
        parent_id = "" if self.is_new else chat.newest().id
        question = chat.add("user", COMPLETED, parent_id, [*texts, *files], message_id=new_xid())
        self.segment_id = question.id
        yield self._req(call.text if echo is None else echo)
        self._answer = chat.add("assistant", GENERATING, question.id, message_id=new_xid())
        yield self._resp()

    def reopening(self, cut: CutAnswer) -> Iterator[bytes]:
        """As `opening`, for the rest of a cut answer."""
        self._answer = cut.answer
        cut.answer.status = GENERATING
        self.chat.status = "STATUS_GENERATING"
        if cut.new_segment:
            self.segment_id = new_xid()
            yield self._req(self.call.text)
        yield self._resp()

    def text(self, content: str) -> bytes:
        """The next piece of the answer."""
        self._remember("1", "text", content)
        return _piece(content)

    def repeating(self, content: str) -> Callable[[int], bytes]:
        """A writer of `count` times the piece."""
        piece = _piece(content)
        return lambda count: piece * count

    def think(self, content: str, event: str = "k1") -> bytes:
        """The next piece of thinking."""
        self._remember("2", "think", content)
        return sse({"event": event, "text": content})

    def found(self, cards: list[dict[str, str]]) -> None:
        """Keep sources for rag-refs, numbered from 1."""
        chunks = [{"id": f"r{n}", "refIndex": str(n), "base": card} for n, card in enumerate(cards, 1)]
        self.answer.refs["searchChunks"] = chunks

    def length(self, pieces: list[str], *, new_segment: bool, ends: bool) -> Iterator[bytes]:
        """The output cap: `pieces` are what a continue call will get."""
        self.chat.cut = CutAnswer(
            segment_id=self.segment_id, answer=self.answer, pieces=pieces, new_segment=new_segment, ends=ends
        )
        self.settle()
        yield self.event("length")
        if ends:
            yield self.event("all_done")

    def heartbeat(self) -> bytes:
        """Everything that says nothing: a comment, `ping` and `loading`."""
        return b": keep-alive\n\n" + self.event("ping") + self.event("loading")

    def raw(self, payload: bytes, *, last: bool = False) -> bytes:
        """An event with any payload."""
        return b"data: " + payload + b"\n\n"

    def done(self) -> bytes:
        """An event that some answers have before the last one."""
        return self.event("done")

    def closing(self, *, name: str | None = None) -> Iterator[bytes]:
        """`rename` in a new chat, then the end."""
        self.settle()
        if self.is_new:
            self.chat.name = name or " ".join(self.call.text.split()[:6]) or self.chat.name
            yield self.event("rename", text=self.chat.name)
        yield self.event("all_done")

    def error(self, error_type: str, message: str) -> bytes:
        """The event of a failure; a failed answer keeps nothing else."""
        if self._answer is not None:
            self._answer.blocks[:] = [{"id": "1", "exception": {"error": {"reason": error_type}}}]
        return error_event(error_type, message)

    def failed(self, refusal: Refusal) -> bytes:
        """As `error`, of what both protocols refuse."""
        told = translated(refusal)
        return self.error(told.error_type, str(told))

    def refused(self, refusal: Refusal, **headers: str) -> HttpAnswer:
        """The same as JSON with a status."""
        told = translated(refusal)
        return HttpAnswer(status=told.status, body=told.body, headers=headers)

    def cancelled(self) -> Iterator[bytes]:
        """How an answer ends that Connect's CancelChat stopped."""
        if self._answer is None:
            yield from self.opening()
        yield from self.closing()

    def settle(self) -> None:
        """However the stream ended, the answer reads COMPLETED from now on."""
        if self._answer is not None:
            self._answer.status = COMPLETED
            self.chat.status = "STATUS_COMPLETED"

    def view(self) -> str:
        """All that the model sees: the messages up to its question."""
        return "\n".join(message.text for message in self.chat.chain(self.answer.parent_id))

    def earlier_prompts(self) -> list[str]:
        """What the user said before in this chat, oldest first."""
        return [one.text for one in self._before]

    def files(self) -> list[str]:
        """The files of this message, as the demo speaks of them."""
        return self.simulator.files.labels(self.account.sub, self.call.file_ids)

    def earlier_files(self) -> list[str]:
        """Those of the user's messages before."""
        ids = [file_id for one in self._before for file_id in one.file_ids]
        return self.simulator.files.labels(self.account.sub, ids)

    def _req(self, content: str) -> bytes:
        return self.event(
            "req", id=self.segment_id, group_id=self.group_id, content=content, refs=list(self.call.file_ids)
        )

    def _resp(self) -> bytes:
        self._stream.message_id = self.record.message_id = self.answer.id
        return self.event("resp", id=self.answer.id, group_id=self.group_id)

    def _remember(self, block_id: str, kind: str, content: str) -> None:
        self.simulator.first_content(self.record)
        blocks = self.answer.blocks
        kept = next((one for one in blocks if one["id"] == block_id), None)
        if kept is None:
            blocks.append({"id": block_id, kind: {"content": content}})
        else:
            kept[kind]["content"] += content
