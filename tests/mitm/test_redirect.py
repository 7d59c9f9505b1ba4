"""Calls through the real proxy, with real TLS: where they go, what they carry, what comes back."""

from __future__ import annotations

import gzip
import hashlib
import json
import ssl
import subprocess
import time
import zlib

import brotli
import pytest
import zstandard

from .rig import CANARY, GATEWAY_KEY, LIMIT_S, Rig

#: Every place where clients put keys.
CREDENTIALS = (
    "authorization: Bearer",
    "x-api-key:",
    "x-goog-api-key:",
    "api-key:",
    "cookie: session=",
    "openai-organization:",
    "x-codex-turn-metadata:",
)
KEYS = [part for name in CREDENTIALS for part in ("-H", f"{name} {CANARY}")]
PROTOCOLS = {"h1": "--http1.1", "h2": "--http2"}

CHAT = b'{"model":"gpt-5","messages":[{"role":"user","content":"Hi \xc3\xa9"}]}'
CASES = [
    ("api.openai.com", "/v1/chat/completions", "/v1/chat/completions", CHAT),
    ("api.openai.com", "/v1/responses", "/v1/responses", CHAT),
    ("api.anthropic.com", "/v1/messages?beta=true", "/v1/messages?beta=true", CHAT),
    (
        "generativelanguage.googleapis.com",
        f"/v1beta/models/gemini-3.1-pro:generateContent?key={CANARY}",
        "/v1beta/models/kimi:generateContent",
        b'{"contents":[],"model":"stays"}',
    ),
    (
        "mine.openai.azure.com",
        f"/openai/deployments/my-opus/chat/completions?api-version=1&api-key={CANARY}",
        "/openai/deployments/kimi-thinking/chat/completions",
        CHAT,
    ),
    ("openrouter.ai", "/api/v1/chat/completions", "/v1/chat/completions", CHAT),
    ("api.groq.com", "/openai/v1/chat/completions", "/v1/chat/completions", CHAT),
    ("api.mistral.ai", "/v1/chat/completions", "/v1/chat/completions", CHAT),
    ("api.x.ai", "/v1/messages", "/v1/messages", CHAT),
    ("api.deepseek.com", "/chat/completions", "/v1/chat/completions", CHAT),
]


@pytest.mark.parametrize("version", PROTOCOLS)
def test_each_provider_is_redirected_without_being_touched(rig: Rig, version: str) -> None:
    for number, (host, path, arrived, body) in enumerate(CASES, 1):
        answer = rig.post(f"https://{host}{path}", body, PROTOCOLS[version], *KEYS)
        assert (answer.status, answer.body) == (200, b'{"answered":true}'), (host, answer)
        assert answer.headers["x-kimi-served-by"] == "kimi-gateway"
        call = rig.gateway.wait_for(number)
        assert call.target == arrived
        assert call.body == body.replace(b'"gpt-5"', b'"kimi"')
        assert call.headers["authorization"] == f"Bearer {GATEWAY_KEY}"
        assert call.headers["host"] == f"127.0.0.1:{rig.gateway.port}"
        assert set(call.headers) <= {
            "authorization", "host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"
        }  # fmt: skip
    rig.assert_nothing_reached_the_provider()


def test_plain_http_is_redirected_too(rig: Rig) -> None:
    answer = rig.post("http://api.openai.com/v1/chat/completions", CHAT, *KEYS)
    assert answer.status == 200
    assert json.loads(rig.gateway.wait_for(1).body)["model"] == "kimi"
    rig.assert_nothing_reached_the_provider()


