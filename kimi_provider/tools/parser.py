"""An answer's text -> text and calls, while it arrives.

Law: text that can't be the beginning of a call goes out at once; a call's name and arguments go out as soon as they
are sure; no piece of a tag is ever shown. The same events result however the text was cut, apart from where deltas are
cut, and each character costs the same. Every family of protocol E.5 is understood, whatever dialect was asked for.

Sans-I/O: `feed` and `close` return events, `outcome` tells what the model did wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from ..dialects import Families
from ..events import Event
from ..request import ANY_TOOL, ToolChoice, ToolSpec
from .calls import Calls, RefusedCall, new_call_id
from .json_calls import CallSteps
from .json_reader import JsonReader
from .markup import Ending, Source, Status, markup
from .mending import mended
from .names import Names
from .parameter_reader import ParameterReader

#: Text is taken in pieces of this size, so that no step copies more than that.
_PIECE_CHARS = 8192
#: What a model closes its turn with, as far as it has come: white space, closing tags, native tokens, a fence.
_CLOSING = regex.compile(r"(?:[\s`]|</[\w:.-]{0,40}>|<\|\w{0,40}\|>)*+(?:</?[\w:.-]{0,40}|<\|\w{0,40}\|?)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of the calls of one answer. `missing`: a call was required and none was made."""

    calls: int
    refused: tuple[RefusedCall, ...]
    missing: bool

    @property
    def needs_repair(self) -> bool:
        """Nothing can be done with this answer, but the model could be asked again."""
        return self.calls == 0 and (self.missing or bool(self.refused))


class _JsonCalls:
    """Body of a family whose JSON names the tool."""

    def __init__(self, calls: Calls, families: Families, reader: Callable[[CallSteps], JsonReader]) -> None:
        self._steps = CallSteps(calls, families)
        self._json = reader(self._steps)

    def read(self, source: Source) -> Status:
        status = self._json.read(source)
        if status is Status.BROKEN:
            self._steps.repair(mended(self._json.raw))
        return status


