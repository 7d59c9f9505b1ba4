"""A child process that does not outlive its parent, however that one ended.

The parent keeps the writing end of the child's standard input open and never writes; when it is gone, killed or not,
the system closes that end and the child reads the end of the file. Works wherever there are pipes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


def when_parent_ends(act: Callable[[], None]) -> None:
    """Call `act` on a thread of its own once standard input has ended."""

    def watch() -> None:
        # Not through sys.stdin: a thread that waits in its buffer makes an interpreter that ends crash.
        while os.read(descriptor, 4096):
            pass
        act()

    descriptor = sys.stdin.fileno()
    threading.Thread(target=watch, name="lifeline", daemon=True).start()
