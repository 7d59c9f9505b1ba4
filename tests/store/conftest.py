from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kimi_provider.settings import Settings
from kimi_provider.store import Store, open_store
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store, on each database that we support."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/accounts.db"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.database()


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., Store]]:
    """Opens the store anew at every call, as another process would."""
    stores: list[Store] = []

    def open_(**more: object) -> Store:
        settings = Settings(_env_file=None, kimi_state_url=url, **more)  # type: ignore[call-arg, arg-type]
        for store in stores:
            store.close()
        stores.clear()
        store = open_store(settings)
        assert store is not None
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()
