"""Any Chromium that this machine has, for tests that drive pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from .missing import missing

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "brave-browser")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def found_browser() -> str | None:
    """Its path; that of playwright's own when it has fetched one."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    for place in _PLACES:
        if Path(place).exists():
            return place
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running one. Where there is none the test ends (`missing`)."""
    path = found_browser()
    if path is None:
        missing("no Chromium was found (Debian: apt-get install chromium; or: playwright install chromium)")
    with sync_playwright() as playwright:
        try:
            # Root, as in a container, can't have a sandbox; /dev/shm is small there.
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
            )
        except Error as exc:
            pytest.fail(f"{path} does not start: {exc.message.splitlines()[0]}")
        try:
            yield browser
        finally:
            browser.close()
