"""`python -m kimi_provider` is the command `kimi-provider`."""

from .cli import main

main()
