"""How the commands speak: two consoles, one sentence for each failure that a user can cause, our own name.

Decides nothing and knows no command.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from .errors import KimiError
from .observe import redact
from .preflight import ServeError
from .settings import Settings, SettingsError
from .wording import Language

# Lines are never cut to the terminal's width: a path or command that is broken up can't be copied.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def program() -> str:
    """The command as the reader can type it: with its path, since the environment is often not activated."""
    path = Path(sys.argv[0])
    return f"{shlex.quote(sys.executable)} -m {__package__}" if path.name == "__main__.py" else shlex.quote(str(path))


@contextmanager
def one_sentence() -> Iterator[None]:
    """Errors a user can mend, as one sentence and exit code 2."""
    try:
        yield
    except (ServeError, SettingsError) as exc:
        err.print(Text(f"kimi-provider: {redact(str(exc))}"))
        raise typer.Exit(2) from None
    except KimiError as exc:
        err.print(Text(f"kimi-provider: {redact(exc.describe(language()))}"))
        raise typer.Exit(2) from None


def language() -> Language:
    """That of KIMI_LANG, as far as the settings can be read."""
    try:
        return Settings.load().kimi_lang
    except SettingsError:
        return "en"
