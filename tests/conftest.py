from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports litellm: its price table must not be fetched.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from tests.harness import Gateway, Simulator


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Simulator(tmp_path_factory.mktemp("simulator")) as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator) -> Simulator:
    """The shared simulator, as new: no scenario, no chats, no pauses between pieces."""
    simulator_process.reset()
    return simulator_process


@pytest.fixture(scope="session")
def gateway_process(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    tmp: Path = tmp_path_factory.mktemp("gateway")
    with Gateway(tmp, simulator_process.url, simulator_process.login("ada")["refresh_token"]) as gateway:
        yield gateway


@pytest.fixture
def gateway(gateway_process: Gateway, simulator: Simulator) -> Gateway:
    """The shared gateway, in front of the shared simulator as new."""
    return gateway_process
