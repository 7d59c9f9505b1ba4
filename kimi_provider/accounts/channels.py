"""Ways to reach an account's owner: a service that Apprise knows, one URL each.

An Apprise URL holds secrets, and so do the errors and debug logs of the libraries behind it. Each delivery therefore
has a process of its own (`apprise_child`), of which only the exit code is read: nothing it says reaches a log, it can't
hang for long, and no call waits while it imports. Other ways (LiteLLM's) have the same shape and live elsewhere.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, Protocol

from ..errors import KimiError, Unavailable
from ..loops import joined
from ..settings import Settings
from . import apprise_child
from .alert_text import Alert
from .credential import digest_of

#: The longest that a delivery may take.
SEND_TIMEOUT_S: Final = 60


class Channel(Protocol):
    """Where alerts go."""

    @property
    def name(self) -> str:
        """The same on every process that has this channel; at most 80 characters."""

    @property
    def label(self) -> str:
        """For logs: no secret."""

    @property
    def configured(self) -> bool:
        """Whether there is anybody to tell now."""

    async def send(self, alert: Alert) -> None:
        """Deliver, once. Raises Unavailable."""


class AppriseChannel:
    """One entry of KIMI_ALERT_URLS; `number` counts from 1."""

    configured = True

    def __init__(self, url: str, number: int) -> None:
        self._url = url
        self.name = f"apprise-{digest_of(url)[:32]}"
        self.label = f"entry {number} of KIMI_ALERT_URLS ({url.partition(':')[0]})"

    async def send(self, alert: Alert) -> None:
        """Deliver. Raises Unavailable: the service refused it, or is not one that Apprise knows."""
        content = json.dumps(
            {"url": self._url, "title": alert.title, "body": alert.body, "severity": alert.severity}
        ).encode()
        sent: concurrent.futures.Future[int | None] = concurrent.futures.Future()
        # Not on a pool: a process that ends does not wait for it, and what it began is delivered all the same.
        threading.Thread(target=lambda: sent.set_result(_told(content)), name="kimi-alert", daemon=True).start()
        code = await joined(sent)
        if code != apprise_child.DELIVERED:
            raise _failure(code)


def _told(content: bytes) -> int | None:
    """The exit code; None when it took too long or could not be started."""
    # By its path, and without that path among those of modules: it needs nothing of ours.
    command = [sys.executable, "-P", str(Path(apprise_child.__file__))]
    try:
        return subprocess.run(  # noqa: S603  # our own file
            command,
            input=content,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SEND_TIMEOUT_S,
            check=False,
        ).returncode
    except (subprocess.TimeoutExpired, OSError):
        return None


def _failure(code: int | None) -> KimiError:
    if code == apprise_child.ABSENT:
        return Unavailable("Apprise is not installed", cure=INSTALL)
    if code == apprise_child.UNREADABLE:
        return Unavailable("Apprise does not know such a URL", cure="Compare it with Apprise's list of services.")
    return Unavailable("its service did not take the message", cure="Check the URL, and that the service is up.")


INSTALL: Final = "pip install 'kimi-provider[alerts]'"


def apprise_channels(settings: Settings) -> list[AppriseChannel]:
    """One for each entry of KIMI_ALERT_URLS, the same one only once."""
    urls = dict.fromkeys(url.get_secret_value() for url in settings.kimi_alert_urls)
    return [AppriseChannel(url, number) for number, url in enumerate(urls, 1)]


def apprise_missing() -> bool:
    """Whether Apprise would be needed and is not there."""
    return importlib.util.find_spec("apprise") is None
