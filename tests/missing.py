"""What a machine lacks and could have: a test that needs it is skipped, and fails where everything is to be tested."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def required() -> bool:
    """Whether such a lack is a failure: under CI, and in `.ci/run`, which says KIMI_REQUIRE_CLIS=1."""
    return os.environ.get("CI", "").lower() in ("true", "1") or os.environ.get("KIMI_REQUIRE_CLIS") == "1"


def missing(what: str) -> NoReturn:
    """End the test; `what` is not there, and how to get it."""
    if required():
        pytest.fail(what)
    pytest.skip(what)
