"""Finds a secret in text, whole or in pieces, in every spelling in which it could leak.

Any run of `WINDOW` characters of a spelling counts: a token that is cut off, or one part of it, is found too. Of a JWT
the header part is left out, which all tokens share and which says nothing.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from kimi_provider.simulator import SimulatorServer

WINDOW = 20
_RUN = re.compile(rf"[A-Za-z0-9_+/=.%~-]{{{WINDOW},}}")


class Needles:
    """Secrets to look for, by name."""

    def __init__(self) -> None:
        self._windows: dict[str, str] = {}

    def add(self, name: str, secret: str) -> None:
        for spelling in spellings(secret):
            for at in range(len(spelling) - WINDOW + 1):
                self._windows.setdefault(spelling[at : at + WINDOW], name)

    def found_in(self, text: str) -> list[str]:
        """Names of the secrets that `text` gives away, each once."""
        names: dict[str, None] = {}
        for run in _RUN.finditer(text):
            for at in range(run.start(), run.end() - WINDOW + 1):
                name = self._windows.get(text[at : at + WINDOW])
                if name is not None:
                    names[name] = None
        return list(names)


def spellings(secret: str) -> Iterator[str]:
    """Raw, URL-encoded once and twice, hex, and base64 in both alphabets at the three offsets."""
    body = secret.split(".", 1)[1] if secret.startswith("eyJ") else secret
    parts = [part for part in body.split(".") if len(part) >= 16]
    encoded = quote(body, safe="").replace(".", "%2E")
    yield from dict.fromkeys((body, *parts, encoded, encoded.replace("%", "%25"), body.encode().hex()))
    for text in dict.fromkeys((body, *parts)):
        for offset in range(3):
            plain = base64.b64encode(b"\0" * offset + text.encode()).decode().rstrip("=")
            inner = plain[4 if offset else 0 : -4]
            yield from {inner, inner.replace("+", "-").replace("/", "_")}


def composed_token() -> str:
    """A refresh token as the real service issues them, with a signature of nothing."""
    now = int(time.time())
    payload = {"iss": secrets.token_hex(16), "app_id": "kimi", "typ": "refresh", "sub": secrets.token_hex(10)}
    payload |= {"ssid": secrets.token_hex(9), "iat": now, "exp": now + 90 * 86400, "jti": secrets.token_hex(20)}
    parts = [json.dumps({"alg": "HS512", "typ": "JWT"}).encode(), json.dumps(payload).encode(), secrets.token_bytes(64)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def watch(simulator: SimulatorServer, needles: Needles) -> list[str]:
    """Have `needles` learn each token that `simulator` issues from now on; the list grows with them."""
    issued: list[str] = []
    mint = simulator.state.accounts._mint
    sign = mint.sign

    def recording(*arguments: Any, **more: Any) -> tuple[str, str]:
        token, jti = sign(*arguments, **more)
        issued.append(token)
        needles.add(f"token {len(issued)}", token)
        return token, jti

    mint.sign = recording
    return issued
