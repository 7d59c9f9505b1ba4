"""`chat`, `models`, `doctor` and `simulate`."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from tests.harness import Gateway, Process, Simulator, clean_environment, free_port

from .running import COMMAND, run


def real(simulator: Simulator, token: str) -> dict[str, str]:
    return {"KIMI_TOKEN": token, "KIMI_BASE_URL": simulator.url, "KIMI_AUTH_URL": simulator.url}


# --- chat ---


def test_chat_streams_thinking_and_text(tmp_path: Path, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    done = run(tmp_path, "chat", "Weather in Oslo?", **real(simulator, simulator.login()["refresh_token"]))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "I should look this up.\n\nRain today, about 9 °C.[1]\n[1] Oslo forecast: https://example.com/oslo\n"
    )


def test_chat_demo_needs_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "--demo", "Hello")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n\n[simulator] " in done.stdout
    assert not (tmp_path / "state").exists()


def test_chat_demo_ignores_the_real_credential(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "--demo", "Hello", KIMI_TOKEN="eyJhbGciOiJub25lIn0.eyJzdWIiOiJyZWFsIn0.c2ln")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[simulator] " in done.stdout


def test_chat_without_a_credential(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "Hello")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    for words in ("KIMI_TOKEN", ".env", "chat --demo"):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("scenario", "text", "words"),
    [
        ("paywall", "", "plan"),
        ("overloaded_after_text", "\n", "busy"),
        ("close_mid_text", "\n", "try again"),
    ],
)
def test_chat_that_fails_says_why(tmp_path: Path, simulator: Simulator, scenario: str, text: str, words: str) -> None:
    simulator.scenario(scenario, times=None)
    done = run(tmp_path, "chat", "Hi", **real(simulator, simulator.login()["refresh_token"]))
    assert done.returncode == 2
    assert done.stdout[-1:] == text, "what was streamed ends its line before the error"
    assert done.stderr.startswith("kimi-provider: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_chat_with_an_unknown_model_names_near_ones(tmp_path: Path, simulator: Simulator) -> None:
    done = run(tmp_path, "chat", "-m", "kimi-k2.7", "Hi", **real(simulator, simulator.login()["refresh_token"]))
    assert done.returncode == 2
    assert re.search(r"Near names: .*kimi-k2\.6", done.stderr)


# --- models ---


def test_models_are_listed_whole_without_a_credential(tmp_path: Path) -> None:
    done = run(tmp_path, "models", COLUMNS="40")
    assert (done.returncode, done.stderr) == (0, "")
    table = {line.split()[0]: re.split(r" {2,}", line)[1:] for line in done.stdout.splitlines()}
    swarm = ["K3 Swarm", "256K", "always", "low high max", "own", "k3 swarm, k3-agent-swarm, k3-agent-ultra"]
    assert table["kimi/kimi-k3-agent-swarm"] == swarm
    assert table["kimi/kimi-search"][2:] == ["asked", "none low high", "yes"]
    assert table["kimi/kimi-research"] == ["Deep research", "256K", "always", "own"]
    assert "…" not in done.stdout
    assert "-thinking" in done.stdout.splitlines()[-1]


def test_models_live_asks_the_service(tmp_path: Path, simulator: Simulator) -> None:
    done = run(tmp_path, "models", "--live", **real(simulator, simulator.login()["refresh_token"]))
    assert (done.returncode, done.stderr) == (0, "")
    live = done.stdout.partition("The service offers now:\n")[2].splitlines()
    table = {line.split()[0]: re.split(r" {2,}", line)[1:] for line in live}
    assert table["k3-agent"] == ["K3", "SCENARIO_OK_COMPUTER", "low high max", "kimi-k3"]
    assert table["k2d6-chat"] == ["Instant", "SCENARIO_CHAT", "none low", "kimi-k2.6"]
    paths = {request["path"].rsplit("/", 1)[-1] for request in simulator.state()["requests"]}
    assert paths == {"RefreshToken", "GetAvailableModels"}


def test_models_live_yaml_is_a_configuration_that_works(tmp_path: Path, simulator: Simulator) -> None:
    added = {"scenario": "SCENARIO_CHAT", "displayName": "K4", "key": "k4", "id": "k4-chat"}
    unknown = {"scenario": "SCENARIO_SLIDES", "displayName": "Slides", "key": "slides", "id": "slides-1"}
    simulator.control("settings", more_models=[added, unknown])
    shown = run(tmp_path, "models", "--live", **real(simulator, simulator.login()["refresh_token"])).stdout
    assert re.search(r"^slides-1 .* can't be asked for$", shown, re.M)
    done = run(tmp_path, "models", "--live", "--yaml", **real(simulator, simulator.login()["refresh_token"]))
    assert (done.returncode, done.stderr) == (0, "")
    names = [row["model_name"] for row in yaml.safe_load(done.stdout)["model_list"]]
    assert {"kimi", "kimi-research", "kimi-k3", "kimi-k4-chat"} <= {*names}
    (config := tmp_path / "mine.yaml").write_text(done.stdout)
    with Gateway(tmp_path / "gateway", simulator.url, simulator.login()["refresh_token"], config) as gateway:
        assert [row["id"] for row in gateway.http.get("/v1/models").json()["data"]] == names
        for name in ("kimi", "kimi-k4-chat"):
            for path in ("/v1/chat/completions", "/v1/responses"):
                body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
                answer = gateway.http.post(path, json=body)
                assert answer.status_code == 200, answer.text


def test_models_live_yaml_leaves_out_what_the_service_took_away(tmp_path: Path, simulator: Simulator) -> None:
    older = {"KIMI_HEADERS": '{"x-msh-version": "1.0.0"}'}
    for more, there in ({}, True), (older, False):
        env = real(simulator, simulator.login()["refresh_token"]) | more
        done = run(tmp_path, "models", "--live", "--yaml", **env)
        names = [row["model_name"] for row in yaml.safe_load(done.stdout)["model_list"]]
        assert ("kimi-k3" in names) is there
        assert {"kimi", "kimi-k2.6-thinking", "kimi-agent-swarm", "kimi-research"} <= {*names}


def test_models_live_without_a_credential(tmp_path: Path) -> None:
    done = run(tmp_path, "models", "--live")
    assert done.returncode == 2
    assert "KIMI_TOKEN" in done.stderr


# --- doctor ---


def checks(output: str) -> dict[str, list[str]]:
    """Heading -> the lines below it."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line[:1] != " ":
            found[line] = []
        else:
            found[list(found)[-1]].append(line.strip())
    return found


