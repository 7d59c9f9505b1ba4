"""Callers send the whole conversation each time: all of it reaches the service, and the answer knows it."""

from __future__ import annotations

from .surfaces import Question, Surface, Turn, ask
from .world import World

SYSTEM = "You are terse. ÄÖ 你好"
SAID = (
    "Hello! My name is Rosalind.",
    "What is 12 * 7?",
    "Thank you.",
    "Tell me about tides.",
    "Do you remember my name?",
)


async def test_what_the_first_turn_said_is_known_in_the_fifth(world: World, surface: Surface, stream: bool) -> None:
    turns: list[Turn] = []
    for said in SAID:
        turns.append(Turn(role="user", text=said))
        answer = await ask(surface, Question(turns=tuple(turns), system=SYSTEM), stream=stream)
        turns.append(Turn(role="assistant", text=answer.text))
    assert "My name is Rosalind" in answer.text
    assert "This is turn 5" in answer.text
    assert "I also saw a system prompt" in answer.text
    heard = world.asked[-1].text
    assert heard.startswith(f"{SYSTEM}\n\n")
    places = [heard.find(turn.text) for turn in turns[:-1]]
    assert -1 not in places
    assert places == sorted(places)


async def test_a_lone_message_goes_as_it_is(world: World, surface: Surface, stream: bool) -> None:
    said = "Just this: <b>&amp;</b> “ÄÖ” 🙂\n\tindented"
    await ask(surface, Question(turns=(Turn(role="user", text=said),)), stream=stream)
    assert world.asked[-1].text == said


async def test_a_system_prompt_goes_before_a_lone_message(world: World, surface: Surface, stream: bool) -> None:
    await ask(surface, Question(turns=(Turn(role="user", text="Hi"),), system=SYSTEM), stream=stream)
    assert world.asked[-1].text == f"{SYSTEM}\n\nHi"
