"""Real tools from npm, in the versions this was tried with. Installed once, for every test that runs them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from ..missing import missing

_SYSTEM = {"linux": "linux", "darwin": "darwin"}.get(sys.platform, "win")
_MACHINE = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(
    platform.machine().lower(), "x64"
)
#: The interpreter alone, without the package that installs it by a script.
NODE = f"node-{_SYSTEM}-{_MACHINE}"
FOLDER = Path(__file__).parents[2] / ".venv-mitm/clients"
PACKAGES = (
    f"{NODE}@22.23.3",
    "@anthropic-ai/claude-code@2.1.197",
    "@openai/codex@0.169.0",
    "@google/gemini-cli@0.61.0",
)


def install() -> str:
    """A PATH with the tools first. Ends the test where they can't be had (`missing`)."""
    marker = FOLDER / "installed"
    wanted = "\n".join(PACKAGES)
    if not marker.is_file() or marker.read_text("utf-8") != wanted:
        npm = shutil.which("npm")
        problem = "npm is not there" if npm is None else _install(npm)
        if problem:
            missing(problem)
        marker.write_text(wanted, "utf-8")
    modules = FOLDER / "node_modules"
    return os.pathsep.join((str(modules / NODE / "bin"), str(modules / ".bin"), os.environ["PATH"]))


def _install(npm: str) -> str:
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(FOLDER), *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return "" if done.returncode == 0 else f"npm install fails: {done.stderr[-1000:]}"
