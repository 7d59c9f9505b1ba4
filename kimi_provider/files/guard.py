"""Which addresses a caller's URL may reach: the public internet, and intranets that the operator lists.

Judges text and addresses, opens no connection. What it hands out as a `Target` holds addresses, never a name that
would be resolved a second time: DNS that changes its mind after the check changes nothing. Lists what is public and
refuses the rest, so that a kind of address nobody thought of is refused too. Spellings that parsers read differently
(`127.1`, `0x7f.1`, `2130706433`, percent signs, compatibility characters) are refused, not interpreted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import httpx

from .refusal import Refused, shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: (host, port) -> addresses as text. Raises OSError when there are none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_URL_CHARS = 8192
#: More addresses than any honest name has.
_MAX_ADDRESSES = 64

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
#: A last label such as these makes resolvers read the whole as an IPv4 address (inet_aton; WHATWG URL, "ends in a
#: number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCALHOST = re.compile(r"(?:.*\.)?(?:localhost|localhost6?\.localdomain6?|ip6-(?:localhost|loopback))")

#: Not public, by the IANA special-purpose registry; names in comments where the number does not speak.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        "100.64.0.0/10",  # carrier NAT; Alibaba's metadata is in it
        "169.254.0.0/16",  # link-local; most clouds' metadata is in it
        "168.63.129.16/32",  # Azure's metadata and host agent, at an address that looks public
        *("192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        "192.88.99.0/24",  # 6to4 relays
        *("224.0.0.0/4", "240.0.0.0/4"),
    )
)
#: All of IPv6 that is routed. IPv4-mapped and -compatible addresses, NAT64 (64:ff9b::), unique local (fd00:), link-
#: local and multicast ones lie outside.
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, which carries IPv4 addresses, ORCHID, benchmarks
        "2001:db8::/32",
        "2002::/16",  # 6to4, which carries IPv4 addresses
        "3fff::/20",
    )
)
#: What a host listed by name may turn out to be: an intranet, but never link-local, where metadata services are.
_INTRANET = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
_METADATA = (ipaddress.ip_address("fd00:ec2::254"),)


def is_public(address: Address) -> bool:
    """Whether strangers may have it fetched. Our tables and the standard library's must agree."""
    if isinstance(address, ipaddress.IPv4Address):
        listed = not any(address in network for network in _SPECIAL_V4)
    else:
        # An address with a zone ("%eth0") belongs to a link, whatever its number.
        listed = address.scope_id is None and address in _PUBLIC_V6
        listed = listed and not any(address in network for network in _SPECIAL_V6)
    return listed and address.is_global and not address.is_multicast


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """`KIMI_FILE_HOSTS_ALLOWED`: hosts of an intranet that URLs may reach, by name and by address."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Allowed:
        """From entries that the settings have checked: names in lower case, addresses, CIDR ranges."""
        names, networks = set[str](), list[Network]()
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                names.add(entry)
        return cls(names=frozenset(names), networks=tuple(networks))

    def lists(self, address: Address) -> bool:
        """Whether a range holds the address."""
        return any(address.version == network.version and address in network for network in self.networks)

    def admits(self, host: str, address: Address) -> bool:
        """Whether a connection to `address` under the name `host` is allowed."""
        if is_public(address) or self.lists(address):
            return True
        if host not in self.names or address in _METADATA:
            return False
        return any(address.version == network.version and address in network for network in _INTRANET)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A URL that was checked. Connect to one of `addresses` and to nothing else; `host` is for TLS and `Host`."""

    url: httpx.URL
    host: str
    port: int
    addresses: tuple[Address, ...]

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.url.scheme] else f"{host}:{self.port}"


def parsed(text: str) -> httpx.URL:
    """A caller's or a redirect's absolute URL. Raises Refused.

    The parser is the one whose result is sent: two parsers would disagree about some URL.
    """
    if len(text) > MAX_URL_CHARS:
        raise Refused(f"the file's address is longer than {MAX_URL_CHARS} characters")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise Refused("the file's address is not a valid URL") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise Refused(f"addresses with {shown(url.scheme + ':')} can't be fetched; only https and http can")
    authority = re.split(r"[/?#]", text.partition("//")[2], maxsplit=1)[0]
    if "@" in authority or url.userinfo:
        raise Refused("the file's address must not hold a user name or password")
    return url


def host_of(url: httpx.URL) -> str:
    """The host in its one spelling: lower case, no final dot, no brackets. Raises Refused for every other one."""
    host = url.raw_host.decode("ascii").lower().removesuffix(".")
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise Refused("the file's address holds an invalid IPv6 address") from None
    if not _NAME.fullmatch(host):
        raise Refused(f"the file's address names no valid host ({shown(host)})")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise Refused(f"{shown(host)} is not the usual spelling of an IP address") from None
    return host


async def checked(url: httpx.URL, *, allowed: Allowed, ports: frozenset[int], resolve: Resolve) -> Target:
    """Resolve the host once and judge every address it has: one that is not allowed refuses all. Raises Refused.

    A name without addresses and one with an internal address fail alike, so that answers don't map an intranet.
    """
    host = host_of(url)
    port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if not 0 < port < 65536:
        raise Refused(f"the file's address names an impossible port ({port})")
    addresses = await _addresses(host, port, allowed, resolve)
    if not addresses or not all(allowed.admits(host, address) for address in addresses):
        raise Refused(
            f"{shown(host)} is no host on the public internet",
            cure="Send the file as a data: URL. Hosts of an intranet are fetched from only when the operator lists "
            "them in KIMI_FILE_HOSTS_ALLOWED.",
        )
    if port not in ports and host not in allowed.names and not all(map(allowed.lists, addresses)):
        raise Refused(f"port {port} can't be used; files are fetched from ports 443 and 80")
    return Target(url=url, host=host, port=port, addresses=addresses)


async def _addresses(host: str, port: int, allowed: Allowed, resolve: Resolve) -> tuple[Address, ...]:
    try:
        return (ipaddress.ip_address(host),)
    except ValueError:
        pass
    if _LOCALHOST.fullmatch(host) and host not in allowed.names:
        return ()
    try:
        found = dict.fromkeys(await resolve(host, port))
        return tuple(map(ipaddress.ip_address, found)) if len(found) <= _MAX_ADDRESSES else ()
    except (OSError, ValueError):  # also UnicodeError: a name that DNS can't hold
        return ()
