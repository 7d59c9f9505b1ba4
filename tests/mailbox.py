"""Where alerts arrive: a real HTTP server on loopback, as a target of Apprise (`json://`) and as a Slack webhook."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from .listener import Listener, QuietHandler

#: Part of every address of it, as such services have one.
SECRET = "T0SECRETHOOK7/B0SECRETPART9/vErYsEcReTpAtHoFaWeBhOoK24"


class Mailbox(Listener):
    """`with Mailbox() as box:` answers `box.status`; while `box.open` is cleared it takes requests and says nothing."""

    def __init__(self) -> None:
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()
        box = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with box._changed:
                    box.requests.append((self.path, body))
                    box._changed.notify_all()
                box.open.wait(120)
                self.send_response(box.status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        super().__init__(Handler)
        self.apprise, self.webhook = f"json://{self.host}/apprise/{SECRET}", f"{self.url}/slack/{SECRET}"

    @property
    def letters(self) -> list[dict[str, Any]]:
        """What came through Apprise: title, message and type."""
        return [body for path, body in self.requests if path.startswith("/apprise/")]

    @property
    def titles(self) -> list[str]:
        return [str(letter["title"]) for letter in self.letters]

    @property
    def texts(self) -> list[str]:
        """What came as to Slack."""
        return [str(body["text"]) for path, body in self.requests if path.startswith("/slack/")]

    def until(self, there: Callable[[], bool], timeout_s: float = 120) -> None:
        give_up_at = time.monotonic() + timeout_s
        with self._changed:
            while not there():
                left_s = give_up_at - time.monotonic()
                assert left_s > 0, self.requests
                self._changed.wait(left_s)

    def __exit__(self, *exc: object) -> None:
        self.open.set()
        super().__exit__(*exc)
