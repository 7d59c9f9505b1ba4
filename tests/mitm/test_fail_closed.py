"""What goes wrong ends in an error in the caller's format; no key and no prompt reaches the provider."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

import mitm_addon.redirect as redirect
from mitm_addon import flows, rewrite
from mitm_addon.gateway import Watch
from mitm_addon.pinning import Client
from mitm_addon.redirect import Redirector
from mitm_addon.routes import Host

from .conftest import assert_no_key_in
from .rig import CANARY, GATEWAY_KEY, Rig

KEYS = ["-H", f"authorization: Bearer {CANARY}", "-H", f"x-api-key: {CANARY}", "-H", f"x-goog-api-key: {CANARY}"]
PROMPT = b'{"model":"gpt-5","messages":[{"role":"user","content":"secret prompt"}]}'
OPENAI = "https://api.openai.com/v1/chat/completions"
ANTHROPIC = "https://api.anthropic.com/v1/messages"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-3.1-pro:generateContent"


@pytest.fixture
def rigs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """Makes rigs with options; checks keys afterwards."""
    made: list[Rig] = []
    caplog.set_level(logging.DEBUG)

    def make(**settings: Any) -> Rig:
        (folder := tmp_path / str(len(made))).mkdir()
        made.append(Rig(folder, **settings))
        return made[-1]

    yield make
    for rig in made:
        rig.close()
        rig.assert_keys_stayed_apart()
    assert_no_key_in(caplog, tmp_path)


# --- the gateway is down -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "agent", "status", "shape"),
    [
        (OPENAI, "OpenAI/Python 2.8", 503, ("error", "type", "server_error")),
        (ANTHROPIC, "claude-cli/2.1", 503, ("error", "type", "api_error")),
        (GEMINI, "google-genai-sdk/3.4", 503, ("error", "status", "UNAVAILABLE")),
        (GEMINI, "GeminiCLI/0.61.0/gemini-2.5-pro", 400, ("error", "status", "UNAVAILABLE")),
        ("https://api.openai.com/v1/responses", "codex_exec/0.169.0", 400, ("error", "type", "server_error")),
    ],
)
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_gateway_down(rig: Rig, url: str, agent: str, status: int, shape: tuple[str, str, str], version: str) -> None:
    rig.gateway.stop()
    answer = rig.post(url, PROMPT, version, "-H", f"user-agent: {agent}", *KEYS)
    assert answer.status == status
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-kimi-served-by"] == "kimi-mitm"
    assert answer.headers["content-type"] == "application/json"
    error = json.loads(answer.body)
    outer, name, value = shape
    assert error[outer][name] == value
    assert (error.get("type") == "error") is (url is ANTHROPIC)
    assert f"127.0.0.1:{rig.gateway.port}" in error["error"]["message"]
    assert "overloaded" not in answer.body.decode()
    rig.assert_nothing_reached_the_provider()


def test_a_gateway_that_comes_back_is_used(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitm_addon.gateway.LOOK_COUNTS_S", 0.0)
    rig.gateway.stop()
    assert rig.post(OPENAI, PROMPT).status == 503
    rig.gateway.restart()
    assert rig.post(OPENAI, PROMPT).status == 200


def test_a_gateway_that_dies_after_the_look_is_an_error(rig: Rig) -> None:
    assert rig.post(OPENAI, PROMPT).status == 200
    rig.gateway.stop()
    answer = rig.post(OPENAI, PROMPT, *KEYS)
    assert answer.status in (502, 503)
    assert rig.post(OPENAI, PROMPT).status == 503, "the failed connection must end the look's validity"
    rig.assert_nothing_reached_the_provider()


def test_falling_through_is_asked_for_and_leaves_the_call_as_it_was(rigs: Any) -> None:
    rig = rigs(kimi_fall_through=True)
    rig.gateway.stop()
    answer = rig.post(f"{OPENAI}?x=1", PROMPT, *KEYS, "-H", "x-more: kept")
    assert answer.status == 200
    assert "x-kimi-served-by" not in answer.headers
    call = rig.origin.wait_for(1)
    assert (call.target, call.body) == ("/v1/chat/completions?x=1", PROMPT)
    assert call.headers["authorization"] == f"Bearer {CANARY}"
    assert call.headers["x-more"] == "kept"
    assert call.headers["host"] == "api.openai.com"


# --- a hook fails ------------------------------------------------------------------------------------------

_BOOMS = {
    "tls_clienthello": (Client, "of"),
    "requestheaders, before": (Host, "match"),
    "requestheaders, looking": (Watch, "is_up"),
    "requestheaders, stripping": (rewrite, "headers"),
    "requestheaders, half stripped": (rewrite, "query"),
    "request": (rewrite, "model"),
    "everywhere": (Redirector, "_settings"),
    "the answer itself": (flows, "answer"),
}


@pytest.mark.parametrize("hook", _BOOMS)
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_exception_ends_the_call(rig: Rig, monkeypatch: pytest.MonkeyPatch, hook: str, version: str) -> None:
    def boom(*_: object, **__: object) -> Any:
        raise RuntimeError(f"with a key in it: {CANARY}")

    if hook == "the answer itself":
        monkeypatch.setattr(Host, "match", boom)
    monkeypatch.setattr(*_BOOMS[hook], boom)
    for url in (OPENAI, ANTHROPIC, f"{GEMINI}?key={CANARY}", OPENAI.replace("https", "http")):
        answer = rig.post(url, PROMPT, version, *KEYS)
        # A body is only rewritten where it holds the name.
        if answer.status == 200:
            assert (hook, url.startswith(GEMINI)) == ("request", True) or (hook == "tls_clienthello" and url[4] == ":")
            assert answer.headers["x-kimi-served-by"] == "kimi-gateway"
        else:
            assert answer.status in (0, 500)
    rig.assert_nothing_reached_the_provider()


def test_an_exception_while_an_answer_begins_ends_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "SERVED_BY", 0)  # a number has no bytes
    answer = rig.post(OPENAI, PROMPT, *KEYS)
    assert answer.status == 0
    rig.assert_nothing_reached_the_provider()


def test_an_exception_while_a_tunnel_is_judged_closes_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(_: bytes) -> bool:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(redirect, "starts_like_tls_record", boom)
    assert rig.post(OPENAI, PROMPT, *KEYS).status == 0
    assert rig.post("https://unlisted.example/", PROMPT).status == 0
    assert rig.unlisted.tcp == 0
    rig.assert_nothing_reached_the_provider()


@pytest.mark.parametrize("hook", ["client_connected", "tls_failed_client", "server_connect_error", "running"])
def test_hooks_that_decide_nothing_may_fail(
    rigs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hook: str
) -> None:
    def boom(*_: object) -> None:
        raise RuntimeError("on purpose")

    if hook == "running":
        redirector = Redirector(key=GATEWAY_KEY)
        monkeypatch.setattr(redirector, "running", boom)
        monkeypatch.setattr("mitm_addon.proxy.START_TIMEOUT_S", 2.0)
        with pytest.raises(Exception, match="does not start"):
            Rig(tmp_path, redirector=redirector)
        return
    redirector = Redirector(key=GATEWAY_KEY)
    monkeypatch.setattr(redirector, hook, boom)
    rig = rigs(redirector=redirector)
    rig.curl(OPENAI, trusted=False)
    assert rig.post(OPENAI, PROMPT, *KEYS).status == 200
    rig.gateway.stop()
    assert rig.post(OPENAI, PROMPT, *KEYS).status in (502, 503)
    rig.assert_nothing_reached_the_provider()


# --- bodies ------------------------------------------------------------------------------------------------


def _bomb() -> bytes:
    return gzip.compress(b'{"model":"' + b"a" * 40_000_000 + b'"}')


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b'{"model":"' + b"a" * 1_100_000 + b'"}', [], 413, "1 MiB"),
        (b'{"model":"' + b"a" * 1_100_000 + b'"}', ["transfer-encoding: chunked"], 413, "1 MiB"),
        (_bomb(), ["content-encoding: gzip"], 413, "1 MiB"),
        (zstandard.compress(b"a" * 40_000_000), ["content-encoding: zstd"], 413, "1 MiB"),
        (b"{}", ["content-encoding: rot13"], 415, "rot13"),
        (b"{}", ["content-encoding: gzip, rot13"], 415, "rot13"),
        (b"{}", ["content-encoding: gzip"], 400, "can't be read"),
        (gzip.compress(PROMPT)[:-9], ["content-encoding: gzip"], 400, "can't be read"),
        (zstandard.compress(PROMPT)[:-2], ["content-encoding: zstd"], 400, "can't be read"),
        (b"{}", ["content-encoding: br"], 400, "can't be read"),
        (b"{}", ["content-encoding: deflate"], 400, "can't be read"),
        (b"not json", [], 400, "not a JSON object"),
        (b'{"model":"a"', [], 400, "missing"),
    ],
)
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_bodies_that_cannot_be_sent_on(
    rigs: Any, body: bytes, headers: list[str], status: int, said: str, version: str
) -> None:
    rig = rigs(kimi_max_body_mb=1)
    if version == "--http2" and "transfer-encoding: chunked" in headers:
        headers = ["content-length:"]  # curl leaves it out
    more = [part for header in headers for part in ("-H", header)]
    for url in (OPENAI, ANTHROPIC):
        answer = rig.post(url, body, version, *more, *KEYS)
        assert answer.status == status, answer
        assert said in json.loads(answer.body)["error"]["message"]
        assert (json.loads(answer.body).get("type") == "error") is (url is ANTHROPIC)
    assert rig.gateway.calls == []
    rig.assert_nothing_reached_the_provider()


# --- names, strict -----------------------------------------------------------------------------------------


def test_a_refused_name(rigs: Any, tmp_path: Path) -> None:
    (table := tmp_path / "own.toml").write_text('[models]\ndefault = ""\n')
    rig = rigs(kimi_routes=str(table))
    for url in (OPENAI, GEMINI):
        answer = rig.post(url, PROMPT, *KEYS)
        assert answer.status == 404
        assert "No model of the gateway stands for 'g" in json.loads(answer.body)["error"]["message"]
    assert rig.gateway.calls == []
    rig.assert_nothing_reached_the_provider()


def test_strict_mode_lets_nothing_else_out(rigs: Any) -> None:
    rig = rigs(kimi_strict=True)
    for url in (
        "https://api.anthropic.com/api/event_logging/v2/batch",
        f"https://generativelanguage.googleapis.com/upload/v1beta/files?key={CANARY}",
        "https://api.openai.com/v1/files",
        "http://api.openai.com/",
    ):
        answer = rig.post(url, PROMPT, *KEYS)
        assert answer.status == 403
        assert "strict" in answer.body.decode()
    assert rig.post(OPENAI, PROMPT, *KEYS).status == 200
    assert rig.curl("https://unlisted.example/").status == 200
    rig.assert_nothing_reached_the_provider()


def test_a_refused_path_is_refused_without_strict(rig: Rig) -> None:
    answer = rig.post("https://api.openai.com/v1/realtime/sessions", PROMPT, *KEYS)
    assert answer.status == 403
    rig.assert_nothing_reached_the_provider()


# --- clients that refuse our certificate -------------------------------------------------------------------


def test_a_pinning_client_is_explained_and_stays_refused(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert rig.curl(OPENAI, *KEYS, trusted=False).status == 0
    said = [r.getMessage() for r in caplog.records if r.name == "mitm_addon.redirect"]
    assert len(said) == 1, "once for each client"
    assert "refuses our certificate for api.openai.com" in said[0]
    assert rig.proxy.tally.untrusted.keys() == {"api.openai.com"}
    rig.assert_nothing_reached_the_provider()


def test_unlisting_is_for_that_client_that_host_and_a_time(rigs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    rig = rigs(kimi_unlist_pinned=60)
    monkeypatch.setattr(rig.redirector._pinned, "_clock", lambda: now[0])
    assert rig.curl(OPENAI, trusted=False).status == 0
    # The same client goes on, undecrypted; curl trusts the provider's own CA here.
    again = rig.post(OPENAI, PROMPT, *KEYS)
    assert (again.status, again.headers.get("x-kimi-served-by")) == (200, None)
    assert rig.origin.wait_for(1).body == PROMPT
    seen = rig.origin.tcp
    # Another host, and another client on this machine: redirected as ever.
    assert rig.post(ANTHROPIC, PROMPT, *KEYS).headers["x-kimi-served-by"] == "kimi-gateway"
    with rig.tunnel("api.openai.com") as line:
        line.sendall(b"POST /v1/responses HTTP/1.1\r\nHost: api.openai.com\r\ncontent-length: 2\r\n\r\n{}")
        assert b"x-kimi-served-by: kimi-gateway" in line.recv(4096)
    now[0] += 61
    assert rig.post(OPENAI, PROMPT, *KEYS).headers["x-kimi-served-by"] == "kimi-gateway"
    assert rig.origin.tcp == seen
