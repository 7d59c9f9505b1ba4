"""Accounts of the service: what the owner pasted, the tokens that live, and who may use which account now.

`importer` reads pasted text, `account` holds the values, `tokens` keeps access tokens fresh, `pool` hands accounts to
answers. Nothing here knows a chat protocol; the network is reached through `web` only.
"""

from __future__ import annotations

from ..store import TokenPair
from .account import Account, Claims, Credential
from .durable import DurableTokenStore, MemoryTokenStore, TokenStore
from .importer import parse
from .pool import Lease, Pool
from .tokens import TokenKeeper

__all__ = [
    "Account",
    "Claims",
    "Credential",
    "DurableTokenStore",
    "Lease",
    "MemoryTokenStore",
    "Pool",
    "TokenKeeper",
    "TokenPair",
    "TokenStore",
    "parse",
]