@pytest.mark.parametrize("version", PROTOCOLS)
@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate", "raw-deflate", "br", "zstd", "gzip, zstd"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_compressed_and_chunked_uploads_arrive_plain(rig: Rig, version: str, coding: str, framing: str) -> None:
    body = b'{"model":"gpt-5","input":"' + b"x" * 300_000 + b'"}'
    packed = {
        "identity": lambda: body,
        "gzip": lambda: gzip.compress(body[:7]) + gzip.compress(body[7:]),
        "deflate": lambda: zlib.compress(body),
        "raw-deflate": lambda: zlib.compress(body, wbits=-15),
        "br": lambda: brotli.compress(body, quality=3),
        "zstd": lambda: zstandard.compress(body, 3),
        "gzip, zstd": lambda: zstandard.compress(gzip.compress(body)),
    }[coding]()
    more = ["-H", "transfer-encoding: chunked"] if framing == "chunked" and version == "h1" else []
    more += ["-H", f"content-encoding: {coding.removeprefix('raw-')}"]
    if framing == "chunked" and version == "h2":
        more += ["-H", "content-length:"]
    answer = rig.post("https://api.openai.com/v1/responses", packed, PROTOCOLS[version], *more)
    assert answer.status == 200, answer
    call = rig.gateway.wait_for(1)
    assert call.body == body.replace(b"gpt-5", b"kimi")
    assert call.headers["content-length"] == str(len(call.body))
    assert not {"content-encoding", "transfer-encoding", "expect"} & set(call.headers)


@pytest.mark.parametrize("version", PROTOCOLS)
def test_answers_stream_and_a_client_that_leaves_is_noticed(rig: Rig, version: str) -> None:
    rig.gateway.stepwise = True
    bundle = rig.folder / "ca.pem"
    bundle.write_text(rig.proxy.ca.read_text())
    command = ["curl", "-sSN", PROTOCOLS[version], "--proxy", rig.proxy.url, "--cacert", str(bundle)]
    command += ["-d", '{"model":"gpt-5","stream":true}', "https://api.openai.com/v1/responses"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        call = rig.gateway.wait_for(1)
        for number in range(2):
            # The next event is not sent before this one has been read.
            assert client.stdout.readline() == f'data: {{"number":{number}}}\n'.encode()
            assert client.stdout.readline() == b"\n"
            if not number:
                call.go_on.release()
        client.terminate()
    assert call.gone.wait(LIMIT_S)
    rig.assert_nothing_reached_the_provider()


def test_a_whole_stream_arrives(rig: Rig) -> None:
    answer = rig.post("https://api.anthropic.com/v1/messages", b'{"model":"claude-opus-4-8","stream":true}')
    assert answer.body == b"".join(b'data: {"number":%d}\n\n' % n for n in range(3))
    assert rig.gateway.wait_for(1).body == b'{"model":"kimi-thinking","stream":true}'


def test_other_calls_of_a_listed_host_pass_with_their_own_key(rig: Rig) -> None:
    body = b'{"model":"gpt-5","stream":true,"events":"' + b"x" * 200_000 + b'"}'
    answer = rig.post(
        f"https://api.anthropic.com/api/event_logging/v2/batch?key={CANARY}", body, "-H", f"x-api-key: {CANARY}"
    )
    assert answer.status == 200
    assert "x-kimi-served-by" not in answer.headers
    call = rig.origin.wait_for(1)
    assert call.target == f"/api/event_logging/v2/batch?key={CANARY}"
    assert call.headers["x-api-key"] == CANARY
    assert call.body == body
    assert rig.gateway.tcp == 0


def test_answers_that_pass_stream_too(rig: Rig) -> None:
    rig.origin.stepwise = True
    with rig.tunnel("api.openai.com") as line:
        line.sendall(b'POST /v1/files HTTP/1.1\r\nHost: api.openai.com\r\nContent-Length: 15\r\n\r\n{"stream":true}')
        seen = b""
        while b'"number":0' not in seen:
            seen += line.recv(4096)
        assert b'"number":1' not in seen
        rig.origin.wait_for(1).go_on.release()
        while b'"number":1' not in seen:
            seen += line.recv(4096)


def test_one_connection_serves_both_ways_in_turn(rig: Rig) -> None:
    def ask(line: ssl.SSLSocket, path: str) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: api.openai.com\r\nauthorization: {CANARY}\r\ncontent-length: 2\r\n\r\n{{}}"
        )
        line.sendall(head.encode())
        seen = b""
        while b'{"answered":true}' not in seen:
            piece = line.recv(4096)
            assert piece, seen
            seen += piece
        return seen

    with rig.tunnel("api.openai.com") as line:
        for number in range(1, 4):
            assert b"x-kimi-served-by" not in ask(line, "/v1/files")
            assert b"x-kimi-served-by: kimi-gateway" in ask(line, "/v1/responses")
            assert [call.target for call in rig.origin.calls] == ["/v1/files"] * number
            assert [call.target for call in rig.gateway.calls] == ["/v1/responses"] * number


