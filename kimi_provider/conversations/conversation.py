"""Which chat a request goes on with, and what is kept of it for the next one.

A request goes on with the chat in which exactly what it says was said before (protocol E.3), or with the one that it
names. Law: never wrong. What is said, who asks, whom, with which tools, rules and system text must all be the same;
what is not sure begins a new chat with the whole history. A request that names what it does not repeat is refused when
nobody knows it: answered alone it would lose everything before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import BadRequest, TooManyStreams
from ..request import ChatRequest, Message
from ..settings import Settings
from ..store import StoredChat
from .histories import canonical, digest, extended
from .registry import ChatRegistry


class Conversation:
    """That of one request. `setup` is all that holds for each of its turns, `account_id` the only account that may
    answer it.
    """

    def __init__(
        self,
        request: ChatRequest,
        setup: Sequence[object],
        account_id: str | None,
        registry: ChatRegistry,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._request = request
        self._on = settings.kimi_continue == "auto"
        who = (request.caller, account_id)
        self._turns = turns_of(request.messages)
        answers = [at for at, turn in enumerate(self._turns) if turn.role == "assistant"]
        #: How many turns there are up to the last answer of ours.
        self._answered = answers[-1] + 1 if answers else 0
        #: The request itself holds what was said before. (Beside the id of an answer, LiteLLM puts a call of that
        #: answer before the result of the call, and nothing else.)
        self.repeats = bool(answers) and (request.previous_answer is None or self._turns[0].role != "assistant")
        #: It may be followed by one that does not.
        self.named = bool(request.conversation or request.previous_answer or request.lasts)
        #: The chat stays when the conversation is likely to go on.
        self.lasts = self._on and (self.repeats or self.named or bool(request.tools))
        self._setup = digest(who, setup) if self.lasts else ""
        self._name = digest("name", who, request.conversation) if request.conversation else None
        self._canonical = canonical(self._turns, request.tools) if self.lasts else []
        #: The chat to go on with; None: a new one.
        self.head: StoredChat | None = None

    @property
    def tail(self) -> list[Message]:
        """What the chat does not hold yet."""
        return self._turns[self._answered :]

    @property
    def setup_changed(self) -> bool:
        """Whether the chat does not know what holds for this turn."""
        return self.head is not None and self.head.setup != self._setup

    @property
    def unknown_name(self) -> str | None:
        """What the caller calls a conversation of which nothing is known here and nothing is told."""
        return self._request.conversation if self._on and not self.repeats and self.head is None else None

    async def take(self) -> None:
        """Find the `head`, which is this request's alone until it is settled.

        Raises BadRequest when the request goes on with what it does not repeat and nobody knows, TooManyStreams when
        another one does so now.
        """
        before, name, registry = self._request.previous_answer, self._name, self._registry
        if not self._on:
            if before is not None and not self.repeats:
                raise _unknown_answer()
            return
        if before is not None:
            answer = self._answer_name(before)
            self.head = await registry.take(lambda rows, s: rows.take_answer(answer, s))
            if self.head is None and not self.repeats:
                raise _busy() if await registry.knows(answer=answer) else _unknown_answer()
        if self.head is None and self.repeats and self.tail:
            history = extended("", self._canonical[: self._answered])
            self.head = await registry.take(lambda rows, s: rows.take_history(history, self._setup, name, s))
        elif self.head is None and name is not None and not self.repeats:
            self.head = await registry.take(lambda rows, s: rows.take_name(name, s))
            if self.head is None and await registry.knows(name=name):
                raise _busy()

    async def adopt(self, chat_id: str, account_id: str, protocol: str, message_id: str | None) -> None:
        """Go on with a chat of the account's owner. Raises TooManyStreams when another request does so now."""
        chat = StoredChat(
            chat_id=chat_id,
            account_id=account_id,
            protocol=protocol,
            removable=False,
            message_id=message_id,
            name=self._name,
        )
        self.head = await self._registry.take(lambda rows, s: chat if rows.adopt(chat, s) else None)
        if self.head is None:
            raise _busy()

    async def keep(self, chat: StoredChat, answer: Message | None) -> bool:
        """Let the next request go on after `answer`; without one, only a request that names the chat. False when that
        can't be written down.
        """
        history: str | None = None
        if answer is not None and (self.head is None or self.head.history is not None or not self.head.removable):
            before = self.head.history if self.head is not None else None
            said = self._canonical if self.head is None else self._canonical[self._answered :]
            history = extended(before or "", [*said, *canonical([answer], self._request.tools)])
        self.head = None
        answer_id = self._request.answer_id
        return await self._registry.keep(
            replace(
                chat,
                history=history,
                setup=self._setup,
                name=self._name,
                answer=self._answer_name(answer_id) if answer_id else None,
            )
        )

    def leave(self) -> None:
        """Go on in a new chat, which knows what the request says. Raises BadRequest when that would not do."""
        self.give_back()
        if self._request.previous_answer is not None and not self.repeats:
            raise _unknown_answer()

    def give_back(self) -> None:
        """Nothing was said in the chat: the next request may go on with it as this one could."""
        if self.head is not None:
            self._registry.given_back(self.head)
            self.head = None

    def _answer_name(self, answer_id: str) -> str:
        return digest("answer", self._request.caller, answer_id)


def turns_of(messages: Sequence[Message]) -> list[Message]:
    """All but system texts and what says nothing; what an API tells of one answer in several messages is one."""
    turns: list[Message] = []
    for message in messages:
        if message.role == "system" or not (message.role == "tool" or message.parts or message.tool_calls):
            continue
        last = turns[-1] if turns else None
        if last is not None and last.role == message.role == "assistant":
            calls = (*last.tool_calls, *message.tool_calls)
            turns[-1] = replace(last, parts=(*last.parts, *message.parts), tool_calls=calls)
        else:
            turns.append(message)
    return turns


def _unknown_answer() -> BadRequest:
    return BadRequest(
        "The answer that previous_response_id names is not known here any more, or others went on from it",
        cure="Send the whole conversation as input.",
    )


def _busy() -> TooManyStreams:
    return TooManyStreams("Another answer of this conversation is still running", retry_after_s=1)
