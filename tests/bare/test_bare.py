"""Our wheel beside a LiteLLM that is already there: nothing of it changes, and four lines of configuration are enough.

Each `litellm-*.txt` is what `pip freeze` said of a new environment with `litellm[proxy]`: the tested version, and the
newest when it was last written. PyPI is needed; without it the tests skip, and fail under CI (`tests.missing`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.bodies import BODIES
from tests.gateway.test_fallbacks import ask
from tests.gateway.test_foreign import BareLiteLLM
from tests.harness import ROOT, Simulator
from tests.missing import missing

RECORDED = sorted(Path(__file__).parent.glob("litellm-*.txt"))
#: As the README has it.
FOUR_LINES = """
model_list: [{ model_name: kimi, litellm_params: { model: kimi/kimi-latest } }]
litellm_settings:
  custom_provider_map: [{ provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler }]
general_settings: { master_key: os.environ/LITELLM_MASTER_KEY }
"""


def uv(*arguments: str | Path) -> str:
    """What uv prints."""
    command = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    return subprocess.run([command, *arguments], capture_output=True, text=True, timeout=600, check=True).stdout


def freeze(python: Path) -> set[str]:
    return set(uv("pip", "freeze", "--python", python).splitlines())


@dataclass(frozen=True)
class Installed:
    """An environment before and after our wheel was installed into it."""

    python: Path
    recorded: set[str]
    before: set[str]
    after: set[str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        uv("build", "--quiet", "--wheel", "--out-dir", folder := tmp_path_factory.mktemp("wheel"), ROOT)
    except (OSError, subprocess.CalledProcessError) as exc:
        missing(f"no wheel could be built: {getattr(exc, 'stderr', exc)}")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=RECORDED, ids=lambda path: path.stem)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    tmp: Path = tmp_path_factory.mktemp("bare")
    python = tmp / "venv/bin/python"
    uv("venv", "--quiet", "--python", sys.executable, tmp / "venv")
    uv("pip", "install", "--quiet", "--no-deps", "--python", python, "-r", request.param)
    before = freeze(python)
    # LiteLLM's newest asks for a newer certifi than some mirrors have.
    (any_certifi := tmp / "overrides.txt").write_text("certifi\n")
    uv("pip", "install", "--quiet", "--python", python, "--override", any_certifi, wheel)
    return Installed(python, set(request.param.read_text("utf-8").splitlines()), before, freeze(python))


@pytest.fixture(scope="module")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, installed: Installed, simulator_process: Simulator
) -> Iterator[BareLiteLLM]:
    token = simulator_process.login("bare")["refresh_token"]
    env = {"KIMI_BASE_URL": simulator_process.url, "KIMI_AUTH_URL": simulator_process.url, "KIMI_TOKEN": token}
    tmp = tmp_path_factory.mktemp("proxy")
    with BareLiteLLM(tmp, FOUR_LINES, python=installed.python, **env) as proxy:
        yield proxy


def test_there_is_a_record_of_the_tested_version_and_of_a_newer_one() -> None:
    assert len(RECORDED) == 2
    for path in RECORDED:
        assert f"litellm=={path.stem.removeprefix('litellm-')}" in path.read_text("utf-8").splitlines()
    assert 'name = "litellm"\nversion = "1.106.2"' in (ROOT / "uv.lock").read_text("utf-8")


def test_nothing_that_was_there_changes(installed: Installed) -> None:
    assert installed.before == installed.recorded
    assert installed.after >= installed.before
    assert any(line.startswith("kimi-provider") for line in installed.after - installed.before)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_each_api_answers(proxy: BareLiteLLM, simulator: Simulator, surface: str, stream: bool) -> None:
    answer = ask(proxy, surface, "kimi", stream)
    assert answer.status_code == 200, answer.text
    assert "[simulator]" in answer.text
    assert simulator.state()["total_streams"] == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", [*BODIES, "gemini"])
def test_errors_keep_their_status(proxy: BareLiteLLM, simulator: Simulator, surface: str, stream: bool) -> None:
    simulator.scenario("paywall", times=None)
    answer = ask(proxy, surface, "kimi", stream)
    assert answer.status_code == 403, answer.text


def test_no_shim_is_off(proxy: BareLiteLLM) -> None:
    """What a version of LiteLLM has changed is said at the start."""
    assert "has changed" not in proxy.output
