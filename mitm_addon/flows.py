"""What is done to mitmproxy's flows: sent to the gateway, let pass, or answered here.

Decides nothing. Each function leaves a flow in a state that is safe to go on with, also when the next one never comes.
"""

from __future__ import annotations

from dataclasses import asdict

from mitmproxy import connection, http

from . import heap, rewrite
from .gateway import Gateway
from .replies import SERVED_BY, Caller, Failure

#: In a flow's metadata: whom the call is from, for calls that go to the gateway; and that we have answered ourselves.
_CALLER, _ANSWERED = "kimi_caller", "kimi_answered"
#: Of the gateway's answers. A cookie would reach the provider with the next call that passes; a redirect would send the
#: client, with its own key, straight to the gateway.
_KEPT_BACK = (b"set-cookie", b"location", b"alt-svc")
#: How the body is framed, until it is read; and what makes curl send it.
_FRAMING = (b"content-length", b"transfer-encoding", b"content-encoding", b"expect")


def remember(flow: http.HTTPFlow, caller: Caller) -> None:
    """Note whom the call is from."""
    # As plain values: mitmproxy writes metadata into its flow files.
    flow.metadata[_CALLER] = asdict(caller)


def caller(flow: http.HTTPFlow) -> Caller | None:
    """Whom the call is from; None for calls that are none of ours."""
    known = flow.metadata.get(_CALLER)
    return None if known is None else Caller(**known)


def is_answered(flow: http.HTTPFlow) -> bool:
    """Whether `answer` has been called."""
    return _ANSWERED in flow.metadata


def let_pass(flow: http.HTTPFlow) -> None:
    """To the provider, as it is and as it comes."""
    flow.metadata.pop(_CALLER, None)
    flow.request.stream = True


def answer(flow: http.HTTPFlow, caller: Caller, failure: Failure, message: str) -> None:
    """Answer in the gateway's place."""
    reply = caller.told(failure, message)
    flow.request.stream = False
    flow.metadata[_ANSWERED] = True
    flow.response = http.Response.make(reply.status, reply.body, reply.headers)


def to_gateway(flow: http.HTTPFlow, gateway: Gateway, path: str, query: str) -> None:
    """Another destination, the gateway's key, and of headers and query only what is allowed; the body is to come."""
    request = flow.request
    framing = [field for field in request.headers.fields if field[0].lower() in _FRAMING]
    kept = rewrite.query(query)
    request.scheme = gateway.scheme
    # Below mitmproxy's setters: each of them would write a Host header, and the headers are made anew.
    request.data.host, request.data.port = gateway.host, gateway.port
    request.data.authority = b""
    request.path = gateway.prefix + path + (f"?{kept}" if kept else "")
    request.headers = http.Headers(
        [
            *rewrite.headers(request.headers.fields),
            *framing,
            (b"authorization", b"Bearer " + gateway.key.encode()),
            (b"accept-encoding", b"identity"),
        ]
    )
    request.host_header = gateway.authority
    request.stream = False
    if flow.server_conn.via is not None:
        # The company's proxy is for what passes. The object is the connection's, other calls go on using it.
        flow.server_conn = connection.Server(address=(gateway.host, gateway.port))


def set_body(flow: http.HTTPFlow, body: bytes) -> None:
    """The body as the gateway gets it: plain, with a length, whatever framing the client used."""
    request = flow.request
    kept = [field for field in request.headers.fields if field[0].lower() not in _FRAMING]
    request.raw_content = body
    request.headers.fields = (*kept, (b"content-length", b"%d" % len(body))) if body else tuple(kept)


def from_gateway(flow: http.HTTPFlow, response: http.Response) -> None:
    """Say who answers, and keep back what would confuse client and provider."""
    kept = [field for field in response.headers.fields if field[0].lower() not in _KEPT_BACK]
    response.headers.fields = (*kept, (SERVED_BY.encode(), b"kimi-gateway"))
    if len(flow.request.raw_content or b"") >= heap.LARGE_BYTES:
        # It has been sent; an answer may take minutes, and mitmproxy's flows outlive it.
        flow.request.raw_content = None