def test_doctor_when_all_is_well(tmp_path: Path, simulator: Simulator) -> None:
    done = run(tmp_path, "doctor", **real(simulator, simulator.login()["refresh_token"]))
    assert (done.returncode, done.stderr) == (0, "")
    found = checks(done.stdout)
    assert all(heading.startswith("ok   ") and len(lines) == 1 for heading, lines in found.items()), found
    (credential,) = [lines for heading, lines in found.items() if heading.startswith("ok   credential ")]
    assert credential == ["refresh token, expires in 90 days"]
    assert ["the token is alive"] in found.values()
    assert "Chat" not in {request["path"].rsplit("/", 1)[-1] for request in simulator.state()["requests"]}


def test_doctor_finds_each_problem(tmp_path: Path, simulator: Simulator) -> None:
    dead = simulator.login("dora")["refresh_token"]
    simulator.control("revoke", user="dora", what="all")
    live = simulator.login("emil")["refresh_token"]
    nobody = f"http://127.0.0.1:{free_port()}"
    cases = (
        ({}, "KIMI_TOKEN in the environment and in .env", "only demo mode works", "copy refresh_token"),
        (real(simulator, dead), f"asking {simulator.url} who", "refused", "Log in at kimi.com"),
        (
            {**real(simulator, live), "KIMI_BASE_URL": nobody, "KIMI_AUTH_URL": nobody},
            f"asking {nobody} who",
            "127.0.0.1",
            "Try again",
        ),
        ({"KIMI_TOKEN": "hello you"}, "reading the credentials", "No Kimi credential was found", "KIMI_TOKEN"),
        ({"KIMI_TIMEOUT_S": "ten"}, "settings and data files", "KIMI_TIMEOUT_S", "Correct"),
    )
    for number, (env, tried, meaning, action) in enumerate(cases):
        (home := tmp_path / str(number)).mkdir()  # accounts are kept: each case is a user of its own
        done = run(home, "doctor", **env)
        assert (done.returncode, done.stderr) == (1, ""), done.stdout
        ((heading, lines),) = [item for item in checks(done.stdout).items() if item[0].startswith("FAIL")]
        assert heading.startswith(f"FAIL {tried}")
        assert len(lines) == 2, "what it means, and what to do"
        assert meaning in lines[0]
        assert lines[1].startswith("-> ")
        assert action in lines[1]


def test_colours_only_on_a_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in run(tmp_path, "doctor").stdout
    ours, theirs = pty.openpty()
    env = clean_environment(tmp_path, TERM="xterm")
    try:
        with subprocess.Popen([*COMMAND, "doctor"], env=env, cwd=tmp_path, stdout=theirs, stdin=theirs) as child:
            os.close(theirs)
            said = b""
            while b"FAIL" not in said:
                said += os.read(ours, 65536)
            child.wait(30)
    finally:
        os.close(ours)
    assert b"\x1b[31mFAIL\x1b[0m" in said


# --- simulate ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulate_prints_a_command_that_works(tmp_path: Path, number: signal.Signals) -> None:
    command = [*COMMAND, "simulate", "--port", "0"]
    with Process(command, tmp_path / "log", clean_environment(tmp_path), tmp_path) as simulate:
        line = simulate.wait_for(r"(?m)^KIMI_BASE_URL=.+ serve$", 30)[0]
        assert f"Simulator on {line.split()[0].partition('=')[2]} " in simulate.output
        env = dict(pair.split("=", 1) for pair in line.split()[:3])
        done = run(tmp_path, "chat", "Hello", **env)
        assert (done.returncode, done.stderr) == (0, "")
        assert "[simulator]" in done.stdout
        assert httpx.get(env["KIMI_BASE_URL"], trust_env=False).status_code == 200
        simulate.child.send_signal(number)
        assert simulate.child.wait(15) == 0
        assert "Traceback" not in simulate.output
