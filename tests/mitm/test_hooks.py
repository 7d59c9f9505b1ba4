"""The hooks alone, in mitmproxy's own harness: what end-to-end calls can't show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mitmproxy import exceptions, io
from mitmproxy.addons import dumper, proxyserver
from mitmproxy.http import Headers
from mitmproxy.test import taddons, tflow, tutils

from mitm_addon import rewrite
from mitm_addon.gateway import Gateway, GatewayError, Watch
from mitm_addon.pinning import Client, Pinned
from mitm_addon.redirect import Redirector

from .rig import CANARY, GATEWAY_KEY


@pytest.fixture
def addon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Redirector]:
    async def up(_: Watch) -> bool:
        return True

    monkeypatch.setattr(Watch, "is_up", up)
    redirector = Redirector(key=GATEWAY_KEY)
    with taddons.context(redirector) as context:
        context.master.addons.add(proxyserver.Proxyserver())
        context.configure(redirector)
        redirector.running()
        yield redirector


def flow(
    host: str = "api.openai.com", path: str = "/v1/responses", body: bytes = b'{"model":"a"}', **fields: Any
) -> Any:
    headers = Headers([(b"Authorization", CANARY.encode()), (b"Host", host.encode())])
    return tflow.tflow(
        req=tutils.treq(
            method=b"POST", host=host, port=443, path=path.encode(), headers=headers, content=body, **fields
        )
    )


def through(addon: Redirector, made: Any) -> Any:
    async def both() -> None:
        await addon.requestheaders(made)
        await addon.request(made)

    asyncio.run(both())
    return made


def test_a_flow_is_stripped_before_its_body(addon: Redirector) -> None:
    made = flow()
    asyncio.run(addon.requestheaders(made))
    assert CANARY not in str(made.request.headers)
    assert (made.request.host, made.request.port, made.request.scheme) == ("127.0.0.1", 4000, "http")
    assert made.request.pretty_url == "http://127.0.0.1:4000/v1/responses"
    assert made.request.stream is False
    assert made.server_conn.via is None


def test_trailers_go_nowhere(addon: Redirector) -> None:
    made = flow(trailers=Headers(x_api_key=CANARY))
    assert through(addon, made).request.trailers is None


def test_http2_has_the_gateways_authority(addon: Redirector) -> None:
    made = flow(http_version=b"HTTP/2.0", authority=b"api.openai.com")
    through(addon, made)
    assert made.request.authority == "127.0.0.1:4000"
    assert made.request.host == "127.0.0.1"


def test_a_body_that_another_addon_streams_is_not(addon: Redirector) -> None:
    made = flow()
    made.request.stream = True
    asyncio.run(addon.requestheaders(made))
    assert made.request.stream is False


def test_flows_can_be_written_to_a_file(addon: Redirector, tmp_path: Path) -> None:
    with (tmp_path / "flows").open("wb") as file:
        writer = io.FlowWriter(file)
        writer.add(through(addon, flow()))
        writer.add(through(addon, flow(body=b"not json")))
    assert CANARY.encode() not in (tmp_path / "flows").read_bytes()


def test_an_answer_of_another_addon_stays(addon: Redirector) -> None:
    made = flow()
    made.response = tutils.tresp(status_code=407)
    through(addon, made)
    assert made.response.status_code == 407


def test_nothing_is_decided_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    redirector = Redirector(key=GATEWAY_KEY)
    with taddons.context(redirector) as context:
        context.configure(redirector)
        made = flow()
        asyncio.run(redirector.requestheaders(made))
        assert made.response.status_code == 500
        unlisted = flow(host="example.com")
        asyncio.run(redirector.requestheaders(unlisted))
        assert unlisted.response.status_code == 500


_TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=20)
_PATHS = st.lists(
    st.sampled_from(["v1", "v1beta", "openai", "chat", "completions", "responses", "messages", "models", "deployments"])
    | st.sampled_from(["", ".", "..", "%2e%2e", "gemini:generateContent", "gpt-5", "%C3%A9", "%0d%0aX:y", "files"])
    | _TOKENS,
    max_size=6,
).map(lambda parts: "/" + "/".join(parts))
_HOSTS = ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "x.openai.azure.com", "api.x.ai"]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    host=st.sampled_from(_HOSTS),
    path=_PATHS,
    names=st.lists(_TOKENS | st.sampled_from(["Authorization", "X-API-KEY", "api-key", "x-goog-api-key", "cookie"])),
    query=st.lists(st.tuples(_TOKENS, st.sampled_from(["", "=", "=" + CANARY, "=sse", "=a%26key=" + CANARY]))),
    strict=st.booleans(),
)
def test_a_call_is_answered_or_stripped_or_untouched(
    addon: Redirector, host: str, path: str, names: list[str], query: list[tuple[str, str]], strict: bool
) -> None:
    assert addon._config is not None
    addon._config = replace(addon._config, strict=strict)
    whole = path + ("?" + "&".join(name + value for name, value in query) if query else "")
    fields = [
        (b"Host", host.encode()),
        *((name.encode(), CANARY.encode()) for name in names if name.lower() not in _OURS),
    ]
    made = tflow.tflow(
        req=tutils.treq(
            method=b"POST", host=host, port=443, path=whole.encode(), headers=Headers(fields), content=b"{}"
        )
    )
    before = made.request.copy()
    through(addon, made)
    after = made.request
    if made.response is not None:
        assert made.response.status_code in (403, 404)
    elif after.host == host:
        assert not strict
        assert after.stream is True
        assert (after.path, after.headers.fields, after.raw_content) == (whole, before.headers.fields, b"{}")
    else:
        assert (after.host, after.port, after.stream) == ("127.0.0.1", 4000, False)
        allowed = rewrite.PARAMETERS
        told = "&".join(value for name, value in query if name in allowed)
        assert CANARY not in str(after.headers.fields)
        assert CANARY not in after.path.replace(CANARY, "", told.count(f"={CANARY}"))
        assert not set(after.path) & set(" \r\n")
        assert len(after.headers.get_all("authorization")) == len(after.headers.get_all("host")) == 1


#: Headers that go on, and those that say how a message is framed.
_OURS = {"content-type", "accept", "user-agent", "anthropic-version", "anthropic-beta", "host", "content-length"}
_OURS |= {"transfer-encoding", "content-encoding", "expect", "upgrade"}


@pytest.mark.parametrize("name", ["stream_large_bodies", "body_size_limit"])
def test_mitmproxys_size_options_are_refused(name: str) -> None:
    redirector = Redirector(key=GATEWAY_KEY)
    with taddons.context(redirector, loadcore=True) as context:
        context.master.addons.add(proxyserver.Proxyserver())
        with pytest.raises(exceptions.OptionsError, match=name):
            context.configure(redirector, **{name: "1m"})


def test_urls_and_headers_are_not_printed() -> None:
    redirector = Redirector(key=GATEWAY_KEY)
    with taddons.context(redirector) as context:
        context.master.addons.add(proxyserver.Proxyserver(), dumper.Dumper())
        context.configure(redirector, flow_detail=3)
        redirector.running()
        assert context.options.flow_detail == 0


def test_it_stays_lazy() -> None:
    redirector = Redirector(key=GATEWAY_KEY)
    with taddons.context(redirector) as context:
        context.master.addons.add(proxyserver.Proxyserver())
        context.configure(redirector, connection_strategy="eager")
        redirector.running()
        assert context.options.connection_strategy == "lazy"
        with pytest.raises(exceptions.OptionsError, match="must stay lazy"):
            context.options.update(connection_strategy="eager")


@pytest.mark.parametrize(
    ("url", "authority", "whole"),
    [
        ("http://127.0.0.1:4000", "127.0.0.1:4000", "http://127.0.0.1:4000"),
        ("http://127.0.0.1:4000/", "127.0.0.1:4000", "http://127.0.0.1:4000"),
        ("https://gateway.example/llm/", "gateway.example", "https://gateway.example/llm"),
        ("http://[::1]:4000", "[::1]:4000", "http://[::1]:4000"),
    ],
)
def test_addresses_of_gateways(url: str, authority: str, whole: str) -> None:
    gateway = Gateway.at(url, "sk-1")
    assert (gateway.authority, gateway.url) == (authority, whole)
    assert "sk-1" not in repr(gateway)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:4000", "ftp://x", "http://", "http://a:b@c", "http://x:99999", "http://x?y"]
)
def test_wrong_addresses_of_gateways(url: str) -> None:
    with pytest.raises(GatewayError, match="gateway's address"):
        Gateway.at(url, "sk-1")


def test_a_gateway_below_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, addon: Redirector) -> None:
    assert addon._config is not None
    addon._config = replace(addon._config, gateway=Gateway.at("https://gateway.example/llm", GATEWAY_KEY))
    made = through(addon, flow())
    assert made.request.pretty_url == "https://gateway.example/llm/v1/responses"


def test_the_look_at_the_gateway_counts_for_a_moment() -> None:
    now, looks = [0.0], []

    class Counting(Watch):
        async def _connects(self) -> bool:
            looks.append(now[0])
            return len(looks) != 1

    watch = Counting(Gateway.at("http://127.0.0.1:1", "k"), clock=lambda: now[0])

    async def ask() -> bool:
        return await watch.is_up()

    assert asyncio.run(ask()) is False
    assert asyncio.run(ask()) is False
    now[0] = 1.0
    assert asyncio.run(ask()) is True
    watch.forget()
    assert asyncio.run(ask()) is True
    assert looks == [0.0, 1.0, 1.0]


def client(address: str = "127.0.0.1", host: str = "api.openai.com", extra: tuple[int, ...] = ()) -> Client:
    return Client.of(address=address, host=host, ciphers=(0x1301, 0x0A0A), extensions=(0, 10, 0xFAFA, *extra))


def test_clients_are_told_apart_and_expire() -> None:
    now = [0.0]
    pinned = Pinned(60, clock=lambda: now[0])
    assert client() not in pinned
    assert pinned.failed(client())
    assert client() in pinned
    assert client(extra=(41, 21)) in pinned, "a resumed or padded greeting is the same client"
    for other in (client(address="10.0.0.2"), client(host="api.anthropic.com"), client(extra=(23,))):
        assert other not in pinned
    now[0] = 60.0
    assert client() not in pinned
    assert not Pinned(0).failed(client())
