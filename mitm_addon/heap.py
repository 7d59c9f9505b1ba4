"""Freed memory, given back to the system before a large body is copied.

glibc keeps what mitmproxy's read buffer frees, so that a rewritten body would come on top: three times its size and
more. Elsewhere this does nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

#: Bodies from this size on are worth some care for memory.
LARGE_BYTES: Final = 4 * 1024 * 1024


def _found() -> Callable[[int], Any] | None:
    try:
        trim: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return None
    return trim


_TRIM = _found()


def give_back() -> None:
    """Takes milliseconds; only worth it before megabytes are asked for."""
    if _TRIM is not None:
        _TRIM(0)
