"""Connections of a process that go round the proxy, read from Linux's /proc. Elsewhere nothing is seen.

Only for diagnosis: a connection that lives for less than the interval is missed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .janitor import family

_INTERVAL_S = 0.02
_HTTPS = 443


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """A socket to port 443 of another host: HTTPS over TCP, or QUIC over UDP."""

    protocol: Literal["tcp", "udp"]
    address: str


async def watch(pid: int, seen: set[Direct]) -> None:
    """Add what `pid` and the processes below it have open, until cancelled."""
    while sys.platform == "linux":
        seen |= set(direct(pid))
        await asyncio.sleep(_INTERVAL_S)


def direct(pid: int) -> Iterator[Direct]:
    """What is open now."""
    for each in family(pid):
        inodes = _inodes(each)
        for name in ("tcp", "tcp6", "udp", "udp6"):
            for address, port, inode in _table(Path(f"/proc/{each}/net/{name}")) if inodes else ():
                if port == _HTTPS and inode in inodes and not address.is_loopback:
                    yield Direct(protocol="tcp" if name.startswith("tcp") else "udp", address=str(address))


def _inodes(pid: int) -> set[str]:
    found = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)  # noqa: PTH115  # a socket's target is no path
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def _table(path: Path) -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int, str]]:
    try:
        lines = path.read_text("ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        address, _, port = fields[2].partition(":")
        # Words of four bytes in the machine's own order.
        words = [int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8)]
        yield ipaddress.ip_address(b"".join(words)), int(port, 16), fields[9]
