"""The addon: mitmproxy's hooks, and nothing but hooks.

Destination and credentials are settled in `requestheaders`, before a byte can leave; the body in `request`. Each hook
that could let a call go to its provider is wrapped, and ends it when it fails (`closing`). What is decided, and how
flows and bytes change, is in the other modules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy import connection, ctx, exceptions, http, tls
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from . import flows, options
from .closing import end_connection, end_flow, end_handshake, fails_closed
from .gateway import Watch
from .pinning import Client, Pinned
from .replies import Caller, Failure, Refused
from .routes import Host, Match
from .translation import Translator

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Tally:
    """What has happened, for a runner to tell its user."""

    connections: int = 0
    redirected: int = 0
    passed: int = 0
    refused: int = 0
    #: Listed host -> what was said of the handshake that failed.
    untrusted: dict[str, str] = field(default_factory=dict)


class Redirector:
    """mitmproxy's addon. `key` is the gateway's; without it, it is looked for (see `gateway.find_key`)."""

    def __init__(self, *, key: str | None = None) -> None:
        self._key = key
        self._config: options.Config | None = None
        self._watch: Watch | None = None
        self._pinned = Pinned(0)
        self._translator: Translator | None = None
        self._hellos: WeakKeyDictionary[connection.Client, Client] = WeakKeyDictionary()
        self._told: set[Client] = set()
        #: Set once calls can come; until then every one is ended.
        self.ready = asyncio.Event()
        self.tally = Tally()

    # --- start ----------------------------------------------------------------------------------------------

    def load(self, loader: Any) -> None:
        """Declare our options."""
        options.add_to(loader)

    def configure(self, updated: set[str]) -> None:
        """Check options, also those of mitmproxy's that would break our promises. Raises OptionsError."""
        options.check_foreign(ctx.options)
        if self.ready.is_set() and "connection_strategy" in updated and ctx.options.connection_strategy != "lazy":
            raise exceptions.OptionsError("connection_strategy must stay lazy: eager contacts the provider each time.")
        if self._config is None or any(name.startswith("kimi_") for name in updated):
            self._config = options.config(ctx.options, self._key)
            self._watch = Watch(self._config.gateway)
            self._translator = Translator(self._config.routes.models, max_body_bytes=self._config.max_body_bytes)
            self._pinned = Pinned(self._config.unlist_pinned_s)

    def running(self) -> None:
        """mitmproxy has started: no connection to a provider before it is decided that it shall have the call."""
        ctx.options.update(connection_strategy="lazy")
        # mitmdump prints URLs from level 1 and headers from level 2: keys stand in both.
        if "flow_detail" in ctx.options:
            ctx.options.update(flow_detail=0)
        self.ready.set()

    # A method, for mitmproxy reads every attribute of an addon while it is added.
    def _settings(self) -> options.Config:
        if self._config is None or not self.ready.is_set():
            raise RuntimeError("not configured")
        return self._config

    # --- connections ----------------------------------------------------------------------------------------

    def client_connected(self, client: connection.Client) -> None:
        """Count."""
        self.tally.connections += 1

    @fails_closed(end_connection)
    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """What a tunnel holds that is not TLS: of unlisted hosts it passes unread, of listed ones it must be HTTP."""
        context = nextlayer.context
        if context.server.address is None or context.client.tls or context.client.transport_protocol != "tcp":
            return
        data = nextlayer.data_client()
        if len(data) < 3 and self._settings().routes.host(context.server.address[0]) is not None:
            # mitmproxy would decide for a raw tunnel on less than three bytes.
            raise exceptions.AddonHalt
        if starts_like_tls_record(data):
            return
        if self._settings().routes.host(context.server.address[0]) is None:
            nextlayer.layer = layers.TCPLayer(context, ignore=True)
        else:
            nextlayer.layer = layers.HttpLayer(context, HTTPMode.transparent)

    @fails_closed(end_handshake)
    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """Decrypt listed hosts only."""
        host = self._listed(data.context.server.address, data.client_hello.sni)
        if host is None:
            data.ignore_connection = True
            return
        client = Client.of(
            address=str(data.context.client.peername[0]),
            host=host.name,
            ciphers=data.client_hello.cipher_suites,
            extensions=(number for number, _ in data.client_hello.extensions),
        )
        if client in self._pinned:
            data.ignore_connection = True
        else:
            self._hellos[data.context.client] = client

    def tls_failed_client(self, data: tls.TlsData) -> None:
        """A client did not take our certificate. Node only hangs up, so the reason that came with it does not count."""
        client = self._hellos.get(data.context.client)
        if client is None:
            return
        self.tally.untrusted[client.host] = data.conn.error or ""
        if self._pinned.failed(client):
            log.warning(
                "A client at %s refuses our certificate for %s. For %d s its calls go to the provider UNDECRYPTED, "
                "with its own key (kimi_unlist_pinned).",
                client.address,
                client.host,
                self._settings().unlist_pinned_s,
            )
        elif client not in self._told:
            self._told.add(client)
            log.warning(
                "A client at %s refuses our certificate for %s: it does not trust the CA that it was given, or it "
                "pins the provider's certificate, and then it can't be redirected. Its calls fail.",
                client.address,
                client.host,
            )

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """The gateway may just have gone: look again."""
        if self._watch is not None:
            self._watch.forget()

    # --- calls ----------------------------------------------------------------------------------------------

    @fails_closed(end_flow)
    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Settle where a call goes, and strip it, before its body is read."""
        if flow.response is not None:  # such as the proxy's own 407
            return
        host = self._listed(flow.server_conn.address, flow.client_conn.sni, flow.request.host)
        if host is None:
            flow.request.stream = True
            return
        # Read once: each question to mitmproxy's headers goes through all of them.
        headers = {name.lower(): value for name, value in flow.request.headers.fields}
        caller = Caller.of(
            host.dialect,
            originator=headers.get(b"originator", b""),
            user_agent=headers.get(b"user-agent", b""),
        )
        flows.remember(flow, caller)
        match = host.match(flow.request.path.partition("?")[0])
        if match is not None and match.dialect is not None:
            caller = replace(caller, dialect=match.dialect)
            flows.remember(flow, caller)
        try:
            await self._settle(flow, host, caller, match, headers)
        except Refused as exc:
            flows.answer(flow, caller, exc.failure, str(exc))

    @fails_closed(end_flow)
    async def request(self, flow: http.HTTPFlow) -> None:
        """The body of a redirected call: decompressed, and with the gateway's name for its model."""
        caller = flows.caller(flow)
        if caller is None or flow.response is not None:
            return
        assert self._translator is not None
        message = flow.request
        message.trailers = None
        encodings = message.headers.get("content-encoding", "")
        try:
            body = await self._translator.body(message.raw_content or b"", encodings, caller.dialect)
        except Refused as exc:
            return flows.answer(flow, caller, exc.failure, str(exc))
        flows.set_body(flow, body)

    @fails_closed(end_flow)
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Never hold an answer back, whoever gives it."""
        response = flow.response
        if response is None:
            return
        if flows.is_answered(flow):
            self.tally.refused += 1
            return
        response.stream = True
        if flows.caller(flow) is not None:
            flows.from_gateway(flow, response)
        elif self._listed(flow.server_conn.address, flow.client_conn.sni, flow.request.host) is not None:
            # HTTP/3 would go round this proxy.
            response.headers.pop("alt-svc", None)

    # --- steps ----------------------------------------------------------------------------------------------

    def _listed(self, address: tuple[str, int] | None, sni: str | None, host: str | None = None) -> Host | None:
        """The listed host of a connection: by the address that the client asked for, or its SNI where that is a bare
        IP. Never by a Host header, which can say anything.
        """
        routes = self._settings().routes
        return routes.host(host) or routes.host(address[0] if address else None) or routes.host(sni)

    async def _gateway_is_up(self) -> bool:
        assert self._watch is not None
        return await self._watch.is_up()

    async def _settle(
        self, flow: http.HTTPFlow, host: Host, caller: Caller, match: Match | None, headers: Mapping[bytes, bytes]
    ) -> None:
        """Send a call of a listed host to the gateway or let it pass. Raises Refused."""
        settings = self._settings()
        path, _, query = flow.request.path.partition("?")
        if match is None or match.policy == "pass":
            if settings.strict:
                raise Refused(
                    Failure.REFUSED,
                    f"{path} of {host.name} is not redirected, and strict mode lets nothing else reach the provider.",
                )
            return self._pass(flow)
        if headers.get(b"upgrade", b"").lower() == b"websocket":
            raise Refused(Failure.WEBSOCKET, "The gateway speaks no WebSocket here. Use HTTP.")
        if match.policy == "refuse":
            raise Refused(Failure.REFUSED, f"The gateway has nothing like {path} of {host.name}.")
        assert self._translator is not None
        self._translator.check_length(headers.get(b"content-length", b""))
        if await self._gateway_is_up():
            model = None if match.model is None else self._translator.model(match.model)
            flows.to_gateway(flow, settings.gateway, match.target(model), query)
            self.tally.redirected += 1
        elif settings.fall_through:
            log.warning("The gateway is down: %s answers a call of its own (kimi_fall_through).", host.name)
            self._pass(flow)
        else:
            raise Refused(
                Failure.GATEWAY_DOWN,
                f"The gateway at {settings.gateway.url} does not answer. Start it with: kimi-provider serve. Nothing "
                "was sent to the provider.",
            )

    def _pass(self, flow: http.HTTPFlow) -> None:
        self.tally.passed += 1
        flows.let_pass(flow)
