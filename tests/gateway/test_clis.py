"""Claude Code, Codex CLI and Gemini CLI from npm, pointed at the gateway by their own settings: each reads a file,
changes it and finishes, as the simulated model is scripted to. Two of them also with the models that they have built
in, which the aliases of the shipped configuration lead to Kimi.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.test_tools import calls, prompts, says
from tests.harness import MASTER_KEY, Gateway, Simulator, clean_environment, shipped_config_without_limits
from tests.mitm import clients

TASK = "Change blue to green in colours.txt"
DONE = "It is green now."
LIMIT_S = 110


@pytest.fixture(scope="module")
def tools() -> str:
    return clients.install()


@pytest.fixture(scope="module")
def aliases(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    """A gateway with the aliases block switched on."""
    tmp = tmp_path_factory.mktemp("aliases")
    config = shipped_config_without_limits(tmp)
    config.write_text(re.sub(r"^#aliases ", "", config.read_text(), flags=re.M))
    token = simulator_process.login("aliases")["refresh_token"]
    with Gateway(tmp, simulator_process.url, token, config) as gateway:
        yield gateway


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (path := tmp_path / "work" / "colours.txt").write_text("red\nblue\n")
    return path


def run(tools: str, colours: Path, *command: str, **env: str) -> str:
    """What a tool printed. Its home is new and empty."""
    done = subprocess.run(
        command,
        env=clean_environment(colours.parent.parent, PATH=tools, **env),
        cwd=colours.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def finished(simulator: Simulator, colours: Path, said: str, before: int = 0) -> None:
    """The task is done, in three calls behind `before` others, which go on in one chat."""
    assert DONE in said
    assert colours.read_text() == "red\ngreen\n"
    asked = prompts(simulator)[before:]
    assert "blue" in asked[1].rpartition("[TOOL RESULT")[2]
    assert len(asked) == 3
    assert len({call["chat_id"] for call in simulator.state()["calls"][before:]}) == 1


def claude_code(gateway: Gateway, simulator: Simulator, tools: str, colours: Path, **env: str) -> None:
    path = str(colours)
    change = {"file_path": path, "old_string": "blue", "new_string": "green"}
    says(simulator, f"I read it.\n\n{calls(('Read', {'file_path': path}))}", calls(("Edit", change)), DONE, piece=0)
    said = run(
        tools, colours, "claude", "-p", TASK, "--permission-mode", "acceptEdits", "--allowedTools", "Read,Edit",
        ANTHROPIC_BASE_URL=gateway.url,
        ANTHROPIC_AUTH_TOKEN=MASTER_KEY,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_AUTOUPDATER="1",
        **env,
    )  # fmt: skip
    finished(simulator, colours, said)


def test_claude_code(gateway: Gateway, simulator: Simulator, tools: str, colours: Path) -> None:
    claude_code(gateway, simulator, tools, colours, ANTHROPIC_MODEL="kimi", ANTHROPIC_SMALL_FAST_MODEL="kimi")


def test_claude_code_with_its_own_models(aliases: Gateway, simulator: Simulator, tools: str, colours: Path) -> None:
    claude_code(aliases, simulator, tools, colours)


def test_codex(gateway: Gateway, simulator: Simulator, tools: str, colours: Path) -> None:
    (home := colours.parent.parent / "codex").mkdir()
    (home / "config.toml").write_text(
        'model = "kimi"\nmodel_provider = "kimi"\n'
        f'[model_providers.kimi]\nname = "kimi"\nbase_url = "{gateway.url}/v1"\n'
        'env_key = "GATEWAY_KEY"\nwire_api = "responses"\n'
    )
    says(
        simulator,
        f"I read it.\n\n{calls(('exec_command', {'cmd': 'cat colours.txt'}))}",
        calls(("exec_command", {"cmd": "sed -i s/blue/green/ colours.txt"})),
        DONE,
        piece=0,
    )
    command = ("codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", TASK)
    said = run(tools, colours, *command, CODEX_HOME=str(home), GATEWAY_KEY=MASTER_KEY)
    finished(simulator, colours, said)


def gemini_cli(gateway: Gateway, simulator: Simulator, tools: str, colours: Path, *model: str) -> str:
    (settings := colours.parent.parent / ".gemini").mkdir()
    auth = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    (settings / "settings.json").write_text(json.dumps(auth))
    path = str(colours)
    change = {"file_path": path, "old_string": "blue", "new_string": "green", "instruction": "Make blue green."}
    says(simulator, calls(("read_file", {"file_path": path})), calls(("replace", change)), DONE, piece=0)
    return run(
        tools, colours, "gemini", *model, "--approval-mode", "yolo", "-p", TASK,
        GOOGLE_GEMINI_BASE_URL=gateway.url,
        GEMINI_API_KEY=MASTER_KEY,
        GEMINI_CLI_TRUST_WORKSPACE="true",
    )  # fmt: skip


def test_gemini_cli(gateway: Gateway, simulator: Simulator, tools: str, colours: Path) -> None:
    finished(simulator, colours, gemini_cli(gateway, simulator, tools, colours, "-m", "kimi"))


def test_gemini_cli_asks_its_router_first(aliases: Gateway, simulator: Simulator, tools: str, colours: Path) -> None:
    """Without a model it has a small one choose, by JSON; an answer that does not fit is asked for five times."""
    says(simulator, 'Sure:\n```json\n{"complexity_reasoning": "One edit.", "complexity_score": "20"}\n```', piece=0)
    said = gemini_cli(aliases, simulator, tools, colours)
    assert "complexity_score" in prompts(simulator)[0]
    finished(simulator, colours, said, before=1)
