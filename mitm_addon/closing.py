"""How a hook that fails ends what it was called for.

mitmproxy logs an exception and lets the call go on to its provider, with its key. Hooks that could let one go are
wrapped here: a call gets an error or is hung up on, a connection closes before it is decrypted or forwarded.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import exceptions, http, tls
from mitmproxy.proxy import layer, layers

from . import flows
from .replies import Caller, Failure

log = logging.getLogger(__name__)


def fails_closed(end: Callable[[Any], None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a hook end what it was called for, by `end`, when it raises."""

    def wrap(hook: Callable[..., Any]) -> Callable[..., Any]:
        # Neither message nor traceback is logged: they may quote headers.
        def close(self: Any, subject: Any, exc: Exception) -> None:
            log.error("%s failed with %s; the call is ended, nothing was sent on.", hook.__name__, type(exc).__name__)
            end(subject)

        if inspect.iscoroutinefunction(hook):

            @functools.wraps(hook)
            async def wrapped_async(self: Any, subject: Any) -> None:
                try:
                    await hook(self, subject)
                except exceptions.AddonHalt:
                    raise
                except Exception as exc:  # noqa: BLE001  # mitmproxy would let the call go on
                    close(self, subject, exc)

            return wrapped_async

        @functools.wraps(hook)
        def wrapped(self: Any, subject: Any) -> None:
            try:
                hook(self, subject)
            except exceptions.AddonHalt:
                raise
            except Exception as exc:  # noqa: BLE001  # mitmproxy would let the call go on
                close(self, subject, exc)

        return wrapped

    return wrap


def end_flow(flow: http.HTTPFlow) -> None:
    """Answer with an error; hang up when even that fails, or when an answer is on its way."""
    try:
        caller = flows.caller(flow) or Caller(dialect="openai")
        if flow.response is None:
            return flows.answer(flow, caller, Failure.BROKEN, "An error inside the redirector. Nothing was sent on.")
    except Exception:  # noqa: BLE001, S110  # hanging up is what is left
        pass
    flow.kill()


def end_handshake(data: tls.ClientHelloData) -> None:
    """Neither decrypt nor forward: a connection without a destination closes."""
    data.context.server.address = None
    data.ignore_connection = True


def end_connection(nextlayer: layer.NextLayer) -> None:
    """The same before it is known what a connection holds."""
    nextlayer.context.server.address = None
    nextlayer.layer = layers.TCPLayer(nextlayer.context, ignore=True)
