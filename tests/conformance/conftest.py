from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.harness import MASTER_KEY

from .surfaces import SURFACES, Surface
from .world import OWNERS_CHATS, PROTOCOLS, World


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """The world of a protocol, begun when it is first asked for.

    At the end, after all that was asked, failed, cancelled and left: the owner's chats are as they were, and alone.
    """
    begun: dict[str, World] = {}
    with ExitStack() as stack:

        def world(protocol: str) -> World:
            if protocol not in begun:
                begun[protocol] = stack.enter_context(World(protocol, tmp_path_factory.mktemp(protocol)))
            return begun[protocol]

        yield world
        for one in begun.values():
            assert len(one.owners_chats) == OWNERS_CHATS
            assert one.chats == one.owners_chats


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol in turn; a table of cases may name it instead."""
    return str(request.param)


@pytest.fixture
async def world(worlds: Callable[[str], World], protocol: str) -> AsyncIterator[World]:
    world = worlds(protocol)
    world.play(None)
    yield world
    world.play(None)
    await world.until_tidy()


@pytest.fixture(params=SURFACES, ids=lambda surface: surface.name)
async def surface(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Surface]:
    surface = request.param(world.gateway.url, MASTER_KEY)
    yield surface
    await surface.close()


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
