"""The finder finds: each way to leak, planted in a line of log."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from .needles import WINDOW, Needles

HEAD = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9"
PAYLOAD = base64.urlsafe_b64encode(json.dumps({"sub": "canary", "n": list(range(60))}).encode()).decode().rstrip("=")
SIGNATURE = "Zm9yIHRlc3RzIG9ubHk_-ZHVtbXkgc2lnbmF0dXJlIG9mIG5vdGhpbmc"
TOKEN = f"{HEAD}.{PAYLOAD}.{SIGNATURE}"

PLANTED: dict[str, Callable[[str], str]] = {
    "raw": str,
    "in a header": lambda t: f"authorization: Bearer {t}",
    "payload": lambda t: t.split(".")[1],
    "signature": lambda t: t.split(".")[2],
    "middle": lambda t: t[100 : 100 + WINDOW],
    "cut off": lambda t: t[: len(HEAD) + 1 + WINDOW],
    "url-encoded": lambda t: quote(f"kimi-auth={t}", safe="").replace(".", "%2E"),
    "url-encoded twice": lambda t: quote(quote(t, safe="").replace(".", "%2E"), safe=""),
    "hex": lambda t: t.encode().hex(),
    **{f"base64 +{n}": lambda t, n=n: base64.b64encode(b"x" * n + t.encode()).decode() for n in range(3)},
    **{f"base64url +{n}": lambda t, n=n: base64.urlsafe_b64encode(b"x" * n + t.encode()).decode() for n in range(3)},
    "base64 of the payload": lambda t: base64.b64encode(t.split(".")[1].encode()).decode(),
    "json in json": lambda t: json.dumps(json.dumps({"token": t})),
    "across the dot": lambda t: t[len(HEAD) + len(PAYLOAD) - 8 :][: WINDOW + 2],
}


OPAQUE = "0a1b2c3d4e5fx.y.z" * 12
OF_JWTS = ("payload", "signature", "base64 of the payload", "across the dot")


@pytest.mark.parametrize(
    ("way", "secret"),
    [*((way, TOKEN) for way in PLANTED), *((way, OPAQUE) for way in PLANTED if way not in OF_JWTS)],
)
def test_every_way_to_leak_is_found(way: str, secret: str) -> None:
    needles = Needles()
    needles.add("canary", secret)
    assert needles.found_in(f'12:00 INFO {{"x": "{PLANTED[way](secret)}"}} done') == ["canary"]


def test_what_is_no_secret_is_not_found() -> None:
    needles = Needles()
    needles.add("canary", TOKEN)
    assert needles.found_in(f"header {HEAD}. masked [redacted] sha256:{'ab' * 32} {'=' * 100}") == []
