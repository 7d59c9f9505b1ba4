"""No connection to an address that is not public, however it is written, resolved or redirected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from kimi_provider.errors import BadRequest
from kimi_provider.files import guard
from kimi_provider.files.fetch import _getaddrinfo

from .world import PNG, Dns, Witness, limits, listening, read, redirects, says, witnessed

#: Stands for the public internet: the only address that is admitted in these tests.
PUBLIC = "127.0.0.2"


def _has(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


#: Linux has all of 127.0.0.0/8, so there a lack is a failure; other systems want it set up as root.
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" and not _has(PUBLIC), reason="this system has one loopback address only"
)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """`url` has the forbidden listener's port for `{port}`; `dns` is what names resolve to."""

    url: str
    dns: dict[str, Sequence[Sequence[str]]] = field(default_factory=dict)


def at(host: str) -> Probe:
    return Probe(url=f"http://{host}:{{port}}/")


def named(*addresses: str, host: str = "files.example.com") -> Probe:
    return Probe(url=f"http://{host}:{{port}}/", dns={host: [addresses]})


PROBES = {
    # literal IPv4
    "loopback": at("127.0.0.1"),
    "loopback, another": at("127.8.9.10"),
    "unspecified": at("0.0.0.0"),
    "private 10": at("10.0.0.1"),
    "private 172.16": at("172.31.255.255"),
    "private 192.168": at("192.168.0.1"),
    "carrier nat": at("100.64.0.1"),
    "alibaba metadata": at("100.100.100.200"),
    "metadata": Probe(url="http://169.254.169.254/latest/meta-data/"),
    "metadata over https": Probe(url="https://169.254.169.254/"),
    "ecs metadata": at("169.254.170.2"),
    "azure metadata": at("168.63.129.16"),
    "oracle metadata": at("192.0.0.192"),
    "multicast": at("224.0.0.1"),
    "reserved": at("240.0.0.1"),
    "broadcast": at("255.255.255.255"),
    "benchmark": at("198.18.0.1"),
    "documentation": at("203.0.113.7"),
    "6to4 relay": at("192.88.99.1"),
    # other spellings of 127.0.0.1
    "decimal": at("2130706433"),
    "hex": at("0x7f000001"),
    "hex parts": at("0x7f.0.0.1"),
    "hex short": at("0x7f.1"),
    "octal": at("0177.0.0.1"),
    "octal long": at("017700000001"),
    "octal zeros": at("0000177.0.0.1"),
    "short": at("127.1"),
    "shorter": at("127.0.1"),
    "zero": at("0"),
    "mixed": at("0177.0x0.0.1"),
    "overflow": at("425.510.425.510"),
    "final dot": at("127.0.0.1."),
    "two final dots": at("127.0.0.1.."),
    "short with final dot": at("127.1."),
    "compatibility digits": at("①②⑦.⓪.⓪.①"),
    "fullwidth digits": at("１２７.０.０.１"),
    "ideographic stops": at("127。0。0。1"),
    "percent-encoded": at("%31%32%37.0.0.1"),
    "percent-encoded dot": at("127%2e0.0.1"),
    "null": at("127.0.0.1%00.example.com"),
    # names of this machine
    "localhost": at("localhost"),
    "localhost in capitals": at("LOCALHOST"),
    "localhost with a dot": at("localhost."),
    "under localhost": at("files.localhost"),
    "localhost.localdomain": at("localhost.localdomain"),
    "ip6-localhost": at("ip6-localhost"),
    "compatibility letters": at("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ"),
    # parsers that disagree
    "user": Probe(url="http://files.example.com@127.0.0.1:{port}/"),
    "user and password": Probe(url="http://a:b@127.0.0.1:{port}/"),
    "empty user": Probe(url="http://@127.0.0.1:{port}/"),
    "backslash": Probe(url="http://127.0.0.1:{port}\\@files.example.com/"),
    "backslash before user": Probe(url="http://files.example.com\\@127.0.0.1:{port}/"),
    "fragment before user": Probe(url="http://127.0.0.1:{port}#@files.example.com/"),
    "query before user": Probe(url="http://127.0.0.1:{port}?@files.example.com/"),
    "tab in the host": Probe(url="http://127.0.0\t.1:{port}/"),
    "line break": Probe(url="http://127.0.0.1:{port}/\r\nX: y"),
    "space": Probe(url="http://127.0.0.1 files.example.com:{port}/"),
    "no slashes": Probe(url="http:127.0.0.1:{port}/"),
    "three slashes": Probe(url="http:///127.0.0.1:{port}/"),
    "white space around": Probe(url=" \n http://127.0.0.1:{port}/ "),
    "capitals": Probe(url="HTTP://127.0.0.1:{port}/"),
    "no host": Probe(url="http://:{port}/"),
    "port 0": Probe(url="http://127.0.0.1:0/"),
    "impossible port": Probe(url="http://127.0.0.1:99999/"),
    # literal IPv6
    "v6 loopback": at("[::1]"),
    "v6 loopback, long": at("[0:0:0:0:0:0:0:1]"),
    "v6 unspecified": at("[::]"),
    "v6 mapped": at("[::ffff:127.0.0.1]"),
    "v6 mapped in hex": at("[::ffff:7f00:1]"),
    "v6 mapped public": at("[::ffff:8.8.8.8]"),
    "v6 compatible": at("[::127.0.0.1]"),
    "v6 translated": at("[::ffff:0:127.0.0.1]"),
    "v6 nat64": at("[64:ff9b::7f00:1]"),
    "v6 nat64, local": at("[64:ff9b:1::7f00:1]"),
    "v6 6to4": at("[2002:7f00:1::]"),
    "v6 6to4 of a private address": at("[2002:c0a8:1::1]"),
    "v6 teredo": at("[2001:0:7f00:1::]"),
    "v6 link-local": at("[fe80::1]"),
    "v6 link-local with a zone": at("[fe80::1%25lo]"),
    "v6 public with a zone": at("[2606:4700::1111%25lo]"),
    "v6 site-local": at("[fec0::1]"),
    "v6 unique local": at("[fd12:3456::1]"),
    "v6 aws metadata": at("[fd00:ec2::254]"),
    "v6 multicast": at("[ff02::1]"),
    "v6 documentation": at("[2001:db8::1]"),
    "v6 discard": at("[100::1]"),
    "v6 broken": at("[::1"),
    # names that point inside
    "name": named("127.0.0.1"),
    "name in capitals with a dot": Probe(
        url="http://FILES.example.COM.:{port}/", dns={"files.example.com": [["127.0.0.1"]]}
    ),
    "name with one bad address of three": named(PUBLIC, "127.0.0.1", PUBLIC),
    "name with a bad v6 address": named(PUBLIC, "::1"),
    "name of metadata": named("169.254.169.254", host="metadata.google.internal"),
    "name mapped": named("::ffff:127.0.0.1"),
    "name nat64": named("64:ff9b::a9fe:a9fe"),
    "name with a zone": named("fe80::1%eth0"),
    "name of nothing": named(),
    "name of nonsense": named("not an address"),
    "name of too many": named(*([PUBLIC] + [f"127.0.2.{n}" for n in range(80)])),
    "name with underscore": named("10.0.0.1", host="_a_.example.com"),
    "punycode": named("127.0.0.1", host="xn--strae-oqa.example"),
    "numeric label behind a name": named("127.0.0.1", host="127.0.0.1.example.com"),
}


