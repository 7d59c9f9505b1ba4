"""The command `kimi-provider` as a child process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.harness import Process, clean_environment, free_port

COMMAND = (sys.executable, "-m", "kimi_provider")


def run(tmp: Path, *arguments: str, given: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run to the end in `tmp`, which is also HOME, with `given` on standard input."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=clean_environment(tmp, **env),
        cwd=tmp,
        capture_output=True,
        text=True,
        timeout=60,
        input=given,
    )


class Serve(Process):
    """`kimi-provider serve`, ready; no key in its environment unless given."""

    def __init__(self, tmp: Path, *arguments: str, name: str = "serve", **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [*COMMAND, "serve", "--port", str(self.port), *arguments]
        super().__init__(command, tmp / f"{name}.log", clean_environment(tmp, **env), tmp)
        try:
            self.wait_for(r"# Responses\n.+\n", 90)
        except BaseException:
            self.stop()
            raise

    def curl_lines(self) -> list[str]:
        return re.findall(r"^curl .+$", self.output, re.M)

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the command alone; its exit code."""
        self.child.send_signal(number)
        return self.child.wait(20)


def family(pid: int) -> set[int]:
    """`pid` and all processes below it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def gone(pids: set[int], timeout_s: float = 5) -> bool:
    """Whether none of `pids` lives any more."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        if not any(_lives(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _lives(pid: int) -> bool:
    """Threads count, too: while one is left, the process keeps its sockets, though it looks like a zombie."""
    try:
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has just ended: look again
        return Path(f"/proc/{pid}").exists()
    return any(stat.rpartition(")")[2].split()[0] not in "ZX" for stat in stats)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
