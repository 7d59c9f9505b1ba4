"""The provider as a library, without a proxy: sync and async, whole and streamed, over both protocols."""

from __future__ import annotations

from pathlib import Path

from tests.bridge.test_library import run

from .world import World


async def test_completion_and_acompletion(world: World, tmp_path: Path) -> None:
    out = run(
        world.simulator,
        tmp_path,
        """
        def joined(chunks):
            return "".join(c.choices[0].delta.content or "" for c in chunks)
        async def ask(**more):
            return await litellm.acompletion(model=MODEL, messages=ASK, **more)
        async def streamed():
            return joined([chunk async for chunk in await ask(stream=True)])
        print(litellm.completion(model=MODEL, messages=ASK).choices[0].message.content)
        print(joined(litellm.completion(model=MODEL, messages=ASK, stream=True)))
        print(asyncio.run(ask()).choices[0].message.content)
        print(asyncio.run(streamed()))
        """,
        KIMI_PROTOCOL=world.protocol,
    )
    assert out.splitlines() == ["Hi-there"] * 4
    assert [call["protocol"] for call in world.state["calls"]][-4:] == [world.protocol] * 4
