"""Metrics of real gateways, with one worker and with two: exact counts of what was sent, on our page and LiteLLM's.

The accounts, the words of callers and the tokens of the service are looked for on every page that is scraped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.mmap_dict import MmapedDict

from kimi_provider.simulator import SimulatorServer
from tests.cli.running import Serve, family
from tests.gateway.test_foreign import KIMI_ROW, OURS, BareLiteLLM
from tests.harness import MASTER_KEY, ROOT, Simulator, clean_environment, quick_overlay
from tests.scraping import FAMILIES, Scrape
from tests.security.needles import Needles, watch

#: What a caller wrote, and an id of an agent that only the caller knows.
WORDS, AGENT = "swordfish archipelago", "cagent0translator000"


BEGUN = {"kimi_first_event_seconds_count kimi connect": 1}
ANSWERED = BEGUN | {"kimi_answers_total kimi connect": 1}


class World:
    """A gateway of its own, so that every count is known."""

    def __init__(self, tmp: Path, simulator: SimulatorServer, workers: int) -> None:
        self.simulator, self.workers, self.needles = simulator, workers, Needles()
        watch(simulator, self.needles)
        simulator.change(pace=0)
        config = yaml.safe_load((ROOT / "litellm_config.yaml").read_text("utf-8"))
        config["litellm_settings"]["callbacks"] = ["prometheus"]
        for row in config["model_list"]:
            row["litellm_params"].pop("rpm", None)
        (tmp / "config.yaml").write_text(yaml.safe_dump(config))
        self.users = {user: simulator.login(user=user)["refresh_token"] for user in ("quokka", "axolotl")}
        self.gateway = Serve(
            tmp, "--config", "config.yaml", "--workers", str(workers),
            LITELLM_MASTER_KEY=MASTER_KEY, KIMI_TOKEN=",".join(self.users.values()),
            KIMI_BASE_URL=simulator.url, KIMI_AUTH_URL=simulator.url, KIMI_UPSTREAM_FILE=str(quick_overlay(tmp)),
        )  # fmt: skip
        self.http = self.client()

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        return httpx.Client(base_url=self.gateway.url, headers=headers, trust_env=False, timeout=90)

    def ask(self, model: str = "kimi", **more: Any) -> httpx.Response:
        # A connection of its own: whichever worker takes it.
        with self.client() as http:
            return http.post(
                "/v1/chat/completions",
                json={"model": model, "messages": [{"role": "user", "content": WORDS}]} | more,
            )

    def scrape(self, path: str = "/kimi/metrics") -> Scrape:
        with self.client() as http:
            answer = http.get(path, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        ours = "\n".join(line for line in answer.text.splitlines() if "kimi_" in line)
        assert self.needles.found_in(ours) == []
        ids = [row[name] for row in self.accounts() for name in ("id", "short_id")]
        assert [one for one in (*WORDS.split(), AGENT, *self.users, MASTER_KEY, *ids) if one in ours] == []
        found = Scrape.of(answer.text)
        found.check_labels()
        return found

    def accounts(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get("/kimi/api/accounts").json()["accounts"]
        return rows

    def settled(self, condition: Callable[[Scrape], bool], path: str = "/kimi/metrics") -> Scrape:
        """The first scrape that fits."""
        give_up_at = time.monotonic() + 90
        while not condition(found := self.scrape(path)):
            assert time.monotonic() < give_up_at, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with SimulatorServer() as simulator:
        world = World(tmp_path_factory.mktemp("metrics"), simulator, request.param)
        with world.gateway, world.http:
            for account in world.accounts():  # from here on every token is fresh, whichever worker needs it
                assert world.http.post(f"/kimi/api/accounts/{account['id']}/refresh").status_code == 200
            yield world
            folder = shared_folder(world.gateway)
        assert folder is None or not folder.exists(), "it goes with the gateway"


@pytest.fixture(autouse=True)
def service_as_new(request: pytest.FixtureRequest) -> None:
    if "world" in request.fixturenames:
        world: World = request.getfixturevalue("world")
        world.simulator.reset()
        world.simulator.change(pace=0)


def grown(before: Scrape, after: Scrape) -> dict[str, float]:
    """What the counters have gained, by name and labels."""
    gains: dict[str, float] = {}
    for one in after.samples:
        if one.name.endswith(("_total", "_seconds_count")):
            gain = one.value - before(one.name, **one.labels)
            if gain:
                gains[f"{one.name} {' '.join(one.labels[name] for name in sorted(one.labels))}"] = gain
    return gains


def test_answers(world: World) -> None:
    before = world.scrape()
    assert {name for name in before.types if name.startswith("kimi_account")} == {
        name for name in FAMILIES if name.startswith("kimi_account")
    }
    for _ in range(3):
        assert world.ask().status_code == 200
        assert "[DONE]" in world.ask("kimi-thinking", stream=True).text
    assert world.ask("kimi-k2.6-search").status_code == 200
    assert world.ask(f"kimi/{AGENT}").status_code == 200
    after = world.scrape()
    assert grown(before, after) == {
        "kimi_answers_total kimi connect": 3,
        "kimi_answers_total kimi-thinking connect": 3,
        "kimi_answers_total kimi-k2.6 connect": 1,
        "kimi_answers_total agent rest": 1,
        "kimi_first_event_seconds_count kimi connect": 3,
        "kimi_first_event_seconds_count kimi-thinking connect": 3,
        "kimi_first_event_seconds_count kimi-k2.6 connect": 1,
        "kimi_first_event_seconds_count agent rest": 1,
    }
    assert 0 < after("kimi_first_event_seconds_sum", model="kimi") < 90
    assert after("kimi_first_event_seconds_bucket", model="kimi", le="+Inf") == 3
    assert after("kimi_accounts", state="ok") == after("kimi_accounts_usable") == 2
    assert after("kimi_account_store_up") == 1
    assert 80 * 86_400 < after("kimi_accounts_soonest_expiry_seconds") <= 90 * 86_400


def test_counts_stay_exact_while_they_are_read(world: World) -> None:
    calls = 24
    before = world.scrape()
    seen = [before("kimi_answers_total")]
    with ThreadPoolExecutor(6) as callers:
        answers = [callers.submit(world.ask) for _ in range(calls)]
        while not all(one.done() for one in answers):
            seen.append(world.scrape()("kimi_answers_total"))
        assert [one.result().status_code for one in answers] == [200] * calls
    seen.append(world.scrape()("kimi_answers_total"))
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] == calls
    idle = world.settled(lambda now: now("kimi_calls") == 0)
    assert grown(before, idle) == {
        "kimi_answers_total kimi connect": calls,
        "kimi_first_event_seconds_count kimi connect": calls,
    }


@pytest.mark.parametrize(
    ("scenario", "status", "gains"),
    [
        # One account is refused, the other one answers.
        ("quota", 200, ANSWERED | {"kimi_failovers_total quota_exhausted": 1}),
        ("overloaded_before_text", 200, ANSWERED | {"kimi_failovers_total overloaded": 1}),
        # A refused token is renewed; that is no fail-over.
        ("auth_http", 200, ANSWERED | {"kimi_token_refreshes_total renewed": 1}),
        # Nobody else could do better.
        ("context_too_long", 400, {"kimi_failures_total context_length_exceeded": 1}),
        # Text was seen: the answer has begun and fails.
        ("overloaded_after_text", 503, BEGUN | {"kimi_failures_total overloaded": 1}),
    ],
)
def test_what_goes_wrong(world: World, scenario: str, status: int, gains: dict[str, float]) -> None:
    before = world.settled(lambda now: now("kimi_accounts", state="cooling") == 0)
    world.simulator.queue(scenario)
    assert world.ask().status_code == status
    assert grown(before, world.scrape()) == gains


def test_a_conversation_that_moves(world: World) -> None:
    """Its chat is in an account that refuses one more message; the other account is told everything."""
    said = {"role": "user", "content": WORDS}
    history = [said]
    for _ in range(3):
        answer = world.ask(messages=history)
        history += [answer.json()["choices"][0]["message"], said]
    assert answer.headers["llm_provider-x-kimi-conversation"] == "continued"
    before = world.settled(lambda now: now("kimi_accounts", state="cooling") == 0)
    world.simulator.queue("quota")
    answer = world.ask(messages=history)
    assert (answer.status_code, answer.headers["llm_provider-x-kimi-conversation"]) == (200, "new")
    assert grown(before, world.scrape()) == ANSWERED | {"kimi_failovers_total quota_exhausted": 1}


def test_what_callers_do_wrong(world: World) -> None:
    before = world.scrape()
    assert world.ask(n=3).status_code == 400
    assert world.ask(f"kimi/{WORDS}").status_code == 404
    assert grown(before, world.scrape()) == {
        "kimi_failures_total invalid_request": 1,
        "kimi_failures_total model_not_found": 1,
    }


def test_health_checks_are_no_calls(world: World) -> None:
    before = world.scrape()
    assert world.http.get("/health", params={"model": "kimi"}).json()["healthy_count"] == 1
    assert grown(before, world.scrape()) == {}


def test_account_states_follow_their_owner(world: World) -> None:
    one = world.accounts()[0]["id"]
    world.http.post(f"/kimi/api/accounts/{one}/disable")
    paused = world.scrape()
    assert (paused("kimi_accounts", state="paused"), paused("kimi_accounts_usable")) == (1, 1)
    world.http.post(f"/kimi/api/accounts/{one}/enable")
    assert world.scrape()("kimi_accounts_usable") == 2


def test_only_who_has_a_key_may_look(world: World) -> None:
    for path in ("/kimi/metrics", "/metrics/"):
        for key in ("", "Bearer sk-wrong"):
            answer = world.http.get(path, headers={"authorization": key})
            assert answer.status_code == 401
            assert "kimi_" not in answer.text
    assert world.http.post("/kimi/metrics").status_code == 405


def test_litellm_shows_ours_beside_its_own(world: World) -> None:
    ours = world.scrape()
    text = world.http.get("/metrics/").text
    theirs = world.scrape("/metrics/")
    assert "litellm_" in text
    if world.workers == 1:
        assert theirs.types == ours.types
    else:  # it reads what the workers have counted, and asks nobody
        assert theirs.types.keys() == {name for name in ours.types if not name.startswith("kimi_account")}
    assert grown(theirs, ours) == grown(ours, theirs) == {}
    assert ours("kimi_answers_total") > 0


def test_other_formats(world: World) -> None:
    answer = world.http.get("/kimi/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def shared_folder(gateway: Serve) -> Path | None:
    """Where the gateway's processes count together, as they were told."""
    for pid in family(gateway.child.pid) - {gateway.child.pid}:
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == b"PROMETHEUS_MULTIPROC_DIR":
                return Path(value.decode())
    return None


