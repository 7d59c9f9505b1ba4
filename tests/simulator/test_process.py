"""The simulator as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from .wire import CHAT, body, pack, unpack


class Child:
    """A simulator process; stopped by closing its standard input."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "kimi_provider.simulator", "--port", "0", "--exit-with-parent"]
        self.process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        out, err = self.process.communicate(timeout=10)  # closes standard input
        assert (out, err, self.process.returncode) == ("", "", 0)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return httpx.post(self.line.split()[-1] + path, trust_env=False, **more)


def test_one_line_tokens_across_a_restart_and_a_quiet_end(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    with Child("--key-file", str(key_file)) as child:
        assert child.line.startswith("simulator ready on http://127.0.0.1:")
        token = child.post("/_sim/login", json={"user": "ada"}).json()["access_token"]
    assert key_file.stat().st_mode & 0o777 == 0o600
    headers = {"authorization": f"Bearer {token}", "content-type": "application/connect+json"}
    with Child("--key-file", str(key_file)) as child:
        answer = child.post(CHAT, content=pack(body("[[scenario:say]]")), headers=headers)
        assert unpack(answer.content)[-1] == (2, {})
        with pytest.raises(httpx.ReadTimeout):  # the end must not wait for what hangs
            child.post(CHAT, content=pack(body("[[scenario:hang_mid_text]]")), headers=headers, timeout=0.3)
