"""JSON that names its tools, step by step -> calls (protocol E.5).

Objects, lists of them and wrappers around them are understood; a name and arguments have many keys. Arguments are
passed on while they arrive when the name stands before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..dialects import Families
from .calls import Calls
from .json_writer import ArgumentsWriter
from .values import Steps, ValueBuilder


class _Named:
    """A call object whose members are being read."""

    __slots__ = ("arguments", "begun", "extras", "name", "wraps")

    def __init__(self) -> None:
        self.name: str | None = None
        self.arguments: Any = None
        self.extras: dict[str, Any] = {}
        #: It was passed to `Calls`, accepted or not.
        self.begun = False
        #: It is no call, but holds calls.
        self.wraps = False


class CallSteps:
    """Steps of one body; `repair` takes over when its JSON is broken."""

    def __init__(self, calls: Calls, families: Families) -> None:
        self._calls = calls
        self._families = families
        #: For each open bracket the call that it belongs to; None for lists and wrappers.
        self._levels: list[_Named | None] = []
        self._role: Literal["name", "arguments", "wrapper", "extra"] = "extra"
        self._key = ""
        self._sink: Steps | None = None
        self._builder: ValueBuilder | None = None
        self._writer: ArgumentsWriter | None = None
        #: How many calls were seen to their end, and whether one is begun but not ended.
        self.ended = 0
        self.in_call = False

    # --- steps ------------------------------------------------------------------------------------------------

    def begin(self, bracket: str) -> None:
        """See Steps."""
        if self._sink is not None:
            self._sink.begin(bracket)
            return
        call = self._levels[-1] if self._levels else None
        if call is not None and self._role in ("arguments", "extra"):
            self._value_sink(call).begin(bracket)
        elif call is not None and self._role == "name" and bracket == "{":
            self._levels.append(call)  # {"function": {"name": ..., "arguments": ...}}
        else:
            self._levels.append(_Named() if bracket == "{" else None)

    def key(self, name: str) -> None:
        """See Steps."""
        if self._sink is not None:
            self._sink.key(name)
            return
        call = self._levels[-1]
        assert call is not None
        self._key = name
        if name in self._families.name_keys and call.name is None:
            self._role = "name"
        elif name in self._families.argument_keys and not call.begun and call.arguments is None:
            self._role = "arguments"
        elif name in self._families.wrapper_keys:
            self._role = "wrapper"
            call.wraps = True
        else:
            self._role = "extra"

    def text_begin(self) -> None:
        """See Steps."""
        self._current().text_begin()

    def text(self, piece: str) -> None:
        """See Steps."""
        self._current().text(piece)

    def text_end(self) -> None:
        """See Steps."""
        self._current().text_end()
        self._settle()

    def scalar(self, value: Any) -> None:
        """See Steps."""
        self._current().scalar(value)
        self._settle()

    def end(self) -> None:
        """See Steps."""
        if self._sink is not None:
            self._sink.end()
            self._settle()
            return
        call = self._levels.pop()
        if call is None or call.wraps or call in self._levels:
            return
        if not call.begun:
            self._begin_whole(call.name, call.arguments, call.extras)
        if self.in_call:
            self._calls.end()
            self.in_call = False
        self.ended += call.begun or call.name is not None

    # --- repair -------------------------------------------------------------------------------------------------

    def repair(self, value: Any) -> None:
        """Take what is missing from the whole body, repaired."""
        found = list(_calls_in(value, self._families))[self.ended :]
        if self.in_call and found:
            _, arguments, extras = found.pop(0)
            if self._writer is not None:
                self._writer.finish(arguments if arguments is not None else extras)
        if self.in_call:
            self._calls.end()
        elif self._begun_refused():
            found = found[1:]
        elif not found and not self.ended:
            self._calls.refuse("", "malformed")
        for name, arguments, extras in found:
            self._begin_whole(name, arguments, extras)
            self._calls.end()

    def _begun_refused(self) -> bool:
        call = self._levels[-1] if self._levels else None
        return call is not None and call.begun

    # --- inside -------------------------------------------------------------------------------------------------

    def _current(self) -> Steps:
        if self._sink is not None:
            return self._sink
        call = self._levels[-1] if self._levels else None
        return self._value_sink(call if call is not None else _Named())

    def _value_sink(self, call: _Named) -> Steps:
        """Where the value that begins now goes."""
        if self._role == "arguments" and call.name is not None:
            call.begun = True
            if (accepted := self._calls.begin(call.name)) is not None:
                self.in_call = True
                self._sink = self._writer = accepted.writer
                return accepted.writer
        self._sink = self._builder = ValueBuilder()
        return self._builder

    def _settle(self) -> None:
        if self._builder is not None:
            if not self._builder.complete:
                return
            value, self._builder, self._sink = self._builder.value, None, None
            call = self._levels[-1] if self._levels else None
            if call is None:
                return
            if self._role == "name" and isinstance(value, str):
                call.name = value
            elif self._role == "arguments" and not call.begun:
                call.arguments = value
            elif not call.begun:
                call.extras[self._key] = value
        elif self._writer is not None and self._writer.complete:
            self._sink = self._writer = None

    def _begin_whole(self, name: str | None, arguments: Any, extras: Mapping[str, Any]) -> None:
        if name is None and len(extras) == 1:  # {"read": {"path": ...}}
            ((key, value),) = extras.items()
            if self._calls.names.resolve(key) is not None:
                name, arguments = key, value
        if name is None:
            self._calls.refuse("", "malformed")
            return
        if (accepted := self._calls.begin(name)) is None:
            return
        self.in_call = True
        if arguments is None:
            known = accepted.view.properties
            arguments = {key: value for key, value in extras.items() if key in known}
        accepted.writer.finish(arguments)


def _calls_in(value: Any, families: Families, depth: int = 0) -> list[tuple[str | None, Any, Mapping[str, Any]]]:
    """Name, arguments and other members of each call in a repaired value."""
    if depth > 8:
        return []
    if isinstance(value, list):
        return [call for below in value for call in _calls_in(below, families, depth + 1)]
    if not isinstance(value, Mapping):
        return []
    for key, below in value.items():
        if key in families.wrapper_keys and isinstance(below, list | Mapping):
            return _calls_in(below, families, depth + 1)
        if key in families.name_keys and isinstance(below, Mapping):
            return _calls_in(below, families, depth + 1)
    name = next((v for k, v in value.items() if k in families.name_keys and isinstance(v, str)), None)
    named = [k for k in value if k in families.argument_keys]
    extras = {k: v for k, v in value.items() if k not in families.name_keys and k not in named[:1]}
    return [(name, value[named[0]] if named else None, extras)]
