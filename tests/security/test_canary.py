"""Credentials are looked for in everything the gateway says: logs, answers, headers, pages, files it writes.

Two gateways run through success, every class of failure, refreshes and dead tokens: one as shipped, one with LiteLLM's
debug logs on and LiteLLM's own masking switched off, so that only ours is left. The simulator tells which tokens it
issued on the way.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from kimi_provider.admin.door import CSRF_HEADER
from kimi_provider.simulator import SimulatorServer
from tests.conformance.failures import BEFORE_THE_FIRST_EVENT, IN_MID_STREAM, of
from tests.gateway.bodies import BODIES
from tests.harness import Gateway
from tests.mailbox import Mailbox
from tests.postgres import Postgres

from .needles import WINDOW, Needles, composed_token, watch

KEY = f"sk-{secrets.token_urlsafe(40)}"
ASK = [{"role": "user", "content": "Hi"}]

CONFIG = """
model_list:
  - {{ model_name: kimi, litellm_params: {{ model: kimi/kimi-latest }} }}
  - {{ model_name: kimi-bob, litellm_params: {{ model: kimi/kimi-latest, api_key: {bob} }} }}
  - {{ model_name: kimi-carol, litellm_params: {{ model: kimi/kimi-latest, api_key: os.environ/CAROLS_KIMI }} }}
  - {{ model_name: kimi-dave, litellm_params: {{ model: kimi/kimi-latest, api_key: "kimi-auth={dave}; theme=dark" }} }}
  - {{ model_name: kimi-canary, litellm_params: {{ model: kimi/kimi-latest, api_key: {canary} }} }}
litellm_settings:
  custom_provider_map: [{{ provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler }}]
  set_verbose: {verbose}
