from __future__ import annotations

from collections.abc import Iterator

import pytest

from kimi_provider.simulator import SimulatorServer

from .sse import RestCaller
from .wire import Caller


@pytest.fixture(scope="session")
def server_thread() -> Iterator[SimulatorServer]:
    with SimulatorServer() as server:
        yield server


@pytest.fixture
def server(server_thread: SimulatorServer) -> SimulatorServer:
    """The shared server as new, without pauses and with files parsed at once."""
    server_thread.reset()
    server_thread.change(pace=0, parse_delay_s=0)
    return server_thread


@pytest.fixture
def caller(server: SimulatorServer) -> Iterator[Caller]:
    made = Caller(server, user="ada")
    yield made
    made.close()


@pytest.fixture
def other(server: SimulatorServer) -> Iterator[Caller]:
    made = Caller(server, user="bob")
    yield made
    made.close()


@pytest.fixture
def rest(caller: Caller) -> RestCaller:
    """The same account on the legacy protocol."""
    return RestCaller(caller)


@pytest.fixture
def other_rest(other: Caller) -> RestCaller:
    return RestCaller(other)
