"""What reading an answer costs: counted in lines executed and characters held, never in time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import json_repair
import pytest

from kimi_provider.tools import mending
from kimi_provider.tools.mending import mended

from . import corpus
from .corpus import toolbox

CODE = "def f(a, b):\n    return {'a': [1, 2], \"b\": a < b & 3}  # <Tested> &lt; [x]\n"


class Lines:
    """Counts executed lines of the package."""

    def __init__(self) -> None:
        self.count = 0

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if "kimi_provider" not in frame.f_code.co_filename:
            return None
        self.count += event == "line"
        return self.trace

    def of(self, run: Callable[[], None]) -> int:
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            run()
        finally:
            sys.settrace(before)
        return self.count


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


def cost(text: str, size: int) -> tuple[int, int]:
    """Lines executed, and characters copied because they were still undecided when more arrived."""
    parser = toolbox().parser()
    copied = 0

    def run() -> None:
        nonlocal copied
        for piece in pieces(text, size):
            parser.feed(piece)
            copied += len(parser._source.text) - parser._source.at
        parser.close()

    return Lines().of(run), copied


ANSWERS: dict[str, Callable[[int], str]] = {
    "prose": lambda n: "The quick fox; a Test of [lists], `code` and x < y.\n\n" * (n // 50),
    "one long text argument": lambda n: corpus.invoke([("Bash", {"command": CODE * (n // 80)})]),
    "one long JSON argument": lambda n: corpus.action([("Bash", {"command": CODE * (n // 80)})]),
    "escaped": lambda n: f'<invoke name="Bash"><parameter name="command">{"a &lt; b " * (n // 9)}',
    "broken JSON": lambda n: '<action>{"name":"Bash","arguments":{"command":"a "b" ' + "word " * (n // 5),
    "many calls": lambda n: corpus.action([("Read", {"path": "/a"})]) * (n // 70),
    "missing end tags": lambda n: '<invoke name="Bash"><parameter name="command">1</parameter>z' * (n // 60),
    "missing quotes": lambda n: '<action>{"name":"Bash","arguments":{"command":"x</action>' * (n // 60),
    "blanks in a tag": lambda n: "<invoke" + " " * n,
    "blanks behind a value": lambda n: corpus.invoke([("Bash", {"command": "x"})])[:-31] + " " * n,
    "blanks behind JSON": lambda n: corpus.bare_array([("Bash", {"command": "x"})]) + " " * n,
    "brackets": lambda n: "[" * n,
    "braces in a call": lambda n: "<action>" + "{" * n,
    "nesting in a call": lambda n: '<action>{"name":"Bash","arguments":{"command":' + '{"a":' * (n // 5),
    "openers": lambda n: "<action>" * (n // 8),
    "half tags": lambda n: "<inv" * (n // 4),
    "fences": lambda n: "```json\n" * (n // 8),
    "entities": lambda n: '<invoke name="Bash"><parameter name="command">' + "&" * n,
    "end tags in text": lambda n: corpus.action([("Bash", {"command": "</action>" * (n // 9)})]),
}


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("answer", ANSWERS)
def test_work_grows_no_faster_than_the_answer(answer: str, size: int) -> None:
    short, long = ANSWERS[answer](2_000), ANSWERS[answer](8_000)
    (few, copied), (many, copied_more) = cost(short, size), cost(long, size)
    growth = len(long) / len(short)
    assert many <= few * growth * 1.3 + 500
    assert copied_more <= copied * growth * 1.3 + 10_000


def test_plain_text_is_not_held() -> None:
    parser = toolbox().parser()
    for piece in pieces(ANSWERS["prose"](4_000), 1):
        parser.feed(piece)
        assert len(parser._source.text) - parser._source.at <= 12


@pytest.mark.parametrize("hostile", ['{"', '["', "{1 ", "{", "{,", '{"a":"b" ', "{'a':'b\"c'd'e"])
def test_mending_gives_up_on_what_would_take_forever(hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    read = mending._Metered.__getitem__

    def counted(self: mending._Metered, at: Any) -> str:
        nonlocal looks
        looks += 1
        return read(self, at)

    monkeypatch.setattr(mending._Metered, "__getitem__", counted)
    text = hostile * 20_000
    mended(text)
    # A few more are tried on the way out.
    assert 0 < looks <= min(mending._MAX_LOOKS, 2_000 + 8 * len(text)) + 100


@pytest.mark.parametrize(
    ("broken", "meant"),
    [
        ('{"a": "say "hi" now", "b": 1}', {"a": 'say "hi" now', "b": 1}),
        ("{a: 1, 'b': True,}", {"a": 1, "b": True}),
        ('{"a": 1e999}', {"a": None}),
        ('{"a": "' + 'x "y" ' * 2000, {"a": ('x "y" ' * 2000).rstrip()}),
    ],
)
def test_honest_slips_are_mended_as_the_library_does(broken: str, meant: dict[str, Any]) -> None:
    assert mended(broken) == meant or mended(broken) == json_repair.loads(broken)