def test_many_streams_of_one_http2_connection_stay_apart(rig: Rig) -> None:
    bundle = rig.folder / "both.pem"
    bundle.write_text(rig.roots.read_text() + rig.proxy.ca.read_text())
    each = ["--http2", "--proxy", rig.proxy.url, "--cacert", str(bundle), "-H", f"authorization: Bearer {CANARY}"]
    command = ["curl", "-sS", "-Z", "--parallel-max", "24"]
    for number in range(24):
        url = f"https://api.openai.com/v1/{'responses' if number % 2 else 'files'}"
        body = json.dumps({"model": "gpt-5", "number": number})
        command += [*(["--next"] if number else []), *each, "-d", body, "-o", str(rig.folder / f"answer-{number}"), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert {(rig.folder / f"answer-{number}").read_text() for number in range(24)} == {'{"answered":true}'}
    bodies = sorted((json.loads(call.body) for call in rig.gateway.calls), key=lambda body: int(body["number"]))
    assert bodies == [{"model": "kimi", "number": number} for number in range(1, 24, 2)]
    assert sorted(json.loads(call.body)["number"] for call in rig.origin.calls) == list(range(0, 24, 2))
    assert {json.loads(call.body)["model"] for call in rig.origin.calls} == {"gpt-5"}


def test_an_upload_that_breaks_off_is_not_sent_on(rig: Rig) -> None:
    with rig.tunnel("api.openai.com") as line:
        line.sendall(
            b"POST /v1/responses HTTP/1.1\r\nHost: api.openai.com\r\ncontent-length: 1000\r\n\r\n"
            b'{"model":"gpt-5","input":"half a pro'
        )
    assert rig.post("https://api.openai.com/v1/responses", b"{}").status == 200
    assert [call.body for call in rig.gateway.calls] == [b"{}"]
    rig.assert_nothing_reached_the_provider()


def test_unlisted_hosts_are_never_decrypted(rig: Rig) -> None:
    sent = b"POST /v1/responses HTTP/1.1\r\nHost: api.openai.com\r\nX-Odd:  spaces\r\ncontent-length: 2\r\n\r\n{}"
    with rig.tunnel("unlisted.example") as line:
        fingerprint = hashlib.sha256(line.getpeercert(binary_form=True) or b"").hexdigest()
        line.sendall(sent)
        assert line.recv(4096).startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
    direct = ssl.get_server_certificate(("127.0.0.1", rig.unlisted.port))
    assert fingerprint == hashlib.sha256(ssl.PEM_cert_to_DER_cert(direct)).hexdigest()
    assert bytes(rig.unlisted.raw) == sent
    assert rig.gateway.tcp == 0
    rig.assert_nothing_reached_the_provider()


def test_a_tunnel_to_an_unlisted_host_without_tls_is_not_read(rig: Rig) -> None:
    rig.dns.ports["plain.example"] = rig.gateway.port
    sent = b"POST /x HTTP/1.1\r\nHost: api.openai.com\r\nX-Odd:  spaces kept\r\ncontent-length: 2\r\n\r\n{}"
    with rig.connect("plain.example", 80) as line:
        line.sendall(sent)
        assert line.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert bytes(rig.gateway.raw) == sent


def test_a_host_header_decides_nothing(rig: Rig) -> None:
    with rig.tunnel("api.openai.com") as line:
        line.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: unlisted.example\r\ncontent-length: 2\r\n"
            b"authorization: " + CANARY.encode() + b"\r\n\r\n{}"
        )
        assert b"x-kimi-served-by: kimi-gateway" in line.recv(4096)
    rig.assert_nothing_reached_the_provider()


