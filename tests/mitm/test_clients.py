"""Real tools under `kimi-mitm run`, a real LiteLLM gateway on the simulator behind it, providers that record."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import clients
from .rig import CANARY, ROOT
from .world import World

#: The first of them downloads tools of half a gigabyte, or waits for the gateway to start; each run has its own limit.
pytestmark = pytest.mark.timeout(900)
HERE = Path(__file__).parent
GATEWAY_PYTHON = ROOT / ".venv/bin/python"
KEY = "sk-test-0123456789abcdef0123456789abcdef"
READY_LIMIT_S = 180.0


@dataclass(frozen=True)
class Gateway:
    url: str
    log: Path

    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`kimi-provider serve` in demo mode, as `make run` starts it."""
    folder = tmp_path_factory.mktemp("gateway")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The shipped configuration; only its requests per minute are taken out.
    (config := folder / "config.yaml").write_text(re.sub(r", rpm: \d+", "", (ROOT / "litellm_config.yaml").read_text()))
    env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    env |= {
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": KEY,
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [str(GATEWAY_PYTHON), "-m", "kimi_provider", "serve", "--port", str(port), "--config", str(config)]
    log = folder / "gateway.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=env, cwd=folder, stdin=subprocess.PIPE, stdout=out, stderr=out) as child,
    ):
        give_up_at = time.monotonic() + READY_LIMIT_S
        while "Ready:" not in log.read_text("utf-8", "replace"):
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            time.sleep(0.1)
        yield Gateway(url=f"http://127.0.0.1:{port}", log=log)
        child.terminate()
        child.wait(30)


@pytest.fixture
def world(tmp_path: Path, gateway: Gateway) -> Iterator[World]:
    with World(tmp_path, gateway.url, KEY) as made:
        yield made
    assert KEY.encode() not in made.origin.raw
    assert CANARY not in gateway.log_text()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    assert made.left_behind() == []


def keys(value: str) -> dict[str, str]:
    return {f"{name}_API_KEY": value for name in ("OPENAI", "ANTHROPIC", "GEMINI", "AZURE_OPENAI")}


