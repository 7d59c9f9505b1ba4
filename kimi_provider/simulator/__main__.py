"""`python -m kimi_provider.simulator`: the simulator as a process of its own."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from ..recordings import Recording
from .server import run
from .state import Simulator


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m kimi_provider.simulator", description="A simulated Kimi service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4100, help="0 takes a free one")
    parser.add_argument("--key-file", type=Path, help="signing key, made when absent; tokens then outlive a restart")
    parser.add_argument("--scenario", type=Path, help="play a recording (docs/doctor.md)")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input ends")
    options = parser.parse_args()
    key = _key(options.key_file) if options.key_file is not None else None
    recording = Recording.load(options.scenario) if options.scenario is not None else None
    run(
        Simulator(key=key, recording=recording),
        host=options.host,
        port=options.port,
        exit_with_parent=options.exit_with_parent,
    )


def _key(path: Path) -> bytes:
    """The key in the file, which is made (0600) when it isn't there."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_hex(64).encode())
    return path.read_bytes()


if __name__ == "__main__":
    main()
