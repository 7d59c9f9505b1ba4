"""One answer in the making: numbers the events, writes them as envelopes, and keeps what the chat will remember.

A scenario speaks through a `Turn`: the opening frames in their measured order (protocol C.5 and C.12, 01 to 06),
blocks by mask, the closing frames. `eventOffset` grows by one with each event that carries it; heartbeats carry none.
The chat comes into being with the opening, so a call that fails before leaves none behind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from . import envelopes, refusals
from .accounts import Account
from .call import ChatCall
from .chats import COMPLETED, GENERATING, UNSPECIFIED, Chat, Message
from .playing import HttpAnswer
from .state import Simulator
from .streams import RunningStream

HEARTBEAT = envelopes.message({"heartbeat": {}})


class Turn:
    """An answer to one call of one account."""

    media_type = refusals.STREAM_TYPE

    def __init__(
        self, simulator: Simulator, account: Account, jti: str, call: ChatCall, chat: Chat | None, stream: RunningStream
    ) -> None:
        self.simulator = simulator
        self.account = account
        self.jti = jti
        self.call = call
        # A chat made by the legacy protocol has no message yet (protocol B.1).
        self.is_new = chat is None or not chat.messages
        self.record = simulator.begin_call("connect", account.sub)
        self._chat = chat
        self._stream = stream
        self._answer: Message | None = None
        self._offset = 0
        self._started_texts: set[str] = set()
        self._before: list[Message] | None = None  # read once, before the question joins the chat

    @property
    def chat(self) -> Chat:
        """The chat, made on first use."""
        return self._chat or self.make_chat()

    def make_chat(self) -> Chat:
        """A new one."""
        self._chat = self.simulator.chats.open(self.account.sub, "connect")
        self._stream.chat_id = self._chat.id
        return self._chat

    @property
    def answer(self) -> Message:
        """The assistant's message; exists after the opening."""
        if self._answer is None:
            raise RuntimeError("a scenario sent a block before the opening frames")
        return self._answer

    def event(self, payload: dict[str, Any], *, op: str | None = None, mask: str | None = None) -> bytes:
        """The next event: `op`, `mask`, `eventOffset`, payload, in the order of the captures."""
        self._offset += 1
        head = {name: value for name, value in (("op", op), ("mask", mask)) if value is not None}
        return envelopes.message({**head, "eventOffset": self._offset, **payload})

    def offsets(self, count: int) -> int:
        """Reserve `count` offsets for pre-encoded events; returns the first."""
        first = self._offset + 1
        self._offset += count
        return first

    def opening(self, *, echo: str | None = None, with_answer_id: bool = True) -> Iterator[bytes]:
        """Frames 01 to 06; `echo` replaces the prompt in the user echo."""
        chat, call = self.chat, self.call
        last_request = {"scenario": call.scenario, "tools": call.tools, "options": call.options}
        chat.last_request = last_request
        chat.status = "STATUS_GENERATING"
        chat.update_time = self.simulator.chats.now()
        self.record.chat_id = chat.id
        yield HEARTBEAT
        face = {"id": chat.id, "name": chat.name, "createTime": chat.create_time}
        yield self.event({"chat": face}, op="set", mask="chat")
        yield self.event({"chat": {"id": chat.id, "lastRequest": last_request}}, op="set", mask="chat.lastRequest")
        parent_id = self._parent_id()
        if self.is_new:
            root = chat.add("system", UNSPECIFIED, "")
            parent_id = root.id
            shown = {"id": root.id, "role": "system", "status": UNSPECIFIED}
            yield self.event({"message": shown}, op="set", mask="message")
        question = self._question(parent_id)
        blocks = question.blocks if echo is None else [{"id": "1", "text": {"content": echo}}]
        yield self.event({"message": self._face(question, blocks)}, op="set", mask="message")
        for file_id in call.file_ids:
            yield self.event({"chat": {"id": chat.id, "files": [{"id": file_id}]}}, op="append", mask="chat.files")
        self._answer = chat.add("assistant", GENERATING, question.id)
        self._stream.message_id = self.record.message_id = self._answer.id
        face = self._face(self._answer, [])
        if not with_answer_id:
            del face["id"]
        yield self.event({"message": face}, op="set", mask="message")

    def block(self, op: str, mask: str | None, block: dict[str, Any]) -> bytes:
        """A block event, remembered in the answer."""
        if "text" in block or "think" in block:
            self.simulator.first_content(self.record)
        self._remember(op, block)
        return self.event({"block": block}, op=op, mask=mask)

    def text(self, content: str, block_id: str = "1") -> bytes:
        """The next piece of a text block: `set` at first, then `append` (protocol C.6)."""
        if block_id in self._started_texts:
            block = {"id": block_id, "text": {"content": content}}
            return self.block("append", "block.text.content", block)
        self._started_texts.add(block_id)
        return self.block("set", "block.text", {"id": block_id, "parentId": "", "text": {"content": content}})

    def repeating(self, content: str) -> Callable[[int], bytes]:
        """A writer of the next `count` appends of `content`: only `eventOffset` differs between them."""
        head = b'{"op":"append","mask":"block.text.content","eventOffset":'
        tail = b',"block":{"id":"1","text":{"content":' + orjson.dumps(content) + b"}}}"
        fixed = len(head) + len(tail)
        pack = struct.Struct(">BI").pack

        def write(count: int) -> bytes:
            pieces: list[bytes] = []
            start = self.offsets(count)
            for offset in range(start, start + count):
                number = b"%d" % offset
                pieces += (pack(0, fixed + len(number)), head, number, tail)
            return b"".join(pieces)

        return write

    def think(self, content: str, block_id: str = "2", parent_id: str = "") -> bytes:
        """The next piece of a thinking block."""
        if block_id in self._started_texts:
            return self.block("append", "block.think.content", {"id": block_id, "think": {"content": content}})
        self._started_texts.add(block_id)
        return self.block("set", "block.think", {"id": block_id, "parentId": parent_id, "think": {"content": content}})

    def refs(self, op: str, name: str, chunks: list[dict[str, Any]]) -> bytes:
        """Sources mirrored in the message (protocol C.7)."""
        kept = self.answer.refs.setdefault(name, [])
        kept.extend(chunks)
        return self.event(
            {"message": {"id": self.answer.id, "refs": {name: chunks}}}, op=op, mask=f"message.refs.{name}"
        )

    def completed(self) -> bytes:
        """Frame 23."""
        self.settle()
        return self.event({"message": {"id": self.answer.id, "status": COMPLETED}}, op="set", mask="message.status")

    def heartbeat(self) -> bytes:
        """An event without an offset."""
        return HEARTBEAT

    def raw(self, payload: bytes, *, last: bool = False) -> bytes:
        """An envelope with any payload; `last` makes it a trailer."""
        return envelopes.envelope(envelopes.END if last else envelopes.MESSAGE, payload)

    def failed(self, refusal: refusals.Refusal) -> bytes:
        """The trailer of a failure."""
        return envelopes.trailer(refusal.error)

    def refused(self, refusal: refusals.Refusal, **headers: str) -> HttpAnswer:
        """Connect JSON with its status (frame 48)."""
        status = refusals.STATUS_OF_CODE[refusal.code]
        return HttpAnswer(status=status, body=orjson.dumps(refusal.error), headers=headers)

    def done(self) -> bytes:
        """Frame 25."""
        return self.event({"done": {}})

    def closing(self, *, name: str | None = None) -> Iterator[bytes]:
        """Frames 23 to 26: completed, the chat's name when it is new, done, trailer."""
        yield self.completed()
        if self.is_new:
            self.chat.name = name or " ".join(self.call.text.split()[:6]) or self.chat.name
            yield self.event({"chat": {"id": self.chat.id, "name": self.chat.name}}, op="set", mask="chat.name")
        yield self.done()
        yield envelopes.trailer()

    def cancelled(self) -> Iterator[bytes]:
        """How a cancelled answer ends: as if it were complete (protocol C.5)."""
        if self._answer is None:
            yield from self.opening()
        yield from self.closing()

    def settle(self) -> None:
        """However the stream ended, the answer reads COMPLETED from now on (protocol C.5)."""
        if self._answer is not None:
            self._answer.status = COMPLETED
            if self.chat.status == "STATUS_GENERATING":
                self.chat.status = "STATUS_COMPLETED"

    def view(self) -> str:
        """All that the model sees: the system prompt of this call, the messages up to its question."""
        seen = self.chat.chain(self.answer.parent_id)
        return "\n".join([self.call.system_prompt, *(message.text for message in seen)])

    def earlier_prompts(self) -> list[str]:
        """What the user said before in this chat, oldest first."""
        return [one.text for one in self._earlier()]

    def files(self) -> list[str]:
        """The files of this message, as the demo speaks of them."""
        return self.simulator.files.labels(self.account.sub, self.call.file_ids)

    def earlier_files(self) -> list[str]:
        """Those of the user's messages before."""
        ids = [file_id for one in self._earlier() for file_id in one.file_ids]
        return self.simulator.files.labels(self.account.sub, ids)

    def _earlier(self) -> list[Message]:
        if self._before is None:
            self._before = [] if self.is_new else self.chat.asked(self._parent_id())
        return self._before

    def _parent_id(self) -> str:
        """Where the question goes: the place of the message it replaces, the named parent, else the newest message."""
        if self.is_new:
            return ""
        if self.call.message_id in self.chat.messages:
            return self.chat.messages[self.call.message_id].parent_id
        return self.call.parent_id or self.chat.newest().id

    def _question(self, parent_id: str) -> Message:
        replaced = self.chat.messages.get(self.call.message_id)
        if replaced is None:
            return self.chat.add("user", COMPLETED, parent_id, self.call.blocks)
        replaced.blocks = self.call.blocks
        return replaced

    def _face(self, message: Message, blocks: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": message.id,
            "parentId": message.parent_id,
            "role": message.role,
            "status": message.status,
            "blocks": blocks,
            "scenario": self.call.scenario,
        }

    def _remember(self, op: str, block: dict[str, Any]) -> None:
        blocks = self.answer.blocks
        if "exception" in block:
            blocks[:] = [block]  # a failed answer keeps nothing else (protocol C.12, frame 67)
            return
        kept = next((one for one in blocks if one["id"] == block["id"]), None)
        if kept is None:
            blocks.append({key: dict(value) if isinstance(value, dict) else value for key, value in block.items()})
            return
        for kind, value in block.items():
            if isinstance(value, dict):
                part = kept.setdefault(kind, {})
                for name, piece in value.items():
                    part[name] = part[name] + piece if op == "append" and name in part else piece
