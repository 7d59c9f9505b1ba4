"""What is left when a run is killed hard: this process ends the tool and removes the private folder.

Started beside each run as `python -I -S janitor.py FOLDER`, standard library only, in a session of its own. Reads lines
from a pipe: `child PID`, and `done` when the run has cleaned up itself. The pipe's end without `done` means that the
run was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

GRACE_S = 2.0


def main() -> None:
    """Wait for the end of standard input."""
    child = 0
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "done":
            return
        if word == "child":
            child = int(value)
    if child:
        end(family(child))
    shutil.rmtree(sys.argv[1], ignore_errors=True)


def family(pid: int) -> list[int]:
    """`pid` and all processes below it."""
    parents = _parents()
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known and child not in found]
    return found


def _parents() -> dict[int, int]:
    listed = subprocess.run(["ps", "-Ao", "pid=,ppid="], capture_output=True, text=True) if not _has_proc() else None  # noqa: S607  # of the PATH
    if listed is not None:
        return {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}
    parents = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # this file starts in 20 ms without pathlib
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:  # noqa: PTH123  # no pathlib
                    parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    return parents


def _has_proc() -> bool:
    return os.path.exists("/proc/self/stat")  # noqa: PTH110  # no pathlib


def end(pids: list[int]) -> None:
    """Ask, wait a moment, insist."""
    give_up_at = time.monotonic() + GRACE_S
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            _send(pid, number)
        while any(_send(pid, 0) for pid in pids) and time.monotonic() < give_up_at:
            time.sleep(0.02)


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
