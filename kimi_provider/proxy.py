"""The process that `serve` starts: LiteLLM's own command, which ends when `serve` is gone.

Imports neither LiteLLM nor our bridge before the command does: LiteLLM imports a handler at its own moment.
"""

from __future__ import annotations

import os
import signal
import time

from .lifeline import when_parent_ends

#: How long running answers may still take when nobody is left to ask for a faster end.
_PATIENCE_S = 5.0


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # `serve` gave us a group of our own, workers included


if __name__ == "__main__":
    when_parent_ends(_end)
    from litellm import run_server

    run_server()
