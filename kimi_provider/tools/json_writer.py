"""JSON that is read -> JSON text whose types fit a schema, passed on while it is read.

Law: what `take` has returned is never taken back, and is always the beginning of the final text; `finish` completes it
from a value that was repaired as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from .schemas import View, coerced
from .values import ValueBuilder


class _Frame:
    """An object or list that has been begun in the output."""

    __slots__ = ("count", "key", "keys", "view")

    def __init__(self, view: View, *, is_object: bool) -> None:
        self.view = view
        #: None in a list.
        self.keys: set[str] | None = set() if is_object else None
        self.key: str | None = None
        self.count = 0


class JsonWriter:
    """Steps -> JSON text by a schema."""

    def __init__(self, view: View) -> None:
        self._root = view
        self._out: list[str] = []
        self._frames: list[_Frame] = []
        #: A value that must be seen whole before it can be written with the right type.
        self._held: ValueBuilder | None = None
        #: What is out of the string that is open in the output.
        self._string: list[str] | None = None
        #: The innermost value has its key or comma out, but nothing else.
        self._announced = False
        self.begun = False
        self.complete = False

    def take(self) -> str:
        """What was written since the last time."""
        text = "".join(self._out)
        self._out.clear()
        return text

    # --- steps ------------------------------------------------------------------------------------------------

    def begin(self, bracket: str) -> None:
        """See Steps."""
        if self._held is None:
            view = self._next()
            if view.allows("object" if bracket == "{" else "array"):
                self._put(bracket)
                self._announced = False
                self._frames.append(_Frame(view, is_object=bracket == "{"))
                return
            self._held = ValueBuilder()
        self._held.begin(bracket)

    def key(self, name: str) -> None:
        """See Steps."""
        if self._held is not None:
            self._held.key(name)
            return
        frame = self._frames[-1]
        assert frame.keys is not None
        if name in frame.keys:  # JSON takes the last one, but the first is out already
            frame.key = None
            self._held = _Dropped()
            return
        frame.key = name

    def text_begin(self) -> None:
        """See Steps."""
        if self._held is None:
            view = self._next()
            if view.allows("string") and not view.fixed:
                self._put('"')
                self._string = []
                return
            self._held = ValueBuilder()
        self._held.text_begin()

    def text(self, piece: str) -> None:
        """See Steps."""
        if self._held is not None:
            self._held.text(piece)
        elif self._string is not None:
            self._put(encode_basestring(piece)[1:-1])
            self._string.append(piece)

    def text_end(self) -> None:
        """See Steps."""
        if self._held is not None:
            self._held.text_end()
            self._settle()
        else:
            self._put('"')
            self._string = None
            self._value_done()

    def scalar(self, value: Any) -> None:
        """See Steps."""
        if self._held is not None:
            self._held.scalar(value)
            self._settle()
        else:
            view = self._next()
            self._write(self._fitting(value, view))

    def end(self) -> None:
        """See Steps."""
        if self._held is not None:
            self._held.end()
            self._settle()
            return
        frame = self._frames.pop()
        self._put("]" if frame.keys is None else "}")
        self._value_done()

    # --- the end ------------------------------------------------------------------------------------------------

    def finish(self, value: Any) -> None:
        """Complete the text so that it says `value`, as far as what is out allows."""
        if self.complete:
            return
        self._held = None
        value = self._fitting(value, self._root)
        self._put(self._rest(0, value) if self.begun else _dumped(value))
        self.complete = True

    def _rest(self, depth: int, value: Any) -> str:
        """What is missing from the frame at `depth` on."""
        if depth == len(self._frames):
            return self._rest_of_string(value)
        frame = self._frames[depth]
        inner = depth + 1 < len(self._frames) or self._announced
        out: list[str] = []
        if frame.keys is not None:
            members = value if isinstance(value, Mapping) else {}
            if inner:
                out.append(self._rest(depth + 1, members.get(frame.key or "")))
            for key, below in members.items():
                if key not in frame.keys:
                    out.append(f"{',' if frame.count or out else ''}{encode_basestring(str(key))}:{_dumped(below)}")
                    frame.count += 1
            return "".join(out) + "}"
        elements = value if isinstance(value, list) else []
        at = frame.count
        if inner:
            out.append(self._rest(depth + 1, elements[at - 1] if at <= len(elements) else None))
        for below in elements[at:]:
            out.append(f"{',' if frame.count else ''}{_dumped(below)}")
            frame.count += 1
        return "".join(out) + "]"

    def _rest_of_string(self, value: Any) -> str:
        if self._string is None:
            return _dumped(value)
        shown = "".join(self._string)
        missing = value[len(shown) :] if isinstance(value, str) and value.startswith(shown) else ""
        return encode_basestring(missing)[1:]

    # --- output -------------------------------------------------------------------------------------------------

    def _next(self) -> View:
        """Write what goes before the next value; return its place."""
        self.begun = True
        self._announced = True
        if not self._frames:
            return self._root
        frame = self._frames[-1]
        comma = "," if frame.count else ""
        frame.count += 1
        if frame.keys is None:
            self._put(comma)
            return frame.view.item()
        key = frame.key or ""
        frame.keys.add(key)
        self._put(f"{comma}{encode_basestring(key)}:")
        return frame.view.member(key)

    def _settle(self) -> None:
        """Write the held value once it is complete."""
        held = self._held
        if held is None or not held.complete:
            return
        self._held = None
        if isinstance(held, _Dropped):
            return
        frame = self._frames[-1] if self._frames else None
        if frame is None:
            view = self._root
        else:
            view = frame.view.item() if frame.keys is None else frame.view.member(frame.key or "")
        self._write(self._fitting(held.value, view))

    def _fitting(self, value: Any, view: View) -> Any:
        return coerced(value, view)

    def _write(self, value: Any) -> None:
        self._put(_dumped(value))
        self._value_done()

    def _value_done(self) -> None:
        self._announced = False
        self.complete = not self._frames

    def _put(self, text: str) -> None:
        self._out.append(text)


class ArgumentsWriter(JsonWriter):
    """The JSON text of one call's arguments: always an object."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        super().__init__(View({"type": "object", **schema}))

    def _fitting(self, value: Any, view: View) -> Any:
        value = coerced(value, view)
        return {} if view is self._root and not isinstance(value, Mapping) else value


class _Dropped(ValueBuilder):
    """The value of a key that was there before."""


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
