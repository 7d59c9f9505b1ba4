"""A request as messages to the service: the whole of it for a new chat, or what a chat does not hold yet.

Everything that can be wrong with a request itself is found here, before an account is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..conversations import Conversation
from ..errors import ContextTooLong
from ..protocols import Turn
from ..request import ChatRequest
from ..shaping import JsonAnswer, estimate_tokens
from ..tools import Toolbox
from ..upstream import ModelSpec, Upstream
from .attachments import Attachments
from .transcript import flatten, going_on, system_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A message to send, once its `files` are there. `guarded`: the model sees a transcript, and may go on with it."""

    turn: Turn
    files: Attachments
    guarded: bool


class Asking:
    """One request. `deadline` is in loop time. Raises BadRequest (nothing to answer, no such effort, a form that is
    none), ContextTooLong.
    """

    def __init__(
        self, request: ChatRequest, spec: ModelSpec, upstream: Upstream, files: Attachments, deadline: float
    ) -> None:
        self._request, self._files = request, files
        self.toolbox = Toolbox(
            request.tools,
            upstream.tools,
            dialect=spec.dialect,
            choice=request.tool_choice,
            parallel=request.parallel_tool_calls,
        )
        wanted = request.response_format
        self.json = JsonAnswer(wanted, upstream.tools, collected=request.collected) if wanted is not None else None
        self._instructions = self.json.instructions if self.json is not None else ""
        prompt = flatten(request.messages, self.toolbox, files.labels, instructions=self._instructions)
        self.prompt_tokens = estimate_tokens(prompt.text)
        if self.prompt_tokens > spec.context_tokens:
            raise ContextTooLong(
                f"The conversation has about {self.prompt_tokens} tokens; {request.model} takes {spec.context_tokens}"
            )
        turn = _turn(request, spec, self.toolbox, prompt.text, deadline)
        self._whole = Message(turn=turn, files=files, guarded=prompt.guarded)

    @property
    def setup(self) -> Sequence[object]:
        """All that holds for every turn of the conversation, as JSON values."""
        turn, toolbox = self._whole.turn, self.toolbox
        spec = turn.spec
        return (
            (spec.scenario, spec.model, spec.kimiplus_id, spec.agent_mode, spec.context_length, turn.thinking),
            system_text(self._request.messages),
            (toolbox.instructions, toolbox.system_prompt, spec.tools, [turn.text for turn in toolbox.example]),
            self._instructions,
        )

    def message(self, conversation: Conversation) -> Message:
        """What to send to the chat of `conversation`, or to a new one."""
        head = conversation.head
        if head is None:
            return self._whole
        tail, labels = conversation.tail, self._files.labels
        if conversation.setup_changed:
            systems = [message for message in self._request.messages if message.role == "system"]
            prompt = flatten([*systems, *tail], self.toolbox, labels, instructions=self._instructions)
        else:
            prompt = going_on(tail, self.toolbox, labels, guarded=head.guarded)
        turn = replace(self._whole.turn, prompt=prompt.text, chat_id=head.chat_id, parent_id=head.message_id)
        return Message(turn=turn, files=self._files.of(tail), guarded=prompt.guarded or head.guarded)


def _turn(request: ChatRequest, spec: ModelSpec, toolbox: Toolbox, prompt: str, deadline: float) -> Turn:
    """Raises BadRequest for an effort that nobody knows."""
    asked = spec.effort_for(request.effort, request.thinking)
    search = spec.search if request.search is None else request.search
    if toolbox.active:
        # The service's own tools compete with the caller's (protocol E.5).
        spec = spec.model_copy(update={"tools": toolbox.device_tools, "enable_plugin": False})
        search = False
    return Turn(
        prompt=prompt,
        spec=spec,
        thinking=asked.thinking,
        effort=asked.value,
        search=search,
        deadline=deadline,
        # Arguments and JSON are no prose: there a mark is dropped or is none.
        marks="keep" if toolbox.active else "drop" if spec.silent or request.response_format else "cite",
        system_prompt=toolbox.system_prompt,
    )
