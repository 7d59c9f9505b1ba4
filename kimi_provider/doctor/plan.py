"""What a probing asks, in the owner's words, before it asks: `probing` makes these calls and no others."""

from __future__ import annotations

from ..accounts import Account
from ..settings import Settings
from ..upstream import Upstream


def plan(upstream: Upstream, settings: Settings, account: Account) -> list[str]:
    """Every call that will be made, as the owner is told before."""
    asks = upstream.doctor
    calls = ["who the account is (1 call)"]
    if asks_newer(settings, account):
        calls.append("the list of models (1 call)")
        calls += [f"a short chat with {name} (1 call)" for name in asks.chats]
        calls.append("one more message in the first of these chats, and the list of its messages (2 calls)")
        calls.append(f"a short search with {asks.search} (1 call)")
    if asks_older(settings):
        calls.append(f"a short chat with {asks.older} over the older protocol (2 calls)")
    calls.append("removal of these chats, and of no others (1 call each)")
    if account.credential.refresh is not None:
        calls.append("one token refresh (1 call)")
    if asks.max_repeats:
        calls.append(f"at most {asks.max_repeats} repeats of chats that fail in a way nobody knows")
    return calls


def asks_newer(settings: Settings, account: Account) -> bool:
    """Whether the account and KIMI_PROTOCOL allow the newer protocol."""
    return settings.kimi_protocol in ("auto", "connect") and not account.opaque


def asks_older(settings: Settings) -> bool:
    """Whether KIMI_PROTOCOL allows the older protocol."""
    return settings.kimi_protocol in ("auto", "rest")
