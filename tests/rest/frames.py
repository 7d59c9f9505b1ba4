"""Bytes for the tests, framed here and not by the code under test."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "golden"


@lru_cache
def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.bin").read_bytes()


def golden_http(name: str) -> tuple[int, bytes]:
    """Status and body of a golden HTTP answer."""
    head, _, body = golden(name).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body
