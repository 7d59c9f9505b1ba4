"""`kimi-mitm doctor` names the broken step."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mitm_addon import cli, doctor, sockets
from mitm_addon.redirect import Tally
from mitm_addon.sockets import Direct

from .rig import GATEWAY_KEY, ROOT
from .world import World

URL = "https://api.openai.com/v1/models"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """FAIL or ok, by step."""
    return {line.split(":")[0][5:]: line for line in done.stdout.splitlines() if line.startswith(("ok  ", "FAIL"))}


def test_all_is_well(world: World) -> None:
    done = world.mitm("doctor")
    assert done.returncode == 0, done.stdout
    assert [line[:4] for line in lines(done).values()] == ["ok  "] * 5
    assert "answered by kimi-gateway" in lines(done)["proxy"]


def test_the_gateway_and_the_key(world: World) -> None:
    world.gateway.status = "401 Unauthorized"
    done = world.mitm("doctor")
    assert done.returncode == 1
    assert lines(done)["key"].startswith("FAIL")
    world.gateway.stop()
    done = world.mitm("doctor")
    assert lines(done)["gateway"].startswith("FAIL")
    assert "kimi-provider serve" in done.stdout


def test_exceptions_from_the_proxy(world: World) -> None:
    done = world.mitm("doctor", env={"NO_PROXY": "localhost,.openai.com"})
    assert lines(done)["NO_PROXY"].startswith("FAIL")
    assert ".openai.com takes listed hosts" in done.stdout


def test_a_python_without_mitmproxy(world: World) -> None:
    command = [str(ROOT / ".venv/bin/python"), "-m", "mitm_addon"]
    for action in (["doctor"], ["run", "--", "true"]):
        done = subprocess.run([*command, *action], cwd=ROOT, env=world.env, capture_output=True, text=True, timeout=60)
        assert done.returncode in (1, 2)
        assert "mitmproxy is not installed for this Python" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mitmproxy.version", None)
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))
    assert "this Python 3.11: use Python 3.13 or newer" in cli.missing()


def test_a_runtime_that_does_not_trust_the_ca(world: World) -> None:
    done = world.mitm("doctor", "--", "curl", "-sS", "--cacert", str(world.roots), URL)
    assert done.returncode == 1
    assert "does not trust the proxy's CA for api.openai.com" in lines(done)["CA"]


def test_a_tool_that_hangs_up(world: World) -> None:
    script = """
import os, socket, ssl, urllib.parse, base64
parts = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
line = socket.create_connection((parts.hostname, parts.port))
word = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
line.sendall(f"CONNECT api.openai.com:443 HTTP/1.1\\r\\nProxy-Authorization: Basic {word}\\r\\n\\r\\n".encode())
line.recv(4096)
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="api.openai.com")
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    line.sendall(outgoing.read())
line.recv(4096)
line.close()
"""
    done = world.mitm("doctor", "--", sys.executable, "-c", script)
    assert "it pins its provider's, or its runtime does not trust" in lines(done)["pinned"], done.stdout


def test_a_tool_that_works(world: World) -> None:
    done = world.mitm("doctor", "--", "curl", "-sS", URL)
    assert done.returncode == 0, done.stdout
    assert "1 calls redirected" in lines(done)["calls"]


def test_a_tool_that_calls_nobody(world: World) -> None:
    done = world.mitm("doctor", "--", "sh", "-c", "exit 3")
    assert "made no connection" in lines(done)["bypass"]
    assert "ended with code 3" in lines(done)["command"]


@pytest.mark.parametrize(("protocol", "step"), [("udp", "QUIC"), ("tcp", "bypass")])
def test_ways_past_the_proxy_are_named(protocol: Any, step: str) -> None:
    outcome: Any = SimpleNamespace(prepared=SimpleNamespace(proxy=SimpleNamespace(tally=Tally())), code=0)
    found = list(doctor.watched(outcome, {Direct(protocol=protocol, address="192.0.2.1")}))
    assert [(finding.step, finding.ok) for finding in found] == [(step, False), ("command", True)]
    assert "192.0.2.1:443" in found[0].meaning


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the sockets of other processes")
def test_sockets_of_a_tool_are_seen(tmp_path: Path) -> None:
    # UDP sends nothing when it connects; an address of nobody, and no byte leaves.
    script = "import socket,sys; s=socket.socket(2,2); s.connect(('192.0.2.1',443)); print('ready',flush=True)"
    script += "; sys.stdin.read()"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 443))
        except OSError:
            # A container without a network: nothing that could be installed, and loopback is not what is looked for.
            pytest.skip("this machine has no route to anywhere")
    command = ["sh", "-c", f'{sys.executable} -c "{script}"; true']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert set(sockets.direct(child.pid)) == {Direct(protocol="udp", address="192.0.2.1")}
        child.communicate("")
    assert set(sockets.direct(os.getpid())) == set()


def test_no_key_is_printed(world: World) -> None:
    done = world.mitm("doctor", "--", "curl", "-sS", URL)
    assert GATEWAY_KEY not in done.stdout + done.stderr
