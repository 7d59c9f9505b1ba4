"""The gateway that answers: its address, its key, and whether it listens now.

Knows sockets, not mitmproxy. The key is read from where `kimi-provider serve` keeps it, unless the environment names
one; it is never printed. No `.env` file is read: this command is started inside other people's repositories, and such
a file could send prompts and the key elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:4000"
CONNECT_TIMEOUT_S = 1.0
#: How long one look counts: it keeps a busy tool from opening two connections for each call.
LOOK_COUNTS_S = 1.0


class GatewayError(Exception):
    """The gateway's address or key can't be used; the text says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """Where redirected calls go. `prefix` is a path before every path, empty or `/like-this`."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    key: str = field(repr=False)

    @classmethod
    def at(cls, url: str, key: str) -> Gateway:
        """From an address such as http://127.0.0.1:4000. Raises GatewayError."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise GatewayError(f"The gateway's address {url!r} is no URL such as {DEFAULT_URL}.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise GatewayError(f"The gateway's address {url!r} must be scheme, host and port, such as {DEFAULT_URL}.")
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise GatewayError("The gateway's key is empty or holds characters that no header can carry.")
        return cls(scheme=parts.scheme, host=parts.hostname, port=port, prefix=parts.path.rstrip("/"), key=key)

    @property
    def authority(self) -> str:
        """For a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Without the key."""
        return f"{self.scheme}://{self.authority}{self.prefix}"


class Watch:
    """Whether the gateway accepts connections, asked at most once a second."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float] = time.monotonic) -> None:
        self._gateway = gateway
        self._clock = clock
        self._up = False
        self._until = clock()

    async def is_up(self) -> bool:
        """Connect and hang up, unless that was done a moment ago."""
        if self._clock() >= self._until:
            self._up = await self._connects()
            self._until = self._clock() + LOOK_COUNTS_S
        return self._up

    def forget(self) -> None:
        """What was seen is wrong: look again next time."""
        self._until = self._clock()

    async def _connects(self) -> bool:
        writer = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(self._gateway.host, self._gateway.port)
        except (OSError, TimeoutError):
            return False
        finally:
            if writer is not None:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        return True


def key_file(environment: Mapping[str, str]) -> Path:
    """Where `kimi-provider serve` keeps the key it has made."""
    home = Path(environment.get("HOME") or Path.home())
    if sys.platform == "darwin":
        base = home / "Library/Application Support"
    elif os.name == "nt":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData/Local")
    else:
        base = Path(environment.get("XDG_STATE_HOME") or home / ".local/state")
    return base / "kimi-provider" / "gateway.key"


def find_key(environment: Mapping[str, str]) -> str:
    """The gateway's key. Raises GatewayError when there is none."""
    for name in ("KIMI_GATEWAY_KEY", "LITELLM_MASTER_KEY"):
        if key := environment.get(name, "").strip():
            return key
    path = key_file(environment)
    try:
        if key := path.read_text("utf-8").strip():
            return key
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as exc:
        raise GatewayError(f"{path} can't be read ({exc}). Set KIMI_GATEWAY_KEY instead.") from None
    raise GatewayError(
        f"No key of the gateway: KIMI_GATEWAY_KEY is not set and {path} is not there. Start the gateway once "
        "(kimi-provider serve), or set KIMI_GATEWAY_KEY."
    )