def test_official_sdks_with_their_default_hosts(world: World) -> None:
    done = world.run(str(GATEWAY_PYTHON), str(HERE / "sdk_calls.py"), env=keys(CANARY))
    assert done.returncode == 0, done.stderr
    answers = dict(map(json.loads, done.stdout.splitlines()))
    assert answers.keys() == {"openai chat", "openai responses", "openai azure", "anthropic", "google-genai"}
    for name, pieces in answers.items():
        assert "[simulator]" in "".join(pieces), name
        assert len(pieces) > 1, f"{name} did not stream"
    assert (world.origin.tcp, world.company.asked) == (0, [])


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(world: World, version: str) -> None:
    body = {
        "model": "claude-opus-4-8",
        "max_tokens": 4000,
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    done = world.run(
        "curl", "-sSN", version, "-H", "content-type: application/json", "-H", f"x-api-key: {CANARY}",
        "-H", "anthropic-version: 2023-06-01", "-d", json.dumps(body), "https://api.anthropic.com/v1/messages",
    )  # fmt: skip
    assert "event: message_stop" in done.stdout
    assert (world.origin.tcp, world.company.asked) == (0, [])


def test_curl_sees_the_gateways_models_in_each_format(world: World) -> None:
    script = """
    curl -sS https://api.openai.com/v1/models; echo
    curl -sS -H 'anthropic-version: 2023-06-01' https://api.anthropic.com/v1/models; echo
    curl -sS 'https://generativelanguage.googleapis.com/v1beta/models?key=x'
    """
    openai, anthropic, gemini = map(json.loads, world.run("sh", "-c", script).stdout.splitlines())
    assert "kimi" in {row["id"] for row in openai["data"]}
    assert "kimi" in {row["id"] for row in anthropic["data"] if row["type"] == "model"}
    assert "models/kimi" in {row["name"] for row in gemini["models"]}
    assert world.origin.tcp == 0


@pytest.fixture(scope="module")
def tools() -> str:
    return clients.install()


def test_a_node_script_knows_nothing_of_proxies(world: World, tools: str) -> None:
    done = world.run("node", str(HERE / "fetch.mjs"), env={"PATH": tools})
    assert done.stdout.splitlines() == ["fetch 200 kimi-gateway true", "https 200 kimi-gateway true"], done.stderr
    assert (world.origin.tcp, world.company.asked) == (0, [])


def quiet_provider(world: World) -> None:
    """A provider that knows none of the dummy keys, and no way to any other host."""
    world.origin.status = "401 Unauthorized"


def nothing_asked(world: World) -> None:
    """What passed to the provider held no prompt: only what these tools ask beside their calls."""
    paths = {(call.method, call.target.partition("?")[0]) for call in world.origin.calls}
    model_calls = re.compile(r"^(/v1/messages|/v1/responses|/v1/chat/completions|.*:(stream)?[gG]enerateContent)$")
    assert not [path for _, path in paths if model_calls.match(path)]
    assert b"Say hello" not in world.origin.raw


def test_claude_code(world: World, tools: str) -> None:
    quiet_provider(world)
    done = world.run("claude", "-p", "Say hello", env={"PATH": tools})
    assert "[simulator]" in done.stdout, (done.stdout, done.stderr)
    assert done.returncode == 0
    nothing_asked(world)


def test_claude_code_in_strict_mode(world: World, tools: str) -> None:
    done = world.run("claude", "-p", "Say hello", options=("--strict",), env={"PATH": tools})
    assert "[simulator]" in done.stdout, (done.stdout, done.stderr)
    assert world.origin.tcp == 0


def test_claude_code_shows_why_when_the_gateway_is_down(world: World, tools: str) -> None:
    env = {"PATH": tools, "KIMI_GATEWAY_URL": "http://127.0.0.1:1"}
    done = world.run("claude", "-p", "Say hello", options=("--strict",), env=env)
    assert done.returncode != 0
    assert "kimi-mitm: The gateway at http://127.0.0.1:1 does not answer" in done.stdout + done.stderr


def test_codex(world: World, tools: str) -> None:
    quiet_provider(world)
    (world.folder / ".codex").mkdir()
    command = ("codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "Say hello")
    done = world.run(*command, env={"PATH": tools})
    assert "[simulator]" in done.stdout, (done.stdout, done.stderr)
    assert done.returncode == 0
    nothing_asked(world)


def test_codex_shows_why_when_the_gateway_is_down(world: World, tools: str) -> None:
    quiet_provider(world)
    (world.folder / ".codex").mkdir()
    command = ("codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "Say hello")
    done = world.run(*command, env={"PATH": tools, "KIMI_GATEWAY_URL": "http://127.0.0.1:1"})
    assert done.returncode != 0
    assert "kimi-mitm: The gateway at http://127.0.0.1:1 does not answer" in done.stdout + done.stderr
    assert "Reconnecting" not in done.stderr


def gemini(world: World, tools: str, *arguments: str, **env: str) -> Any:
    settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    (world.folder / ".gemini").mkdir(exist_ok=True)
    (world.folder / ".gemini/settings.json").write_text(json.dumps(settings))
    env = {"PATH": tools, "GEMINI_CLI_TRUST_WORKSPACE": "true", **env}
    return world.run("gemini", *arguments, "-p", "Say hello", env=env)


def test_gemini_cli(world: World, tools: str) -> None:
    quiet_provider(world)
    # A named model: its router's own call needs an answer by schema, which depends on the model, not on us.
    done = gemini(world, tools, "-m", "gemini-2.5-pro")
    assert "[simulator]" in done.stdout, (done.stdout, done.stderr)
    assert done.returncode == 0
    nothing_asked(world)


def test_gemini_cli_shows_why_when_the_gateway_is_down(world: World, tools: str) -> None:
    done = gemini(world, tools, "-m", "gemini-2.5-pro", KIMI_GATEWAY_URL="http://127.0.0.1:1")
    assert done.returncode != 0
    assert "kimi-mitm: The gateway at http://127.0.0.1:1 does not answer" in done.stdout + done.stderr
    assert "Retrying with backoff" not in done.stderr
    nothing_asked(world)
