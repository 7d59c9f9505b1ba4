"""Arguments between tags, read while they arrive: `<parameter name="path">a.txt</parameter>` (protocol E.5).

The tool's name is known already. Law: a value is passed on as it stands, with every space and line break, as soon as
it can't be anything else than text; values of other types wait for their end. A closing tag counts when what follows
it can follow it, because text may hold such tags itself; if none ever does, the first one was it.

The body may also be JSON, in an `<arguments>` tag or bare, or the bare value of a tool's only argument.
"""

from __future__ import annotations

import re
from typing import Any

import regex

from .argument_text import ArgumentText
from .calls import Calls, OpenCall
from .json_reader import JsonReader, Status
from .markup import ENTITY, Ending, Markup, Source
from .mending import mended
from .schemas import View
from .values import ArgumentsWriter

#: White space between a closing tag and what proves it. More of it proves it, too.
_GAP_CHARS = 64


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
        self._value: ArgumentText | None = None
        #: The tag that the open value stands in, if it is named like the argument; "" for a bare value.
        self._value_tag: str | None = None
        self._given: set[str] = set()
        #: The body makes no sense; it is passed over.
        self._unread = False
        #: Since a closing tag that nothing has proved: pieces of the value, and all that was read behind it.
        self._behind: list[tuple[str, str]] | None = None
        self._since: list[str] = []

    def read(self, source: Source) -> Status:
        """Advance `source`."""
        while True:
            if self._json is not None:
                status = self._json.read(source)
                if status is Status.MORE:
                    return status
                return self._json_ended(status)
            if self._value is not None:
                start = source.at
                watched = self._behind is not None
                more = self._read_value(source)
                if watched and self._behind is not None:
                    self._since.append(source.text[start : source.at])
                if more is not None:
                    return more
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
        trigger = self._markup.trigger_with(self._ending)
        while found := trigger.search(source.text, source.at):
            source.at = found.start()
            for pattern in (self._ending.own, self._markup.boundary):
                mark = source.attempt(pattern) if pattern is not None else None
                if mark == "wait":
                    return Status.MORE
                if isinstance(mark, regex.Match):
                    source.at = mark.end() if pattern is self._ending.own else source.at
                    return Status.BROKEN
            source.at += 1
        source.at = len(source.text)
        return Status.BROKEN if source.final else Status.MORE

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

    # --- values ---------------------------------------------------------------------------------------------------

    def _open_value(self, key: str, *, tag: str | None) -> None:
        assert self._writer is not None
        self._given.add(key)
        self._value_tag = tag
        self._value = ArgumentText(self._writer, key, self._view.member(key))

    def _close_value(self) -> None:
        assert self._value is not None
        self._value.end()
        self._value = None

    def _read_value(self, source: Source) -> Status | None:
        if run := self._markup.value_run.match(source.text, source.at):
            source.at = run.end()
            self._add("sign" if "<" in run[0] else "add", run[0])
            return None
        if source.ended:
            return self._value_at_end(source) if source.final else Status.MORE
        character = source.text[source.at]
        if character == "&":
            entity = source.attempt(ENTITY)
            if entity == "wait":
                return Status.MORE
            if isinstance(entity, regex.Match):
                source.at = entity.end()
                self._add("entity", entity[0])
                return None
        elif source.cut_off(self._markup.parameter_end, self._markup.boundary):
            source.at = len(source.text)
            return None
        else:
            closing = self._closing(source)
            if closing == "wait":
                return Status.MORE
            if closing is not None:
                return None
        source.at += 1
        self._add("sign" if character in "<&" else "add", character)
        return None

    def _value_at_end(self, source: Source) -> Status | None:
        """The text is over inside the value: it ends here, or at the first closing tag that nothing proved."""
        if self._behind is not None:
            source.put_back("".join(self._since))
            self._behind = None
            self._since = []
        self._close_value()
        return None

    def _closing(self, source: Source) -> Any:
        """Whether the value ends here: True when it did, "wait", or None."""
        if self._behind is not None and (other := source.attempt(self._markup.starts)) is not None:
            if other != "wait":
                return self._value_at_end(source) or True
            return other
        end = self._end_tag(source)
        if end is None or end == "wait":
            return end
        proof = self._proof(source, end)
        if proof == "wait":
            return proof
        if proof:
            if self._behind is not None:
                behind, self._behind, self._since = self._behind, None, []
                for how, piece in behind:
                    self._add(how, piece)
            self._close_value()
            source.at = end
            return True
        if self._behind is None:
            self._behind = []
            self._since = []
            tag = source.text[source.at : end]
            source.at = end
            self._add("sign", tag)
            return True
        return None

    def _end_tag(self, source: Source) -> Any:
        """Where a tag that may close the value ends. Without one, a further argument or the call's end closes it."""
        if self._value_tag != "":
            found = source.attempt(self._markup.parameter_end)
            if found is not None:
                return found if found == "wait" else found.end()
            found = source.attempt(self._markup.closing_tag)
            if found == "wait":
                return found
            if found is not None and found["tag"] == self._value_tag:
                return found.end()
            found = source.attempt(self._markup.parameter)
            if found == "wait":
                return found
            if found is not None and found["key"] in self._view.properties and found["key"] not in self._given:
                return source.at
        if self._ending.own is None:
            return None
        found = source.attempt(self._ending.own)
        return source.at if found is not None and found != "wait" else found

    def _proof(self, source: Source, end: int) -> Any:
        """Whether what follows `end` can follow a closed value: True, False or "wait"."""
        at = end
        if end == source.at:  # no closing tag: the tag that stands here must be what it seems
            found = source.attempt(self._markup.parameter, end)
            if isinstance(found, regex.Match):
                return True
            found = source.attempt(self._ending.own, end)
            assert isinstance(found, regex.Match)
            at = found.end()
        text, gap_end = source.text, at + _GAP_CHARS
        while at < min(len(text), gap_end) and text[at].isspace():
            at += 1
        if at == gap_end:
            return True
        if at == len(text):
            return True if source.final else "wait"
        waits = False
        for pattern in (self._ending.own, self._markup.parameter, self._markup.boundary, self._markup.tag):
            found = source.attempt(pattern, at) if pattern is not None else None
            if found == "wait":
                waits = True
            elif found is not None and (pattern is not self._markup.tag or found["tag"] in self._view.properties):
                return True
        return "wait" if waits else False

    def _add(self, how: str, piece: str) -> None:
        assert self._value is not None
        if self._behind is not None:
            self._behind.append((how, piece))
        elif how == "add":
            self._value.add(piece)
        elif how == "entity":
            self._value.entity(piece)
        else:
            self._value.sign(piece)