async def refused(probe: Probe, url: str, *ports: int) -> tuple[str, Witness]:
    with witnessed() as witness, pytest.raises(BadRequest) as caught:
        await read(url, dns=Dns(probe.dns), ports=ports, allowed=f"{PUBLIC}/32")
    return caught.value.describe(), witness


@pytest.mark.parametrize("probe", PROBES.values(), ids=list(PROBES))
async def test_nothing_connects(probe: Probe) -> None:
    async with listening(says()) as forbidden:
        text, witness = await refused(probe, probe.url.replace("{port}", str(forbidden.port)), forbidden.port)
    assert (forbidden.accepted, witness.connects, witness.lookups) == (0, [], [])
    assert text.startswith("Message 3, part 2: ")
    for answers in probe.dns.values():
        assert not any(address in text for address in answers[0] if address not in probe.url)


@pytest.mark.parametrize("probe", PROBES.values(), ids=list(PROBES))
async def test_nothing_connects_after_a_redirect(probe: Probe) -> None:
    async with listening(says()) as forbidden:
        target = probe.url.replace("{port}", str(forbidden.port)).strip()
        location = target.encode().decode("latin-1") if "\n" not in target else "http://127.0.0.1/"
        async with listening(redirects(location), host=PUBLIC) as public:
            text, witness = await refused(probe, f"http://{PUBLIC}:{public.port}/", forbidden.port)
    # More than one when the target is read as a path of the public host itself.
    assert 1 <= public.accepted <= 4
    assert (forbidden.accepted, set(witness.connects), witness.lookups) == (0, {PUBLIC}, [])
    assert text.startswith("Message 3, part 2: ")


