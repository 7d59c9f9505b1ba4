from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty account store, on each database that we support."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/accounts.db"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.database()
