"""What every API in front of the gateway does, in words of none of them: a question in, an answer out.

The tests speak only these values. A surface is one class: it says a question in its official SDK's own types, reads the
SDK's answer back, and asserts on the way what its API promises about every answer (one id, one finish, usage).
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

Finish = Literal["stop", "length", "content_filter"]

_URL = re.compile(r"https?://[^\s)\]>\"]+")


@dataclass(frozen=True, kw_only=True)
class File:
    name: str
    media_type: str
    content: bytes

    @property
    def is_image(self) -> bool:
        return self.media_type.startswith("image/")

    @property
    def base64(self) -> str:
        return base64.b64encode(self.content).decode()

    @property
    def data_url(self) -> str:
        return f"data:{self.media_type};base64,{self.base64}"


@dataclass(frozen=True, kw_only=True)
class Turn:
    role: Literal["user", "assistant"]
    text: str
    files: tuple[File, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """A whole conversation: the last turn is the one to answer."""

    turns: tuple[Turn, ...]
    model: str = "kimi"
    system: str = ""


def asking(text: str = "Weather in Oslo?", *files: File, model: str = "kimi", system: str = "") -> Question:
    """A conversation of one turn."""
    return Question(turns=(Turn(role="user", text=text, files=files),), model=model, system=system)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """In tokens; `completion` has the thinking in it."""

    prompt: int
    completion: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, or a piece of one; pieces are added up in order."""

    text: str = ""
    thinking: str = ""
    finish: Finish | None = None
    #: Addresses that the API tells apart from the text.
    sources: tuple[str, ...] = ()
    usage: Usage | None = None

    def __add__(self, piece: Answer) -> Answer:
        assert self.finish is None or piece.finish is None, "finished twice"
        assert self.usage is None or piece.usage is None, "usage was told twice"
        return Answer(
            text=self.text + piece.text,
            thinking=self.thinking + piece.thinking,
            finish=self.finish or piece.finish,
            sources=(*self.sources, *piece.sources),
            usage=self.usage or piece.usage,
        )

    @property
    def urls(self) -> set[str]:
        """All addresses a reader sees, wherever the API puts them."""
        return {*self.sources, *_URL.findall(self.text)}


@dataclass(kw_only=True)
class Failed(Exception):
    """An error as the API words it. `status` is None where an error inside a stream has no place for one."""

    status: int | None
    type: str
    message: str


class Surface(Protocol):
    """One API with its official SDK; every error is `Failed`."""

    name: str
    #: The API's own word for an error, by HTTP status.
    error_types: Mapping[int, str]

    async def whole(self, question: Question) -> Answer:
        """The answer in one response."""

    def pieces(self, question: Question) -> AsyncGenerator[Answer, None]:
        """The answer as it comes. Closing it hangs up."""

    async def close(self) -> None:
        """Close the connections."""


async def ask(surface: Surface, question: Question, *, stream: bool) -> Answer:
    """The whole answer, the one way or the other; finished and with usage, or `Failed`."""
    if stream:
        answer = Answer()
        async with aclosing(surface.pieces(question)) as pieces:
            async for piece in pieces:
                answer += piece
    else:
        answer = await surface.whole(question)
    assert answer.finish, "the answer has no end"
    assert answer.usage, "the answer has no usage"
    return answer
