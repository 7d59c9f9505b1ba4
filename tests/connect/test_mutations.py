"""Broken streams: only KimiErrors or a proper end, in bounded time; and nothing in the decoder that nothing reaches."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kimi_provider import protocols
from kimi_provider.errors import KimiError
from kimi_provider.events import Event, Finished, TextDelta, ThinkingDelta, merged
from kimi_provider.protocols.connect.wire import ChatDecoder

from .corpus import mutations, originals
from .frames import UPSTREAM, decode

MUTATIONS = 100_000
COMPARED = 10_000
COVERED = 6_000

#: Streams worth cutting at every byte.
SHORT_BYTES = 6_000

#: What must be reached to the last branch.
DECODER = (*(f"connect/{name}" for name in ("envelope", "wire", "reducer", "blocks", "answer")), "citations", "sources")


@pytest.mark.timeout(900)  # many; none of them may hang
def test_nothing_but_kimi_errors_and_proper_ends() -> None:
    ended = failed = 0
    for chunks in mutations(MUTATIONS):
        events, error = decode(chunks)
        finishes = sum(isinstance(event, Finished) for event in events)
        if error is None:
            assert finishes == 1
            assert isinstance(events[-1], Finished)
            ended += 1
        else:
            assert finishes == 0
            failed += 1
        spoken = sum(len(event.text) for event in events if isinstance(event, TextDelta | ThinkingDelta))
        assert spoken <= sum(map(len, chunks))
    # The mutations are neither all harmless nor all fatal.
    assert ended > MUTATIONS // 20
    assert failed > MUTATIONS // 20


class Plodder(ChatDecoder):
    """The decoder without its shortcut: no block ever counts as growing."""

    def __init__(self) -> None:
        super().__init__(UPSTREAM)
        self.answer._note = lambda block, *, simple: None


def test_the_shortcut_changes_nothing() -> None:
    for chunks in [*([stream] for stream in originals()), *mutations(COMPARED, seed=7)]:
        decoder = Plodder()
        events: list[Event] = []
        error: type[KimiError] | None = None
        try:
            for chunk in chunks:
                for event in decoder.feed(chunk):
                    events.append(event)
            for event in decoder.close():
                events.append(event)
        except KimiError as exc:
            error = type(exc)
        assert decode(chunks) == (merged(events), error)


@pytest.mark.parametrize("stream", [stream for stream in originals() if len(stream) < SHORT_BYTES])
def test_the_cut_changes_nothing(stream: bytes) -> None:
    whole = decode([stream])
    assert decode(stream[at : at + 1] for at in range(len(stream))) == whole
    for at in range(0, len(stream), 3):
        assert decode([stream[:at], stream[at:]]) == whole


_RUN = """
import json, sys
import coverage
measured = coverage.Coverage(branch=True, data_file=None, include=json.loads(sys.argv[1]), config_file=False)
measured.start()
from tests.connect.corpus import mutations, originals
from tests.connect.frames import UPSTREAM, decode
from kimi_provider.protocols import Turn
from kimi_provider.protocols.citations import CitationResolver
from kimi_provider.protocols.connect.wire import chat_body
from kimi_provider.protocols.sources import Sources
for stream in originals():
    decode([stream])
    if len(stream) < 6_000:
        decode(stream[at : at + 1] for at in range(len(stream)))
for chunks in mutations(int(sys.argv[2])):
    decode(chunks)
for name in ("kimi", "kimi-k3", "kimi-research"):
    spec = UPSTREAM.resolve(name)
    chat_body(Turn(prompt="x", spec=spec, thinking=True, effort=None, search=True, deadline=0), UPSTREAM)
    more = {"effort": "E", "chat_id": "c", "parent_id": "p", "system_prompt": "s"}
    chat_body(Turn(prompt="x", spec=spec, thinking=True, search=False, deadline=0, **more), UPSTREAM)
marks = CitationResolver(UPSTREAM.citations, Sources(), marks="keep")
assert marks.is_plain("[^1^]")
measured.stop()
measured.json_report(outfile=sys.argv[3])
"""


def test_the_corpus_reaches_every_branch_of_the_decoder(tmp_path: Path) -> None:
    """Golden turns, rare turns and mutations together; what they can't reach should not be there."""
    room = Path(protocols.__file__).parent
    files = [str(room / f"{name}.py") for name in DECODER]
    report = tmp_path / "coverage.json"
    root = Path(__file__).parent.parent.parent
    run = [sys.executable, "-c", _RUN, json.dumps(files), str(COVERED), str(report)]
    subprocess.run(run, check=True, cwd=root, timeout=100)
    measured = json.loads(report.read_text())["files"]
    assert len(measured) == len(DECODER)
    missed = {
        Path(name).name: (data["missing_lines"], data["missing_branches"])
        for name, data in measured.items()
        if data["missing_lines"] or data["missing_branches"]
    }
    assert missed == {}


def test_no_blanket_except_in_any_protocol() -> None:
    for path in Path(protocols.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, path
                names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
                assert not names & {"Exception", "BaseException"}, path
