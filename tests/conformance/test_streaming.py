"""Streams are streams: what the service has said is with the client while the service still thinks about the rest."""

from __future__ import annotations

from contextlib import aclosing

from .surfaces import Answer, Surface, asking
from .world import World


async def test_the_first_half_is_there_during_the_pause(world: World, surface: Surface) -> None:
    world.play("slow", pause_s=600)
    answer = Answer()
    async with aclosing(surface.pieces(asking())) as pieces:
        while "Before the pause, " not in answer.text:
            answer += await anext(pieces)
        assert world.state["active_streams"] == 1
        world.resume()
        async for piece in pieces:
            answer += piece
    assert answer.text == "Before the pause, after the pause."
    assert answer.finish == "stop"
    assert answer.usage


async def test_thinking_comes_before_the_text_begins(world: World, surface: Surface) -> None:
    """The pauses between pieces are such that only a resumed service goes on."""
    world.play("say", think="Hm, well", text="Yes.", piece=4, every_s=600)
    answer = Answer()
    async with aclosing(surface.pieces(asking())) as pieces:
        for wanted in ("Hm, ", "Hm, well"):
            while answer.thinking != wanted:
                answer += await anext(pieces)
            assert not answer.text
            assert world.state["active_streams"] == 1
            world.resume()
        while not answer.text:
            answer += await anext(pieces)
        world.resume()
        async for piece in pieces:
            answer += piece
    assert (answer.thinking, answer.text, answer.finish) == ("Hm, well", "Yes.", "stop")


async def test_characters_arrive_whole_however_the_bytes_are_cut(world: World, surface: Surface) -> None:
    world.play("split", size=1, of="search_turn")
    answer = Answer()
    async with aclosing(surface.pieces(asking(model="kimi-thinking"))) as pieces:
        async for piece in pieces:
            answer += piece
    assert answer.text.startswith("Rain today, about 9 °C.")
    assert "I should look this up." in answer.thinking
