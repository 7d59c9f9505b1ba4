"""mitmproxy's options of the redirector, and the settings they make together.

The one place that knows their names. Raises mitmproxy's OptionsError with a sentence that says what to change, so that
a proxy that could not keep our promises does not start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmproxy import exceptions

from .gateway import DEFAULT_URL, Gateway, GatewayError, find_key
from .routes import Routes, RoutesError

#: With either, mitmproxy sends a body on, or answers, before anybody can rewrite it.
_FORBIDDEN = ("stream_large_bodies", "body_size_limit")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of one run; `unlist_pinned_s` is 0 when pinning clients stay refused."""

    gateway: Gateway
    routes: Routes
    strict: bool
    fall_through: bool
    unlist_pinned_s: int
    max_body_bytes: int


def add_to(loader: Any) -> None:
    """Declare the options."""
    for name, kind, default, text in (
        ("kimi_gateway", str, "", f"The gateway's address. Default: KIMI_GATEWAY_URL, else {DEFAULT_URL}."),
        ("kimi_routes", str, "", "A TOML file laid over the packaged routes.toml: hosts, paths, model names."),
        ("kimi_strict", bool, False, "Refuse the paths of listed hosts that no route names, instead of passing them."),
        (
            "kimi_fall_through",
            bool,
            False,
            "While the gateway is down, let calls go to their provider with their own key, instead of refusing them.",
        ),
        (
            "kimi_unlist_pinned",
            int,
            0,
            "Seconds for which a client that refuses our certificate reaches that host undecrypted, so that its "
            "provider answers. 0: it stays refused.",
        ),
        ("kimi_max_body_mb", int, 64, "The largest request body in MiB, decompressed."),
    ):
        loader.add_option(name, kind, default, text)


def check_foreign(options: Any) -> None:
    """Raise OptionsError for options of mitmproxy's that break our promises."""
    for name in _FORBIDDEN:
        if getattr(options, name, None):
            raise exceptions.OptionsError(
                f"{name} can't be used together with the redirector: requests would leave before they are rewritten. "
                "Take it out of the command and of config.yaml; kimi_max_body_mb limits bodies."
            )


def config(options: Any, key: str | None) -> Config:
    """All settings; `key` is the gateway's when the caller has it. Raises OptionsError."""
    try:
        url = options.kimi_gateway or os.environ.get("KIMI_GATEWAY_URL") or DEFAULT_URL
        gateway = Gateway.at(url, key or find_key(os.environ))
        routes = Routes.load(Path(options.kimi_routes).expanduser() if options.kimi_routes else None)
    except (GatewayError, RoutesError) as exc:
        raise exceptions.OptionsError(str(exc)) from None
    if routes.host(gateway.host) is not None:
        raise exceptions.OptionsError(f"The gateway {gateway.host} is itself a listed host: calls would go in circles.")
    if options.kimi_max_body_mb < 1:
        raise exceptions.OptionsError("kimi_max_body_mb must be 1 or more.")
    if options.kimi_unlist_pinned < 0:
        raise exceptions.OptionsError("kimi_unlist_pinned must be 0 or a number of seconds.")
    if options.kimi_strict and (options.kimi_fall_through or options.kimi_unlist_pinned):
        raise exceptions.OptionsError(
            "kimi_strict lets nothing reach a provider; kimi_fall_through and kimi_unlist_pinned do. Choose one."
        )
    return Config(
        gateway=gateway,
        routes=routes,
        strict=options.kimi_strict,
        fall_through=options.kimi_fall_through,
        unlist_pinned_s=options.kimi_unlist_pinned,
        max_body_bytes=options.kimi_max_body_mb * 1024 * 1024,
    )
