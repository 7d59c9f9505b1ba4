from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import chromium
from tests.harness import Simulator

from .world import Site


@pytest.fixture
def site(state_url: str, simulator: Simulator) -> Iterator[Site]:
    with Site(state_url, simulator) as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser
