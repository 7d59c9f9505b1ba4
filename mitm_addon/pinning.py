"""Clients that refuse our certificate: who they are, and for how long they may go undecrypted.

Knows no mitmproxy. A client is its address together with the shape of its ClientHello, so that on one machine Node's
failure does not open the way for Python; entries expire. Without a time to live nobody is ever un-listed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Extensions that one client sends at times: padding, pre_shared_key, early_data, cookie (RFC 8446).
_PASSING = {0x10000 + number for number in (21, 41, 42, 44)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A TLS client as seen from here."""

    address: str
    hello: frozenset[int]
    host: str

    @classmethod
    def of(cls, *, address: str, host: str, ciphers: Iterable[int], extensions: Iterable[int]) -> Client:
        """Browsers add random values (RFC 8701) and shuffle the rest: neither counts."""
        # Ciphers and extensions have separate numbers; one set holds both.
        hello = {n for n in ciphers if not _is_grease(n)} | {0x10000 + n for n in extensions if not _is_grease(n)}
        return cls(address=address, host=host, hello=frozenset(hello - _PASSING))


def _is_grease(number: int) -> bool:
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


class Pinned:
    """The clients that are un-listed now."""

    def __init__(self, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._until: dict[Client, float] = {}

    def failed(self, client: Client) -> bool:
        """Note a refused certificate; whether `client` goes undecrypted from now on."""
        if self._keep_s <= 0:
            return False
        now = self._clock()
        self._until = {known: until for known, until in self._until.items() if until > now}
        self._until[client] = now + self._keep_s
        return True

    def __contains__(self, client: Client) -> bool:
        return self._until.get(client, 0.0) > self._clock()
