"""The shortest proof that this installation works, on every supported Python: import, ask, list."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import litellm
import pytest

import kimi_provider
from kimi_provider.simulator import SimulatorServer

pytestmark = [
    # LiteLLM's own types.
    pytest.mark.filterwarnings("ignore:Item.*ReadOnly:UserWarning"),
    # It reads every attribute of a chunk that has the usage and no more, to leave it out.
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]

ASK = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorServer]:
    with SimulatorServer() as server, pytest.MonkeyPatch.context() as patch:
        server.change(pace=0)
        for name in ("KIMI_BASE_URL", "KIMI_AUTH_URL"):
            patch.setenv(name, server.url)
        patch.setenv("KIMI_TOKEN", "")
        importlib.import_module("kimi_provider.litellm_bridge")
        yield server


@pytest.fixture(scope="module")
def key(simulator: SimulatorServer) -> str:
    return simulator.login(user="smoke")["refresh_token"]


def test_every_module_can_be_imported() -> None:
    """In a process of its own: some parts bring the whole proxy, whose own imports warn."""
    root = Path(kimi_provider.__file__).parent
    files = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py") if path.stem != "__main__"]
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in files)
    assert len(names) > 50
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", script, *names], timeout=100, check=True)


def test_completion(key: str) -> None:
    answer = litellm.completion(model="kimi/kimi-thinking", messages=ASK, api_key=key)
    assert answer.choices[0].message.content.startswith("[simulator]")
    assert answer.choices[0].message.reasoning_content


def test_completion_streamed(key: str) -> None:
    chunks = litellm.completion(model="kimi/kimi", messages=ASK, api_key=key, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.startswith("[simulator]")


async def test_acompletion(key: str) -> None:
    answer = await litellm.acompletion(model="kimi/kimi", messages=ASK, api_key=key)
    assert answer.choices[0].message.content.startswith("[simulator]")


async def test_acompletion_streamed(key: str) -> None:
    chunks = await litellm.acompletion(model="kimi/kimi", messages=ASK, api_key=key, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert text.startswith("[simulator]")


def test_the_command_lists_the_models() -> None:
    command = [sys.executable, "-m", "kimi_provider", "models"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "kimi/kimi-k2.6" in done.stdout
    assert done.stderr == ""