router_settings: {{ num_retries: 0, disable_cooldowns: true }}
general_settings: {{ master_key: os.environ/LITELLM_MASTER_KEY, cancel_on_disconnect: true }}
"""


class World:
    """A simulator that tells its tokens, a gateway in front of it, and all that the gateway said."""

    def __init__(self, tmp: Path, simulator: SimulatorServer, box: Mailbox, state_url: str, *, debug: bool) -> None:
        self.tmp, self.simulator, self.box, self.needles = tmp, simulator, box, Needles()
        self.state_url = state_url
        self.issued = watch(simulator, self.needles)
        self._scanned = 0
        simulator.change(pace=0)
        self.canary, self.carol = composed_token(), simulator.login(user="carol", kind="opaque")["refresh_token"]
        hook = secrets.token_urlsafe(40)
        for name, secret in (
            ("canary", self.canary),
            ("carol's token", self.carol),
            ("gateway key", KEY),
            ("alert URL", hook),
        ):
            self.needles.add(name, secret)
        config = tmp / "config.yaml"
        config.write_text(
            CONFIG.format(
                bob=simulator.login(user="bob")["refresh_token"],
                dave=simulator.login(user="dave", kind="cookie")["kimi_auth"],
                canary=self.canary,
                verbose=str(debug).lower(),
            )
        )
        more = {"LITELLM_LOG": "DEBUG", "LITELLM_DISABLE_REDACT_SECRETS": "true"} if debug else {}
        self.gateway = Gateway(
            tmp,
            simulator.url,
            simulator.login(user="ada")["refresh_token"],
            config,
            CAROLS_KIMI=self.carol,
            KIMI_STATE_URL=state_url,
            KIMI_ALERT_URLS=f"{box.apprise}/{hook}, json://127.0.0.1:9/{hook}",
            **more | {"LITELLM_MASTER_KEY": KEY},
        )
        self.http = self.gateway.http
        self.http.headers["authorization"] = f"Bearer {KEY}"
        self.http.event_hooks = {"response": [self._check]}

    def _check(self, answer: httpx.Response) -> None:
        said = f"{answer.read().decode('utf-8', 'replace')}\n{answer.headers.raw!r}"
        assert self.needles.found_in(said) == [], f"{answer.request.url} answered with a secret"

    def check_log(self) -> None:
        """Look through what the log has gained."""
        with self.gateway.log.open("rb") as log:
            log.seek(max(0, self._scanned - 2 * WINDOW))
            text = log.read().decode("utf-8", "replace")
            self._scanned = log.tell()
        leaking = [line[:2000] for line in text.splitlines() if self.needles.found_in(line)]
        assert leaking == [], f"{len(leaking)} lines of the log hold {self.needles.found_in(text)}"

    def ask(self, model: str = "kimi", surface: str = "chat", *, stream: bool = False) -> httpx.Response:
        path, body = BODIES[surface]
        return self.http.post(path, json={"model": model, "stream": stream, **body})


@pytest.fixture(scope="module", params=[False, True], ids=["as shipped", "debug, PostgreSQL"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[World]:
    debug, tmp = request.param, tmp_path_factory.mktemp("canary")
    state_url = postgres.database() if debug else f"sqlite:///{tmp}/accounts.db"
    with SimulatorServer() as simulator, Mailbox() as box:
        world = World(tmp, simulator, box, state_url, debug=debug)
        with world.gateway:
            yield world


@pytest.fixture(autouse=True)
def checked(world: World) -> Iterator[None]:
    """Each test starts with a simulator as new, and ends with a look into the log."""
    world.simulator.reset()
    world.simulator.change(pace=0)
    yield
    world.check_log()


@pytest.mark.parametrize("model", ["kimi", "kimi-bob", "kimi-carol", "kimi-dave"])
def test_answers(world: World, model: str) -> None:
    for surface in BODIES:
        for stream in (False, True):
            answer = world.ask(model, surface, stream=stream)
            assert answer.status_code == 200, answer.text
            assert "[simulator]" in answer.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_every_failure_before_the_first_event(world: World, stream: bool) -> None:
    for number, case in enumerate(of(BEFORE_THE_FIRST_EVENT, "connect")):
        world.simulator.reset()
        world.simulator.queue(case.scenario, None, **case.params)
        surface = list(BODIES)[number % len(BODIES)]
        for model in ("kimi", "kimi-dave"):
            assert world.ask(model, surface, stream=stream).status_code >= 400, case.scenario


@pytest.mark.parametrize("surface", BODIES)
def test_every_failure_in_mid_stream(world: World, surface: str) -> None:
    for failure in of(IN_MID_STREAM, "connect"):
        world.simulator.reset()
        world.simulator.queue(failure.scenario, None, **failure.params)
        assert failure.code in world.ask(surface=surface, stream=True).text


def test_refreshes(world: World) -> None:
    for _ in range(3):
        assert world.simulator.call(lambda: world.simulator.state.accounts.revoke("ada", what="access"))
        before = len(world.issued)
        assert world.ask().status_code == 200
        assert len(world.issued) >= before + 2, "a new pair that is looked for from now on"
    assert world.ask().status_code == 200


def test_a_token_that_the_service_does_not_know(world: World) -> None:
    for surface in BODIES:
        for stream in (False, True):
            answer = world.ask("kimi-canary", surface, stream=stream)
            assert answer.status_code == 401
            assert "KIMI_TOKEN" in answer.text


def test_a_token_that_dies(world: World) -> None:
    assert world.simulator.call(lambda: world.simulator.state.accounts.revoke("bob", what="all"))
    for stream in (False, True, False):
        assert world.ask("kimi-bob", stream=stream).status_code == 401


def test_alerts(world: World) -> None:
    """Bob's owner learns of the end of his session, and the log that one of the targets is down."""
    world.box.until(lambda: bool(world.box.letters))
    assert world.needles.found_in(json.dumps(world.box.letters)) == []
    world.gateway.wait_for("was not delivered through entry 2 of KIMI_ALERT_URLS", 60)


def test_a_service_that_is_away(world: World) -> None:
    world.simulator.queue("close_before_anything", None)
    assert world.ask().status_code == 502
    assert world.ask(stream=True).status_code == 502


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "kimi-none", "messages": ASK}, 404),
        ({"model": "kimi", "messages": []}, 400),
        ({"model": "kimi-canary", "messages": [{"role": "wizard", "content": "Hi"}]}, 400),
        ({"model": "kimi-bob", "messages": ASK, "n": 3}, 400),
        ({"model": "kimi-dave", "messages": "no list"}, 400),
        ({"model": "kimi", "messages": ASK, "timeout": "soon"}, 400),
    ],
)
def test_bad_input(world: World, body: dict[str, Any], status: int) -> None:
    answer = world.http.post("/v1/chat/completions", json=body)
    # What LiteLLM itself can't read is its own to answer.
    assert answer.status_code in (status, 500), answer.text


