"""`kimi-provider serve` as a person uses it: demo mode, real mode, several workers, and every way to stop."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness import MASTER_KEY, Process, Simulator, clean_environment, free_port, quick_overlay

from .running import COMMAND, Serve, family, gone, is_free


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person's home, with a blank in its path."""
    home = tmp_path_factory.mktemp("a home") / "of one"
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def demo(home: Path) -> Iterator[Serve]:
    with Serve(home, name="demo") as serve:
        yield serve


def test_demo_mode_says_so_and_how_to_leave_it(demo: Serve) -> None:
    said = demo.output
    assert "Demo mode: no Kimi credential found" in said
    for place in ("KIMI_TOKEN", "environment", ".env", "api_key"):
        assert place in said
    assert f"Real mode: KIMI_TOKEN=... {sys.executable} -m kimi_provider serve" in said
    assert f"Ready: {demo.url}   guide: {demo.url}/kimi" in said
    assert "no Kimi credential. Looked" not in said, "the child has the simulator's accounts"
    assert "Demo" in httpx.get(f"{demo.url}/kimi", trust_env=False).text


def test_nothing_is_coloured_or_cut_where_no_terminal_is(demo: Serve) -> None:
    ours = [line for line in demo.output.splitlines() if line.startswith(("Demo", "Real", "Ready", "Key", "#", "curl"))]
    assert len(ours) == 12
    assert not any("\x1b" in line for line in ours)


def test_the_key_is_made_once_for_its_owner_alone(demo: Serve, home: Path) -> None:
    key_file = home / "state" / "kimi-provider" / "gateway.key"
    assert f"Key:   {key_file}\n" in demo.output
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    key = key_file.read_text().strip()
    assert key.startswith("sk-")
    assert len(key) > 40
    assert key not in demo.output


@pytest.mark.parametrize("number", range(4), ids=["chat", "messages", "responses", "gemini"])
def test_the_printed_curl_lines_work_as_they_are(demo: Serve, home: Path, number: int) -> None:
    line = demo.curl_lines()[number]
    done = subprocess.run(["sh", "-c", line], env=clean_environment(home), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "[simulator]" in done.stdout
    assert "Hello" in done.stdout
    assert "data: " in done.stdout
    assert "error" not in done.stdout.lower().replace('"error":null', "").replace('"error": null', "")


def test_ctrl_c_waits_for_answers_and_a_second_one_does_not(demo: Serve, home: Path) -> None:
    """Last of the demo: it is over then."""
    pids = family(demo.child.pid)
    assert len(pids) >= 2
    key = (home / "state" / "kimi-provider" / "gateway.key").read_text().strip()
    ask = [{"role": "user", "content": "[[scenario:hang_mid_text]] Hi"}]
    with (
        httpx.Client(base_url=demo.url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as http,
        http.stream(
            "POST", "/v1/chat/completions", json={"model": "kimi", "messages": ask, "stream": True}, timeout=30
        ) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.iter_lines()
        next(lines)  # kept: dropping the iterator would end the stream
        demo.child.send_signal(signal.SIGINT)
        demo.wait_for("Stopping; running answers end first. Ctrl-C again stops at once.", 30)
        with pytest.raises(subprocess.TimeoutExpired):
            demo.child.wait(1)
        assert demo.end(signal.SIGINT) == 130
    assert gone(pids)
    assert is_free(demo.port)
    assert "Traceback" not in demo.output


def test_real_mode_with_two_workers_keeps_the_key_and_stops_in_order_on_ctrl_c(
    demo: Serve, home: Path, simulator: Simulator
) -> None:
    key = home / "state" / "kimi-provider" / "gateway.key"
    before = key.read_text()
    token = simulator.login("ada")["refresh_token"]
    env = {
        "KIMI_BASE_URL": simulator.url,
        "KIMI_AUTH_URL": simulator.url,
        "KIMI_UPSTREAM_FILE": str(quick_overlay(home)),
    }
    (home / ".env").write_text(f"KIMI_TOKEN={token}\n")
    try:
        with Serve(home, "--workers", "2", name="workers", **env) as serve:
            assert "Demo mode" not in serve.output
            assert "Accounts of KIMI_TOKEN: " in serve.output
            assert key.read_text() == before
            headers = {"authorization": f"Bearer {before.strip()}"}
            body = {"model": "kimi", "messages": [{"role": "user", "content": "Hi"}]}
            with httpx.Client(base_url=serve.url, headers=headers, trust_env=False, timeout=60) as http:
                assert http.post("/v1/chat/completions", json=body).status_code == 200
            pids = family(serve.child.pid)
            assert len(pids) >= 4, "one of ours, LiteLLM's parent and two workers"
            assert serve.end(signal.SIGINT) == 0
            assert gone(pids)
            assert is_free(serve.port)
            assert token.split(".")[1] not in serve.output
    finally:
        (home / ".env").unlink()


def test_nothing_outlives_a_command_that_is_killed(tmp_path: Path, simulator: Simulator) -> None:
    env = {
        "KIMI_TOKEN": simulator.login("ada")["refresh_token"],
        "KIMI_BASE_URL": simulator.url,
        "KIMI_AUTH_URL": simulator.url,
        "LITELLM_MASTER_KEY": MASTER_KEY,
    }
    simulator.scenario("hang_mid_text")
    body = {"model": "kimi", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with (
        Serve(tmp_path, "--workers", "2", name="killed", **env) as serve,
        httpx.Client(headers={"authorization": f"Bearer {MASTER_KEY}"}, trust_env=False, timeout=60) as http,
        http.stream("POST", f"{serve.url}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()  # kept: dropping the iterator would end the stream
        next(lines)
        pids = family(serve.child.pid)
        assert len(pids) >= 4
        serve.child.kill()
        # Not even for the answer that never ends, though it is given a moment.
        assert gone(pids, timeout_s=60)
        assert is_free(serve.port)


@contextmanager
def starting(tmp: Path) -> Iterator[tuple[Process, set[int]]]:
    """`serve` while LiteLLM starts, and the ids of its processes."""
    environment = clean_environment(tmp, LITELLM_MASTER_KEY=MASTER_KEY)
    with Process([*COMMAND, "serve", "--port", str(free_port())], tmp / "log", environment, tmp) as process:
        process.wait_for("Starting LiteLLM", 60)
        while len(pids := family(process.child.pid)) < 2:
            pass
        yield process, pids


def test_killed_during_the_start_it_leaves_nothing_either(tmp_path: Path) -> None:
    with starting(tmp_path) as (process, pids):
        process.child.kill()
        assert gone(pids, timeout_s=60)


def test_a_signal_during_the_start_stops_it_too(tmp_path: Path) -> None:
    with starting(tmp_path) as (process, pids):
        process.child.send_signal(signal.SIGINT)
        assert process.child.wait(30) == 0
        assert gone(pids)
        assert "Traceback" not in process.output
