from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kimi_provider.settings import Settings
from kimi_provider.store import Store, open_store


@pytest.fixture
def opened(state_url: str) -> Iterator[Callable[..., Store]]:
    """Opens the store anew at every call, as another process would."""
    stores: list[Store] = []

    def open_(**more: object) -> Store:
        settings = Settings.without_file(kimi_state_url=state_url, **more)
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
