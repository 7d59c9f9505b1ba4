"""`python -m bench [--quick] [--only NAME ...]`: exit code 1 when a limit is missed."""

from __future__ import annotations

import argparse
import asyncio
import sys

from .figures import FIGURES
from .report import run

ROUNDS = 5


def main() -> int:
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(prog="python -m bench", description="The gateway beside LiteLLM's openai/.")
    parser.add_argument("--quick", action="store_true", help="one round: shows that it runs, not how fast")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"prefix of one of: {', '.join(names)}")
    options = parser.parse_args()
    chosen = [f for f in FIGURES if not options.only or f.name.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"--only takes: {', '.join(names)}")
    return 0 if asyncio.run(run(chosen, 1 if options.quick else ROUNDS)) else 1


if __name__ == "__main__":
    sys.exit(main())
