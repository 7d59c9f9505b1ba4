"""Every spelling of calls, with every slip that makes sense in it, cut in two, on each API through a real proxy.

The generator (`tests.tools.corpus`) is the oracle: the client's text is what stood before the calls and nothing else,
and its calls are those that were spelled. `tests.tools` has the same cut everywhere, where calls are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.gateway.calling import SURFACES, Question, Surface, Tool
from tests.harness import Gateway, Simulator
from tests.tools import corpus

TOOLS = tuple(Tool(name=spec.name, parameters=spec.parameters, description=spec.description) for spec in corpus.SPECS)
QUESTION = Question(tools=TOOLS)
CALLS = list(corpus.PLAIN_CALLS)
FIRST = CALLS[0][1]["path"]
BEFORE = corpus.BEFORE
#: Where the answer is cut in two, with a pause between.
CUTS: dict[str, Callable[[str], int]] = {
    "in the first tag": lambda text: len(BEFORE) + 2,
    "in an argument": lambda text: text.index(FIRST) + 3,
}


def spelled(family: corpus.Family) -> Iterator[tuple[str, str]]:
    """Each slip and the answer with it."""
    for slip in (*corpus.SLIPS, *corpus.PLAIN_SLIPS):
        if family in slip.families:
            text = slip.change(family(CALLS))
            if text != family(CALLS) or slip.name == "as described":
                yield slip.name, BEFORE + text


def test_the_product_is_large() -> None:
    assert sum(len(list(spelled(family))) for family in corpus.FAMILIES) * len(CUTS) * len(SURFACES) >= 500


@pytest.fixture(scope="module")
def surfaces(gateway_process: Gateway) -> Iterator[dict[str, Surface]]:
    made = {surface.name: surface(gateway_process.url) for surface in SURFACES}
    yield made
    for surface in made.values():
        surface.close()


@pytest.mark.parametrize("family", corpus.FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("api", [surface.name for surface in SURFACES])
def test_calls_and_text_are_what_was_meant(
    surfaces: dict[str, Surface], simulator: Simulator, api: str, family: corpus.Family
) -> None:
    surface, wrong = surfaces[api], []
    for slip, text in spelled(family):
        for where, cut in CUTS.items():
            simulator.scenario("say", text=text, cut=cut(text), every_s=0.005)
            said = surface.ask(QUESTION, stream=True)
            if (said.text.rstrip(), said.calls, said.finish) != (BEFORE.rstrip(), CALLS, surface.finishes["calls"]):
                wrong.append((slip, where, said))
    assert wrong == []
