"""The account page and its API over real HTTP, without LiteLLM: it starts in no time."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx
import uvicorn
from sqlalchemy import event
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from kimi_provider.admin import api
from kimi_provider.admin.door import CSRF_HEADER, Door
from kimi_provider.admin.page import AccountPage
from kimi_provider.admin.roster import Roster
from kimi_provider.engine import KimiEngine
from kimi_provider.settings import Settings
from kimi_provider.upstream import Upstream
from tests.harness import Simulator

KEY = "sk-admin-0123456789abcdef0123456789abcdef"
SECRET_KEY = base64.b64encode(bytes(range(32))).decode()


class Site:
    """One worker. Two with the same store are two workers of a gateway."""

    def __init__(
        self, state_url: str, simulator: Simulator, *, key: str | None = KEY, root: str = "", **more: Any
    ) -> None:
        self.settings = Settings.without_file(
            kimi_state_url=state_url,
            kimi_secret_key=SECRET_KEY,
            kimi_base_url=simulator.url,
            kimi_auth_url=simulator.url,
            **more,
        )
        self.simulator, self.key, self.root = simulator, key, root
        self.engine = KimiEngine(self.settings, Upstream.load(None))
        self.roster = Roster(self.engine)

    def __enter__(self) -> Self:
        door = Door(lambda: self.key, self.roster.store)
        page = AccountPage(self.roster, door, self.settings)
        more = api.routes(self.roster, door, language=self.settings.kimi_lang, own_keys=False)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        routes: list[BaseRoute] = [*page.routes(), *more]
        app = Starlette(routes=[Mount(self.root, routes=routes)] if self.root else routes)
        config = uvicorn.Config(app, log_level="warning", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        give_up_at = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
        self.url = self.origin + self.root
        self.http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, trust_env=False, timeout=60
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(30)
        self._socket.close()
        self.engine.pool.close()
        if self.roster.store is not None:
            self.roster.store.close()

    def add(self, user: str, **more: Any) -> dict[str, Any]:
        """Log a user in and add the account; its row."""
        tokens = self.simulator.login(user, **more)
        given = tokens.get("refresh_token") or tokens["kimi_auth"]
        answer = self.http.post("/kimi/api/accounts", json={"credential": given})
        assert answer.status_code == 201, answer.text
        row: dict[str, Any] = self.http.get(f"/kimi/api/accounts/{answer.json()['added'][0]['id']}").json()
        return row

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get("/kimi/api/accounts").json()["accounts"]
        return rows

    @property
    def read_only(self) -> str:
        """The statement that makes a transaction of the store refuse changes, as a read-only disk or server does."""
        is_file = str(self.settings.kimi_state_url).startswith("sqlite")
        return "PRAGMA query_only=ON" if is_file else "SET TRANSACTION READ ONLY"

    @contextmanager
    def with_store_that_says(self, statement: str) -> Iterator[None]:
        """Every transaction begins with `statement`, which breaks it as a broken disk would."""
        assert self.roster.store is not None
        engine = self.roster.store._database.engine

        def spoil(connection: Any) -> None:
            connection.exec_driver_sql(statement)

        event.listen(engine, "begin", spoil)
        try:
            yield
        finally:
            event.remove(engine, "begin", spoil)

    @contextmanager
    def signed_in(self) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
        """A client with the page's session, and the headers with which the page changes things."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60) as client:
            answer = client.post("/kimi/session", data={"key": str(self.key)}, headers={"origin": self.origin})
            assert answer.status_code == 303, answer.text
            page = client.get("/kimi/accounts").text
            csrf = page.split('"x-csrf-token": "')[1].split('"')[0]
            yield client, {CSRF_HEADER: csrf, "origin": self.origin}
