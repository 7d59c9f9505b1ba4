"""Credentials are looked for in everything the commands say, with good settings and with a token in the wrong place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kimi_provider import accounts
from kimi_provider.simulator import SimulatorServer
from tests.cli.running import run
from tests.harness import MASTER_KEY, clean_environment, free_port

from .needles import Needles, composed_token, watch

COMMANDS: dict[str, list[str]] = {
    "doctor": [],
    "chat": ["Hi"],
    "models": ["--live"],
    "serve": ["--port", str(free_port())],
}


@dataclass(frozen=True)
class Place:
    needles: Needles
    hosts: dict[str, str]
    good: str
    canary: str


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with SimulatorServer() as simulator:
        simulator.change(pace=0, legacy_refresh_rotates=False)
        needles, canary = Needles(), composed_token()
        watch(simulator, needles)
        needles.add("canary", canary)
        hosts = {"KIMI_BASE_URL": simulator.url, "KIMI_AUTH_URL": simulator.url}
        yield Place(needles, hosts, simulator.login(user="erin", kind="cookie")["kimi_auth"], canary)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "serve"])
def test_commands_that_work(place: Place, tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, *COMMANDS[command], KIMI_TOKEN=place.good, **place.hosts)
    assert done.returncode == 0, done.stderr
    assert place.needles.found_in(done.stdout + done.stderr) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_fail(place: Place, tmp_path: Path, command: str) -> None:
    (tmp_path / "broken.yaml").write_text(f"model_list: [{{ api_key: {place.canary}: }} ]")
    (tmp_path / "wrong.yaml").write_text(f"retry: {{ quota_s: {place.canary} }}")
    wrong: list[dict[str, str]] = [
        {"KIMI_TOKEN": place.canary.rpartition(".")[0]},
        {"KIMI_TOKEN": place.good},
        *({name: place.canary} for name in ("KIMI_BASE_URL", "KIMI_PROTOCOL", "KIMI_UPSTREAM_FILE", "KIMI_TIMEOUT_S")),
        {"KIMI_HEADERS": f'{{"authorization": "{place.canary}"}}'},
        {"KIMI_UPSTREAM_FILE": "broken.yaml"},
        {"KIMI_UPSTREAM_FILE": "wrong.yaml"},
    ]
    if command != "serve":
        wrong.append({"KIMI_TOKEN": place.canary, **place.hosts})
    for env in wrong:
        done = run(tmp_path, command, *COMMANDS[command], **env)
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        assert place.needles.found_in(done.stdout + done.stderr) == [], (list(env), done.stdout, done.stderr)


def test_accounts(place: Place, tmp_path: Path) -> None:
    """Whatever is pasted, good, broken or foreign; what is printed of it; and the files that keep it."""
    hosts = place.hosts | {"KIMI_TOKEN": place.good}
    broken = place.canary[: len(place.canary) // 2]
    pasted = {place.good: 0, place.canary: 0, broken: 2, f"curl https://www.kimi.com -H 'x: {broken}'": 2}
    commands: list[tuple[list[str], str, int]] = [(["add"], given, code) for given, code in pasted.items()]
    commands += [(["add", "--json"], given, 0) for given in (place.good, place.canary)]
    commands += [([name, *form], "", code) for name, code in (("list", 0), ("check", 1)) for form in ([], ["--json"])]
    commands += [(["add", place.canary], "", 2), (["check", place.canary], "", 2)]
    dead = accounts.Credential.of(refresh=place.canary).short_id
    commands += [(["refresh", dead], "", 2), (["disable", dead, "--json"], "", 0), (["remove", "--yes", dead], "", 0)]
    for command, given, code in commands:
        done = run(tmp_path, "accounts", *command, given=given, **hosts)
        assert done.returncode == code, (command, done.stderr)
        assert place.needles.found_in(done.stdout + done.stderr) == [], command
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert "accounts.db" in {file.name for file in kept}
    for file in kept:
        assert place.needles.found_in(file.read_bytes().decode("utf-8", "replace")) == [], file


def test_serve_with_a_broken_configuration(place: Place, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(f"model_list: [{{ api_key: {place.canary}: }} ]")
    for name in ("broken.yaml", place.canary):
        done = run(tmp_path, "serve", "--config", name)
        assert done.returncode == 2
        assert place.needles.found_in(done.stdout + done.stderr) == []


def test_a_foreign_start_that_fails(place: Place, tmp_path: Path) -> None:
    """LiteLLM shows its own tracebacks; none of them holds a value of ours."""
    (config := tmp_path / "theirs.yaml").write_text(
        "litellm_settings:\n"
        "  custom_provider_map: [{ provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler }]\n"
    )
    command = [sys.executable, "-c", "from litellm import run_server; run_server()", "--port", str(free_port())]
    env = clean_environment(
        tmp_path, LITELLM_MASTER_KEY=MASTER_KEY, LITELLM_LOG="DEBUG", KIMI_TOKEN=place.canary.rpartition(".")[0]
    )
    done = subprocess.run(
        [*command, "--config", str(config)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode != 0
    assert "No Kimi credential was found" in done.stderr
    assert place.needles.found_in(done.stdout + done.stderr) == []