class ToolParser:
    """Feed it the text of one answer in order."""

    def __init__(
        self,
        specs: Sequence[ToolSpec],
        names: Names,
        families: Families,
        *,
        choice: ToolChoice = ANY_TOOL,
        parallel: bool = True,
        first_index: int = 0,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._markup = markup(families)
        self._required = choice.mode == "required"
        self._calls = Calls(specs, names, choice, parallel=parallel, first_index=first_index, new_id=new_id)
        self._source = Source()
        self._body: _JsonCalls | ParameterReader | None = None
        #: The opening tag of the body, in case it turns out to be text.
        self._opening = ""
        #: White space between it and the body; None once the body has begun.
        self._gap: list[str] | None = None
        #: A call stands in a code fence, whose end must go with it.
        self._fenced = False
        #: Only white space since the last line break.
        self._at_line_start = True
        #: White space that is shown only if text follows: before tags, and behind the last one.
        self._blanks: list[str] = []
        self._blanks_behind: list[str] | None = None
        self._shown = False
        #: What follows when no further call is wanted.
        self._behind = ""

    @property
    def stopped(self) -> bool:
        """Nothing that follows matters: behind the one call that was allowed the model goes on."""
        return self._calls.full and _CLOSING.fullmatch(self._behind) is None

    @property
    def outcome(self) -> Outcome:
        """Valid after `close`."""
        calls = self._calls
        return Outcome(calls=calls.count, refused=tuple(calls.refused), missing=self._required and not calls.count)

    def feed(self, text: str) -> list[Event]:
        """Events that are sure now: TextDelta and ToolCallDelta."""
        for at in range(0, len(text), _PIECE_CHARS):
            self._source.add(text[at : at + _PIECE_CHARS])
            self._advance()
        return self._calls.take()

    def close(self) -> list[Event]:
        """The rest, at the end of the answer."""
        self._source.final = True
        self._advance()
        if not self._calls.seen:
            self._calls.text(self._take_blanks())
        return self._calls.take()

    def _advance(self) -> None:
        source = self._source
        while not self._calls.full:
            if self._body is None:
                if not self._text(source):
                    return
                continue
            if self._gap is not None and not self._skip_gap(source, self._gap):
                return
            status = self._body.read(source)
            if status is Status.MORE:
                return
            if status is Status.NOTHING:
                self._nothing(source)
            self._body = None
        if not self.stopped:
            self._behind += source.text[source.at :]
        source.at = len(source.text)

    def _skip_gap(self, source: Source, gap: list[str]) -> bool:
        start = source.at
        more = source.skip_blanks()
        gap.append(source.text[start : source.at])
        if not more and not source.final:
            return False
        self._opening += "".join(gap)
        self._gap = None
        return True

    # --- text -----------------------------------------------------------------------------------------------------

    def _text(self, source: Source) -> bool:
        """Pass text on up to the next call; False when more is needed."""
        at = source.at
        look = self._markup.opening_after_call if self._calls.seen else self._markup.opening
        while found := self._markup.trigger.search(source.text, at):
            if found.start() > at:
                self._show(source.text[at : found.start()])
                source.at = at = found.start()
            if self._fenced and self._calls.seen and source.text[at] == "`":
                if source.text.startswith("```", at):
                    source.at = at + 3
                    self._fenced = False
                    return True
                if "```".startswith(source.text[at : at + 3]) and not source.final:
                    return False
            if source.final and self._cut_off(source):
                source.at = len(source.text)
                return False
            opening = self._opening_at(source, look)
            if opening == "wait":
                return False
            if opening is not None and self._open(source, opening):
                return True
            self._show(source.text[at])
            source.at = at = at + 1
        self._show(source.text[at:])
        source.at = len(source.text)
        return False

    def _opening_at(self, source: Source, look: Any) -> Any:
        """The tag here, "wait" or None. A mere wrapper may still turn out to begin a call: `<tool>Read</tool>`."""
        found = source.attempt(look)
        if isinstance(found, regex.Match) and (found["t"] or found["noise"]):
            begin = found.end("fence") if found["fence"] else source.at
            if source.attempt(self._markup.starts, begin) == "wait":
                return "wait"
        return found

    def _cut_off(self, source: Source) -> bool:
        """Whether the answer ends in the middle of a tag, which is not to be seen."""
        start = source.at
        source.at = self._markup.fence.match(source.text, start).end()
        # Behind a call even a mere "<" is the beginning of a tag.
        short_chars = {"short_chars": 0} if self._calls.seen else {}
        found = source.cut_off(self._markup.boundary, **short_chars)
        source.at = start
        return found

    def _show(self, text: str) -> None:
        if not text:
            return
        line = text.rpartition("\n")
        if line[1] or self._at_line_start:
            self._at_line_start = not line[2].strip()
        rest = text.rstrip()
        if rest:
            blanks = self._take_blanks()
            if self._shown or not self._calls.seen:
                self._calls.text(blanks)
            else:
                rest = rest.lstrip()
            self._shown = True
            self._calls.text(rest)
            text = text[len(text.rstrip()) :]
        if text:
            (self._blanks if self._blanks_behind is None else self._blanks_behind).append(text)

    def _take_blanks(self) -> str:
        blanks = "".join((*self._blanks, *(self._blanks_behind or ())))
        self._blanks, self._blanks_behind = [], None
        return blanks

    # --- calls ----------------------------------------------------------------------------------------------------

    def _open(self, source: Source, found: Any) -> bool:
        """Begin what the tag opens; False when it is text."""
        markup_, families, calls = self._markup, self._markup.families, self._calls
        groups = found.groupdict()
        fenced = bool(groups.get("fence"))
        start, end = source.at, found.end()
        if groups["t"] is not None:
            tag = groups["tag"]
            if not self._at_line_start or tag.casefold() in families.plain_tags or calls.view(tag) is None:
                return False
            self._body = ParameterReader(calls, tag, markup_, markup_.bare_end, tag=tag)
        elif groups["bare"] is not None:
            if calls.names.resolve(groups["name"]) is None:
                return False
            end = found.start("body")
            self._body = self._json_calls(markup_.fenced_end if fenced else markup_.bare_end)
            fenced = False
        elif groups["noise"] is not None or groups.get("closing") is not None:
            self._body = None
        else:
            kind = next(
                key for key, value in groups.items() if value is not None and key[0] in "nj" and key[1:].isdecimal()
            )
            number = int(kind[1:])
            if kind[0] == "n":
                self._body = ParameterReader(calls, groups["name"], markup_, markup_.named_ends[number])
            else:
                self._body = self._json_calls(markup_.json_ends[number])
        self._fenced = self._fenced or fenced
        self._opening = source.text[start:end]
        self._gap = []
        self._blanks_behind = []
        source.at = end
        return True

    def _json_calls(self, ending: Ending) -> _JsonCalls:
        return _JsonCalls(
            self._calls,
            self._markup.families,
            lambda steps: JsonReader(steps, self._markup, ending, several=True),
        )

    def _nothing(self, source: Source) -> None:
        """The opening was no call's: a tag around other calls goes, anything else is text."""
        rest = self._markup.boundary.fullmatch(source.text, source.at, partial=True)
        cut_off = source.final and rest is not None
        if cut_off or isinstance(source.attempt(self._markup.boundary), regex.Match):
            return
        self._show(self._opening)