@pytest.mark.parametrize("target", ["/v1/chat/completions", "https://unlisted.example/v1/chat/completions"])
def test_a_bare_address_is_known_by_its_sni(rig: Rig, target: str) -> None:
    with rig.tunnel("10.9.8.7", sni="api.openai.com") as line:
        line.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        assert b"x-kimi-served-by: kimi-gateway" in line.recv(4096)
    rig.assert_nothing_reached_the_provider()


def test_a_greeting_byte_by_byte_is_no_way_past(rig: Rig) -> None:
    context = ssl.create_default_context(cafile=str(rig.proxy.ca))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="api.openai.com")
    with rig.connect("api.openai.com") as line:
        line.setsockopt(6, 1, 1)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    line.sendall(bytes([byte]))
                    time.sleep(0.0005)  # one segment each; nothing is awaited
                incoming.write(line.recv(65536))
        assert tls.getpeercert()
    rig.assert_nothing_reached_the_provider()


def test_a_listed_host_speaks_tls_or_http_and_nothing_else(rig: Rig) -> None:
    with rig.connect("api.openai.com") as line:
        line.sendall(b"\x00\x01\x02garbage\r\n\r\n")
        line.recv(4096)
    rig.assert_nothing_reached_the_provider()


@pytest.mark.parametrize(("path", "status"), [("/v1/responses", 426), ("/v1/realtime?model=gpt-realtime", 426)])
def test_a_websocket_is_asked_to_use_http(rig: Rig, path: str, status: int) -> None:
    answer = rig.curl(
        f"https://api.openai.com{path}", "--http1.1", "-H", "connection: upgrade", "-H", "upgrade: websocket",
        "-H", "sec-websocket-version: 13", "-H", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", *KEYS,
    )  # fmt: skip
    assert answer.status == status
    assert json.loads(answer.body)["error"]["code"] == "kimi_mitm_websocket"
    rig.assert_nothing_reached_the_provider()


def test_a_websocket_elsewhere_on_a_listed_host_passes(rig: Rig) -> None:
    with rig.tunnel("api.openai.com") as line:
        line.sendall(
            b"GET /v1/other HTTP/1.1\r\nHost: api.openai.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert line.recv(4096).startswith(b"HTTP/1.1 101")


def test_the_gateways_cookies_and_redirects_stay_here_and_providers_offer_no_http3(rig: Rig) -> None:
    # Redirected by the gateway, a client would bring it the provider's key.
    rig.gateway.extra_headers = f"set-cookie: gateway=1\r\nlocation: {rig.gateway.url}/elsewhere\r\nx-more: 1\r\n"
    rig.gateway.status = "307 Temporary Redirect"
    rig.origin.extra_headers = 'set-cookie: provider=1\r\nalt-svc: h3=":443"\r\n'
    redirected = rig.post("https://api.openai.com/v1/responses", b"{}", "-L", "-H", f"x-api-key: {CANARY}")
    assert (redirected.status, redirected.headers["x-more"]) == (307, "1")
    assert not {"set-cookie", "location"} & set(redirected.headers)
    passed = rig.post("https://api.openai.com/v1/files", b"{}")
    assert passed.headers["set-cookie"] == "provider=1"
    assert "alt-svc" not in passed.headers


@pytest.mark.parametrize(("scheme", "seen"), [("https", "%{http_connect}"), ("http", "%{http_code}")])
def test_the_proxy_needs_its_password(rig: Rig, scheme: str, seen: str) -> None:
    command = ["curl", "-sS", "-o", "/dev/null", "-w", seen, "--proxy", f"http://127.0.0.1:{rig.proxy.port}"]
    command.append(f"{scheme}://api.openai.com/v1/models")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "407"
    assert rig.gateway.tcp == 0
    rig.assert_nothing_reached_the_provider()