@pytest.mark.parametrize("name", ["loopback", "name", "final dot", "v6 loopback", "name in capitals with a dot"])
async def test_the_listener_would_notice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same probes with the judgement taken out: so the zeros above mean something."""
    monkeypatch.setattr(guard, "is_public", lambda address: True)
    host = "::1" if "v6" in name else "127.0.0.1"
    if not _has(host):
        pytest.skip("no IPv6 here")  # the kernel's setting, nothing that could be installed
    async with listening(says(), host=host) as forbidden:
        probe = PROBES[name]
        with witnessed() as witness:
            await read(probe.url.format(port=forbidden.port), dns=Dns(probe.dns), ports=[forbidden.port])
    assert (forbidden.accepted, witness.connects) == (1, [host])


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://user@files.example.com/", "user name or password"),
        ("http://user:word@files.example.com/", "user name or password"),
        ("http://:@files.example.com/", "user name or password"),
        ("http://@files.example.com/", "user name or password"),
        ("http://2130706433/", "not the usual spelling"),
        ("http://0x7f000001/", "not the usual spelling"),
        ("http://0x7f.1/", "not the usual spelling"),
        ("http://127.1/", "not the usual spelling"),
        ("http://127.1./", "not the usual spelling"),
        ("http://a.example.0x/", "not the usual spelling"),
        ("http://localhost/", "no host on the public internet"),
        ("http://a.LOCALHOST./", "no host on the public internet"),
        ("http://%6cocalhost/", "names no valid host"),
        ("http://a..example/", "names no valid host"),
        ("http://-a.example/", "names no valid host"),
        (f"http://{'a' * 64}.example/", "names no valid host"),
        (f"http://{'a.' * 127}example/", "names no valid host"),
    ],
)
async def test_spellings_are_refused_before_dns_is_asked(url: str, cause: str) -> None:
    class Obliging(Dns):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            self.asked.append(host)
            return [PUBLIC]

    dns = Obliging({})
    with witnessed() as witness, pytest.raises(BadRequest, match=cause):
        await read(url, dns=dns, allowed=PUBLIC)
    assert (dns.asked, witness.connects) == ([], [])


# --- changes between check and connection ---


async def test_dns_that_changes_its_mind_changes_nothing() -> None:
    async with listening(says(), host=PUBLIC) as public, listening(says(), port=public.port) as forbidden:
        dns = Dns({"files.example.com": [[PUBLIC], ["127.0.0.1"]]})
        with witnessed() as witness:
            file, _ = await read(f"http://files.example.com:{public.port}/a.png", dns=dns, allowed=f"{PUBLIC}/32")
    assert file.name == "a.png"
    assert (public.accepted, forbidden.accepted) == (1, 0)
    assert (dns.asked, witness.connects, witness.lookups) == (["files.example.com"], [PUBLIC], [])


async def test_dns_that_changes_before_a_redirect_to_the_same_host() -> None:
    async with (
        listening(redirects("/again"), host=PUBLIC) as public,
        listening(says(), port=public.port) as forbidden,
    ):
        dns = Dns({"files.example.com": [[PUBLIC], ["127.0.0.1"]]})
        with witnessed() as witness, pytest.raises(BadRequest, match="no host on the public internet"):
            await read(f"http://files.example.com:{public.port}/", dns=dns, allowed=f"{PUBLIC}/32")
    assert (public.accepted, forbidden.accepted) == (1, 0)
    assert (len(dns.asked), witness.connects) == (2, [PUBLIC])


async def test_when_the_first_address_is_down_only_checked_ones_are_tried() -> None:
    async with listening(says(), host=PUBLIC) as public:
        dns = Dns({"files.example.com": [["127.0.0.3", PUBLIC], ["127.0.0.1"]]})
        with witnessed() as witness:
            await read(f"http://files.example.com:{public.port}/", dns=dns, allowed="127.0.0.2/31")
    assert (dns.asked, witness.connects) == (["files.example.com"], ["127.0.0.3", PUBLIC])


async def test_a_chain_of_redirects_is_judged_at_every_step() -> None:
    async with listening(says()) as forbidden:
        inside = f"http://inside.example.com:{forbidden.port}/"
        steps = {"/1": redirects("2"), "/2": redirects("//files.example.com:PORT/3"), "/3": redirects(inside)}
        async with listening(steps, host=PUBLIC) as public:
            steps["/2"] = redirects(f"//files.example.com:{public.port}/3", "307 Temporary Redirect")
            dns = Dns({"files.example.com": [[PUBLIC]], "inside.example.com": [["127.0.0.1"]]})
            with witnessed() as witness, pytest.raises(BadRequest, match=r"'inside\.example\.com' is no host"):
                await read(
                    f"http://files.example.com:{public.port}/1",
                    dns=dns,
                    allowed=f"{PUBLIC}/32",
                    ports=[forbidden.port],
                )
    assert (public.accepted, forbidden.accepted, witness.connects) == (3, 0, [PUBLIC] * 3)


@pytest.mark.parametrize(("count", "works"), [(3, True), (4, False)])
async def test_at_most_three_redirects(count: int, works: bool) -> None:
    pages = {f"/{n}": redirects(f"/{n - 1}", "308 Permanent Redirect") for n in range(1, count + 1)}
    async with listening({**pages, "/0": says()}, host=PUBLIC) as public:
        call = read(f"http://{PUBLIC}:{public.port}/{count}", allowed=PUBLIC)
        if works:
            assert (await call)[1] == PNG
        else:
            with pytest.raises(BadRequest, match="redirects more than 3 times"):
                await call
    assert public.accepted == 4


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/", "data:,x", "http://[", "\x01"]
)
async def test_a_redirect_stays_with_http(location: str) -> None:
    async with listening(redirects(location), host=PUBLIC) as public:
        with witnessed() as witness, pytest.raises(BadRequest):
            await read(f"http://{PUBLIC}:{public.port}/", allowed=PUBLIC)
    assert witness.connects == [PUBLIC]


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(says()) as proxy, listening(says(), host=PUBLIC) as public:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        await read(f"http://{PUBLIC}:{public.port}/", allowed=PUBLIC)
    assert (public.accepted, proxy.accepted) == (1, 0)


# --- ports and the operator's list ---


@pytest.mark.parametrize("port", [22, 25, 6379, 8080, 65535])
async def test_other_ports_are_not_open(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "is_public", lambda address: True)
    with witnessed() as witness, pytest.raises(BadRequest, match=f"port {port} can't be used"):
        await read(f"https://files.example.com:{port}/", dns=Dns({"files.example.com": [["127.0.0.1"]]}))
    assert witness.connects == []


@pytest.mark.parametrize(
    ("allowed", "host", "address", "admitted"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", True),
        ("127.0.0.0/8", "a.example", "127.0.0.1", True),
        ("127.0.0.0/30, 10.0.0.0/8", "a.example", "127.0.0.1", True),
        ("a.example", "a.example", "127.0.0.1", True),
        ("A.Example", "a.EXAMPLE", "127.0.0.1", True),
        ("localhost", "localhost", "127.0.0.1", True),
        ("127.0.0.2/31", "a.example", "127.0.0.1", False),
        ("b.example", "a.example", "127.0.0.1", False),
        ("example", "a.example", "127.0.0.1", False),
        ("a.example", "x.a.example", "127.0.0.1", False),
        ("127.0.0.0/8", "a.example", "::ffff:127.0.0.1", False),
        # a name admits an intranet, never what only this machine or its cloud can see
        ("a.example", "a.example", "169.254.169.254", False),
        ("a.example", "a.example", "fd00:ec2::254", False),
        ("a.example", "a.example", "0.0.0.0", False),
        ("a.example", "a.example", "::ffff:127.0.0.1", False),
        ("a.example", "a.example", "100.100.100.200", False),
    ],
)
async def test_the_list_admits_what_it_names(allowed: str, host: str, address: str, admitted: bool) -> None:
    async with listening(says()) as intranet:
        call = read(f"http://{host}:{intranet.port}/", allowed=allowed, dns=Dns({host.lower(): [[address]]}))
        with witnessed() as witness:
            if admitted:
                await call
            else:
                with pytest.raises(BadRequest):
                    await call
    assert witness.connects == (["127.0.0.1"] if admitted else [])


@pytest.mark.parametrize(
    "text",
    [
        *("8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "169.253.0.1", "223.255.255.255"),
        *("2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888", "2400:cb00::1"),
    ],
)
def test_the_public_internet_is_open(text: str) -> None:
    assert guard.is_public(ipaddress.ip_address(text))


async def test_the_default_resolver_gives_addresses() -> None:
    found = await _getaddrinfo("localhost", 80)
    assert found
    assert all(ipaddress.ip_address(address).is_loopback for address in found)
    with pytest.raises(OSError):
        await _getaddrinfo("nowhere.invalid", 80)


async def test_an_unknown_name_and_an_internal_one_look_the_same() -> None:
    texts = set()
    for answers in ([], ["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["fd00::1"]):
        probe = Probe(url="", dns={"a.example": [answers]})
        texts.add((await refused(probe, "https://a.example/"))[0])
    assert len(texts) == 1


async def test_slow_dns_ends_with_the_total_time() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(BadRequest, match=r"longer than 0\.1 s"):
        await read("https://a.example/", dns=never, upstream=limits(total_timeout_s=0.1))
