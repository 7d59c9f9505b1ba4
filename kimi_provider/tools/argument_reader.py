"""One argument between tags, read while it arrives (protocol E.5).

Law: a value is passed on as it stands, with every space and line break, as soon as it can't be anything else than
text. A closing tag counts when what follows it can follow it, because text may hold such tags itself; if none ever
does, the first one was it.
"""

from __future__ import annotations

from typing import Any, Final

import regex

from .argument_text import ArgumentText
from .json_writer import ArgumentsWriter
from .markup import ENTITY, Ending, Markup, Source, Status
from .schemas import View

#: White space between a closing tag and what proves it. More of it proves it, too.
_GAP_CHARS: Final = 64


class ArgumentReader:
    """Reads the value of `key`, up to and with the tag that closes it.

    `view` is the whole call's, `given` the arguments that it has, this one included. `tag`: the one that the value
    stands in, if it is named like the argument; "" for a bare value.
    """

    def __init__(
        self,
        writer: ArgumentsWriter,
        key: str,
        view: View,
        markup: Markup,
        ending: Ending,
        *,
        tag: str | None,
        given: frozenset[str],
    ) -> None:
        self._text = ArgumentText(writer, key, view.member(key))
        self._properties = view.properties
        self._given = given
        self._markup = markup
        self._ending = ending
        self._tag = tag
        self._closed = False
        #: Since a closing tag that nothing has proved: pieces of the value, and all that was read behind it.
        self._behind: list[tuple[str, str]] | None = None
        self._since: list[str] = []

    def read(self, source: Source) -> Status:
        """Advance `source`: MORE or DONE."""
        while not self._closed:
            start = source.at
            watched = self._behind is not None
            status = self._step(source)
            if watched and self._behind is not None:
                self._since.append(source.text[start : source.at])
            if status is not None:
                return status
        return Status.DONE

    def _step(self, source: Source) -> Status | None:
        """Read one thing; MORE ends the reading for now."""
        if run := self._markup.value_run.match(source.text, source.at):
            source.at = run.end()
            self._add("sign" if "<" in run[0] else "add", run[0])
            return None
        if source.ended:
            return self._end_here(source) if source.final else Status.MORE
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

    def _close(self) -> None:
        self._text.end()
        self._closed = True

    def _end_here(self, source: Source) -> Status | None:
        """The text is over inside the value: it ends here, or at the first closing tag that nothing proved."""
        if self._behind is not None:
            source.put_back("".join(self._since))
            self._behind = None
            self._since = []
        self._close()
        return None

    def _closing(self, source: Source) -> Any:
        """Whether the value ends here: True when it did, "wait", or None."""
        if self._behind is not None and (other := source.attempt(self._markup.starts)) is not None:
            if other != "wait":
                return self._end_here(source) or True
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
            self._close()
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
        if self._tag != "":
            found = source.attempt(self._markup.parameter_end)
            if found is not None:
                return found if found == "wait" else found.end()
            found = source.attempt(self._markup.closing_tag)
            if found == "wait":
                return found
            if found is not None and found["tag"] == self._tag:
                return found.end()
            found = source.attempt(self._markup.parameter)
            if found == "wait":
                return found
            if found is not None and found["key"] in self._properties and found["key"] not in self._given:
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
            elif found is not None and (pattern is not self._markup.tag or found["tag"] in self._properties):
                return True
        return "wait" if waits else False

    def _add(self, how: str, piece: str) -> None:
        if self._behind is not None:
            self._behind.append((how, piece))
        elif how == "add":
            self._text.add(piece)
        elif how == "entity":
            self._text.entity(piece)
        else:
            self._text.sign(piece)