def running_in(folder: Path) -> dict[int, float]:
    """Running calls by process, as its own file says."""
    found = {}
    for file in folder.glob("gauge_livesum_*.db"):
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):
            name, _, labels, _ = json.loads(key)
            if name == "kimi_calls" and labels == {"state": "running"}:
                found[int(file.stem.rpartition("_")[2])] = value
    return found


@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_takes_its_calls_with_it_and_no_counts(world: World) -> None:
    folder = shared_folder(world.gateway)
    if world.workers == 1:
        assert folder is None, "one process needs none"
        return
    assert folder is not None
    assert folder.stat().st_mode & 0o077 == 0
    world.simulator.queue("hang_mid_text")
    before = world.scrape()

    def hang() -> None:
        with pytest.raises(httpx.TransportError):
            world.ask(stream=True)

    caller = threading.Thread(target=hang)
    caller.start()
    world.settled(lambda now: now("kimi_calls", state="running") == 1)
    victim = next(pid for pid, running in running_in(folder).items() if running == 1)
    os.kill(victim, signal.SIGKILL)
    caller.join(60)
    assert not caller.is_alive()
    after = world.settled(lambda now: now("kimi_calls", state="running") == 0)
    assert grown(before, after) == {"kimi_first_event_seconds_count kimi connect": 1}
    assert world.ask().status_code == 200
    assert world.scrape()("kimi_answers_total") == before("kimi_answers_total") + 1


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_a_stranger_s_proxy(tmp_path: Path, simulator: Simulator, is_open: bool) -> None:
    """Without the callback, below a prefix, open if its owner wants it so, in a folder that is not there yet."""
    config = {
        "model_list": [KIMI_ROW],
        "litellm_settings": OURS | ({"require_auth_for_metrics_endpoint": False} if is_open else {}),
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    with BareLiteLLM(
        tmp_path, config,
        KIMI_TOKEN=simulator.login("ada")["refresh_token"], KIMI_BASE_URL=simulator.url, KIMI_AUTH_URL=simulator.url,
        SERVER_ROOT_PATH="/team/ai", PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "not" / "yet"),
    ) as proxy:  # fmt: skip
        body = {"model": "kimi", "messages": [{"role": "user", "content": "Hi"}]}
        assert proxy.http.post("/team/ai/v1/chat/completions", json=body).status_code == 200
        page = proxy.http.get("/team/ai/kimi/metrics", headers={"authorization": ""})
        assert page.status_code == (200 if is_open else 401)
        page = proxy.http.get("/team/ai/kimi/metrics")
        found = Scrape.of(page.text)
        found.check_labels()
        assert found("kimi_answers_total") == found("kimi_accounts", state="ok") == 1
        assert "litellm_" not in page.text


def test_a_litellm_that_shows_metrics_otherwise_still_starts(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["litellm.integrations.prometheus_metrics_endpoint"] = None
from kimi_provider.litellm_bridge import metrics_route
print(metrics_route.routes(None))
"""
    env = clean_environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "([], ['no GET /kimi/metrics (LiteLLM has changed how it shows metrics)'])\n", done.stderr
