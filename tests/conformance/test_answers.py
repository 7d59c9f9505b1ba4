"""What models do besides answering: think, search, do research, and be one of Kimi's agents."""

from __future__ import annotations

import pytest

from .surfaces import Surface, ask, asking
from .world import AGENT, World

OSLO = "https://example.com/oslo"
ABOUT = "https://example.com/simulator"


async def test_thinking_is_told_apart_from_the_text(world: World, surface: Surface, stream: bool) -> None:
    answer = await ask(surface, asking("Why is the sky blue?", model="kimi-thinking"), stream=stream)
    assert "has written 5 words" in answer.thinking
    assert answer.text.startswith("[simulator] You wrote: “Why is the sky blue?”.")
    assert answer.finish == "stop"
    assert answer.usage.prompt > 0
    assert answer.usage.completion > 0


async def test_a_model_that_does_not_think_answers_with_text_alone(
    world: World, surface: Surface, stream: bool
) -> None:
    answer = await ask(surface, asking("Why is the sky blue?"), stream=stream)
    assert answer.thinking == ""
    assert answer.text.startswith("[simulator] You wrote: “Why is the sky blue?”.")


async def test_search_brings_its_sources(world: World, surface: Surface, stream: bool) -> None:
    world.play("search_turn")
    answer = await ask(surface, asking(model="kimi-search"), stream=stream)
    assert answer.text.startswith("Rain today, about 9 °C.")
    assert OSLO in answer.urls
    assert answer.finish == "stop"


async def test_the_model_switches_search_on(world: World, surface: Surface, stream: bool) -> None:
    answer = await ask(surface, asking("Tides?", model="kimi-search"), stream=stream)
    assert "My pretended search found one page" in answer.text
    assert ABOUT in answer.urls


@pytest.mark.parametrize(
    ("protocol", "field", "value"), [("connect", "kimiplus_id", "deep-researcher"), ("rest", "use_research", True)]
)
async def test_research_is_asked_for(world: World, surface: Surface, stream: bool, field: str, value: object) -> None:
    answer = await ask(surface, asking("Tides?", model="kimi-research"), stream=stream)
    assert "You wrote: “Tides?”." in answer.text
    assert world.asked[-1].body[field] == value


@pytest.mark.parametrize("protocol", ["rest"])
async def test_research_brings_its_sources(world: World, surface: Surface, stream: bool) -> None:
    """Only this protocol's simulator pretends to have found something."""
    answer = await ask(surface, asking("Tides?", model="kimi-research"), stream=stream)
    assert ABOUT in answer.urls


async def test_an_agent_is_asked_by_its_id(world: World, surface: Surface, stream: bool) -> None:
    answer = await ask(surface, asking("Good morning!", model=AGENT), stream=stream)
    assert "Hello! Nice to meet you." in answer.text
    assert world.asked[-1].body["kimiplus_id"] == AGENT