@pytest.mark.parametrize(
    "path",
    [
        *("/health", "/health/readiness", "/health/liveliness", "/kimi", "/ping", "/", "/v1/models"),
        *("/model/info", "/v1/model/info", "/model_group/info", "/settings", "/get/config/callbacks", "/metrics"),
        "/kimi/metrics",
        *("/router/settings", "/router/fields", "/v1beta/models", "/config/list?config_type=general_settings"),
    ],
)
def test_pages(world: World, path: str) -> None:
    with_key = world.http.get(path)
    assert with_key.status_code < 500 or "database" in with_key.text, with_key.text[:300]
    world.http.get(path, headers={"authorization": ""})
    world.http.get(path, headers={"authorization": "Bearer sk-wrong"})


def test_accounts_over_the_api(world: World) -> None:
    given = world.simulator.login(user="grace")
    for credential in (json.dumps(given), world.canary, f"Bearer {given['refresh_token'][:-20]}", "kimi-auth="):
        world.http.post("/kimi/api/accounts", json={"credential": credential})
        world.http.post("/kimi/api/accounts", content=credential)
        world.http.post("/token/check", json={"token": credential})
    rows = world.http.get("/kimi/api/accounts").json()["accounts"]
    assert {"refused", "ok"} <= {row["state"] for row in rows}
    for row in rows:
        for change in ("check", "refresh", "disable", "enable"):
            world.http.post(f"/kimi/api/accounts/{row['id']}/{change}")
        assert world.http.get(f"/kimi/api/accounts/{row['id']}").json()["id"] == row["id"]
    assert world.http.get("/kimi/ready").json()["usable"] >= 1


def test_accounts_on_the_page(world: World) -> None:
    own = {"origin": world.gateway.url, "authorization": ""}
    assert world.http.get("/kimi/accounts", headers=own).status_code == 401
    assert 'role="alert"' in world.http.post("/kimi/session", data={"key": f"{KEY}x"}, headers=own).text
    assert world.http.post("/kimi/session", data={"key": KEY}, headers=own).status_code == 303
    page = world.http.get("/kimi/accounts", headers=own).text
    own[CSRF_HEADER] = page.split('"x-csrf-token": "')[1].split('"')[0]
    given = world.simulator.login(user="heidi")["refresh_token"]
    for credential in (given, world.canary, given[:-30], f"curl 'https://www.kimi.com/' -H 'cookie: x={given[9:]}'"):
        said = world.http.post("/kimi/accounts/add", data={"credential": credential}, headers=own)
        assert said.status_code in (200, 401), said.text
    for row in world.http.get("/kimi/api/accounts").json()["accounts"]:
        for change in ("check", "refresh", "pause", "resume"):
            world.http.post(f"/kimi/accounts/{change}", data={"account": row["id"]}, headers=own)
    assert row["short_id"] in world.http.get("/kimi/accounts/table", headers=own).text
    world.http.cookies.clear()


def test_health_says_who_is_dead_without_the_token(world: World) -> None:
    health = world.http.get("/health").json()
    assert {"kimi/kimi-latest"} == {row["model"] for row in health["unhealthy_endpoints"]}
    assert health["unhealthy_count"] >= 1
    assert "credential_rejected" in json.dumps(health["unhealthy_endpoints"])


def test_a_request_shown_as_it_would_be_sent(world: World) -> None:
    for model in ("kimi", "kimi-bob", "kimi-canary"):
        body = {"call_type": "completion", "request_body": {"model": model, "messages": ASK}}
        world.http.post("/utils/transform_request", json=body)


def test_what_was_written(world: World) -> None:
    """Last: the gateway ends on SIGTERM, and no file but the configuration holds a token, nor does any row."""
    assert world.gateway.stop() == 0
    world.check_log()
    assert len(world.issued) > 10
    for file in world.tmp.rglob("*"):
        if file.is_file() and file.name != "config.yaml":
            text = file.read_bytes().decode("utf-8", "replace")
            assert world.needles.found_in(text) == [], file
    if world.state_url.startswith("postgresql"):
        with psycopg.connect(world.state_url) as connection:
            names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'kimi'").fetchall()
            assert len(names) > 5
            for (name,) in names:
                rows = connection.execute(f'SELECT * FROM kimi."{name}"').fetchall()
                text = repr([[bytes(one) if isinstance(one, memoryview) else one for one in row] for row in rows])
                assert world.needles.found_in(text) == [], name
    else:
        assert any(file.name.startswith("accounts.db") for file in world.tmp.rglob("*"))
