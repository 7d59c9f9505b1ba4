"""The calls of one answer: which are accepted, under which name and id, and what of them was not yet passed on.

Knows names and schemas, not spellings. A call is announced with its first delta and its arguments only ever grow. What
can't be accepted becomes a `RefusedCall`, for one round of repair with the model, never a delta.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..events import Event, TextDelta, ToolCallDelta, merged
from ..request import ToolChoice, ToolSpec
from .json_writer import ArgumentsWriter
from .names import Names
from .schemas import View


def new_call_id() -> str:
    """An id in the form that every SDK takes."""
    return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedCall:
    """A call that the model wrote but nobody can make. `name` is as written."""

    name: str
    reason: Literal["unknown_tool", "not_allowed", "malformed"]


@dataclass(slots=True)
class OpenCall:
    """A call whose arguments are being read."""

    index: int
    id: str
    name: str
    view: View
    writer: ArgumentsWriter
    announced: bool = False


class Calls:
    """Collects the events of one answer."""

    def __init__(
        self,
        specs: Sequence[ToolSpec],
        names: Names,
        choice: ToolChoice,
        *,
        parallel: bool,
        first_index: int = 0,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self.names = names
        self._specs = {spec.name: spec for spec in specs}
        self._allowed = frozenset(choice.names or self._specs)
        self._parallel = parallel
        self._new_id = new_id
        self._next_index = first_index
        self._events: list[Event] = []
        self._open: OpenCall | None = None
        self.refused: list[RefusedCall] = []
        self.count = 0

    @property
    def full(self) -> bool:
        """No further call is wanted."""
        return not self._parallel and self.count > 0 and self._open is None

    @property
    def seen(self) -> bool:
        """The model has tried to call something."""
        return self.count > 0 or bool(self.refused)

    def view(self, name: str) -> View | None:
        """The schema of the tool that the model means by `name`."""
        client = self.names.resolve(name)
        spec = self._specs.get(client) if client is not None else None
        return View(spec.parameters) if spec is not None else None

    def begin(self, name: str) -> OpenCall | None:
        """Accept a call; None when it was refused."""
        client = self.names.resolve(name)
        if client is None or client not in self._specs:
            self.refuse(name, "unknown_tool")
            return None
        if client not in self._allowed:
            self.refuse(name, "not_allowed")
            return None
        if self.count and not self._parallel:
            return None
        parameters = self._specs[client].parameters
        call = OpenCall(
            index=self._next_index,
            id=self._new_id(),
            name=client,
            view=View(parameters),
            writer=ArgumentsWriter(parameters),
        )
        self._next_index += 1
        self.count += 1
        self._open = call
        return call

    def refuse(self, name: str, reason: Literal["unknown_tool", "not_allowed", "malformed"]) -> None:
        """Note a call that can't be made."""
        self.refused.append(RefusedCall(name=name[:128], reason=reason))

    def end(self) -> None:
        """The open call is complete."""
        if self._open is not None:
            if not self._open.writer.complete:
                self._open.writer.finish({})
            self._flush()
            self._open = None

    def text(self, text: str) -> None:
        """Text of the answer."""
        if text:
            self._flush()
            self._events.append(TextDelta(text))

    def take(self) -> list[Event]:
        """Events since the last time, neighbouring texts joined."""
        self._flush()
        events, self._events = merged(self._events), []
        return events

    def _flush(self) -> None:
        call = self._open
        if call is None:
            return
        arguments = call.writer.take()
        if not call.announced:
            call.announced = True
            self._events.append(ToolCallDelta(index=call.index, id=call.id, name=call.name, arguments=arguments))
        elif arguments:
            self._events.append(ToolCallDelta(index=call.index, arguments=arguments))
