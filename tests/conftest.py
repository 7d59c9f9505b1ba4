from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports litellm: its price table must not be fetched.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# No test may touch the accounts of whoever runs it, in this process either.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="kimi-test-state-")

from tests.harness import Gateway, Simulator
from tests.postgres import Postgres

# The redirector's tests have an environment of their own, and `make test` runs them there.
collect_ignore = ["mitm"]


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Simulator(tmp_path_factory.mktemp("simulator")) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """KIMI_STATE_URL of an empty account store, on each database that we support."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/accounts.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def simulator(simulator_process: Simulator) -> Simulator:
    """The shared simulator, as new: no scenario, no chats, no pauses between pieces."""
    simulator_process.reset()
    return simulator_process


@pytest.fixture(scope="session")
def gateway_process(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    """With Ada's account: a test that ends an account's sessions takes another."""
    tmp: Path = tmp_path_factory.mktemp("gateway")
    with Gateway(tmp, simulator_process.url, simulator_process.login("ada")["refresh_token"]) as gateway:
        yield gateway


@pytest.fixture
def gateway(gateway_process: Gateway, simulator: Simulator) -> Gateway:
    """The shared gateway, in front of the shared simulator as new."""
    return gateway_process
