"""Arguments between tags, read while they arrive: `<parameter name="path">a.txt</parameter>` (protocol E.5).

The tool's name is known already. Law: what stands between two values is a tag that opens one, the call's end, or
nothing that counts; how far a value goes is `argument_reader`'s. The body may also be JSON, in an `<arguments>` tag or
bare, or the bare value of a tool's only argument. One that makes no sense is refused and passed over.
"""

from __future__ import annotations

import re
from typing import Any

from .argument_reader import ArgumentReader
from .calls import Calls, OpenCall
from .json_reader import JsonReader
from .json_writer import ArgumentsWriter
from .markup import Ending, Markup, Source, Status
from .mending import mended
from .schemas import View


class ParameterReader:
    """Reads the body of a call of `name` up to `ending`. `tag`: the tool's name was the tag itself."""

    def __init__(self, calls: Calls, name: str, markup: Markup, ending: Ending, *, tag: str | None = None) -> None:
        self._calls = calls
        self._name = name
        self._markup = markup
        self._ending = Ending(f"</{re.escape(tag)}>") if tag is not None else ending
        self._is_tag = tag is not None
        self._view = calls.view(name) or View({})
        self._call: OpenCall | None = None
        #: Takes the arguments, of a refused call too.
        self._writer: ArgumentsWriter | None = None
        self._json: JsonReader | None = None
        self._value: ArgumentReader | None = None
        self._given: set[str] = set()
        #: The body makes no sense; it is passed over.
        self._unread = False

    def read(self, source: Source) -> Status:
        """Advance `source`."""
        while True:
            if self._json is not None:
                status = self._json.read(source)
                if status is Status.MORE:
                    return status
                return self._json_ended(status)
            if self._value is not None:
                status = self._value.read(source)
                if status is Status.MORE:
                    return status
                self._value = None
                continue
            status_or_none = self._pass_over(source) if self._unread else self._between(source)
            if status_or_none is not None:
                return status_or_none

    # --- between values -------------------------------------------------------------------------------------------

    def _between(self, source: Source) -> Status | None:
        if not source.skip_blanks():
            return self._done() if source.final else Status.MORE
        character = source.text[source.at]
        if character in "<[" or character == self._ending.first:
            for pattern, take in (
                (self._ending.own, self._take_end),
                (self._markup.parameter, self._take_parameter),
                (self._markup.arguments, self._take_arguments),
                (self._markup.boundary, self._take_boundary),
                (self._markup.tag, self._take_tag),
            ):
                found = source.attempt(pattern) if pattern is not None else None
                if found == "wait":
                    return Status.MORE
                if found is not None and (outcome := take(source, found)) is not None:
                    return outcome if isinstance(outcome, Status) else None
            if source.cut_off(self._markup.parameter, self._markup.tag):
                source.at = len(source.text)
                return None
        if self._writer is not None:
            return self._done()
        only = self._only_text()
        if character == "`" and only is None and not source.final and len(source.text) - source.at < len("```"):
            return Status.MORE
        if character == "{" or (only is None and source.text.startswith("```", source.at)):
            self._begin_json()
            return None
        if only is not None:
            self._begin()
            self._open_value(only, tag="")
            return None
        return self._unreadable()

    def _take_end(self, source: Source, found: Any) -> Status:
        source.at = found.end()
        return self._done()

    def _take_boundary(self, source: Source, found: Any) -> Status:
        """Something that belongs to another call: the end tag is missing."""
        return self._done()

    def _take_parameter(self, source: Source, found: Any) -> bool:
        source.at = found.end()
        self._begin()
        self._open_value(found["key"], tag=None)
        return True

    def _take_arguments(self, source: Source, found: Any) -> bool | None:
        if self._writer is not None or found[0].strip("<>") in self._view.properties:
            return None
        source.at = found.end()
        return True

    def _take_tag(self, source: Source, found: Any) -> bool | None:
        if found["tag"] not in self._view.properties:
            return None
        source.at = found.end()
        self._begin()
        self._open_value(found["tag"], tag=found["tag"])
        return True

    def _only_text(self) -> str | None:
        """The one argument whose bare value may be the whole body."""
        keys = self._view.required or self._view.properties
        if len(keys) == 1 and self._view.member(keys[0]).allows("string"):
            return keys[0]
        return None

    def _unreadable(self) -> Status | None:
        if self._is_tag:
            return Status.NOTHING
        self._calls.refuse(self._name, "malformed")
        self._unread = True
        return None

    def _pass_over(self, source: Source) -> Status:
        """Up to the end tag, or whatever can't be part of the body."""
        found = source.find(self._markup.trigger_with(self._ending), self._markup.ends_with(self._ending))
        if found == "wait" or (found is None and not source.final):
            return Status.MORE
        if found is not None and found.re is self._ending.own:
            source.at = found.end()
        return Status.BROKEN

    # --- the call -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._writer is None:
            self._call = self._calls.begin(self._name)
            self._writer = self._call.writer if self._call is not None else ArgumentsWriter({})
            self._writer.begin("{")

    def _done(self) -> Status:
        self._begin()
        assert self._writer is not None
        if self._json is None:
            self._writer.end()
        if self._call is not None:
            self._calls.end()
        return Status.DONE

    def _begin_json(self) -> None:
        self._call = self._calls.begin(self._name)
        self._writer = self._call.writer if self._call is not None else ArgumentsWriter({})
        self._json = JsonReader(self._writer, self._markup, self._ending, several=False)

    def _json_ended(self, status: Status) -> Status:
        assert self._json is not None
        assert self._writer is not None
        if status is not Status.DONE:
            self._writer.finish(mended(self._json.raw))
        return self._done()

    def _open_value(self, key: str, *, tag: str | None) -> None:
        assert self._writer is not None
        self._given.add(key)
        self._value = ArgumentReader(
            self._writer, key, self._view, self._markup, self._ending, tag=tag, given=frozenset(self._given)
        )
