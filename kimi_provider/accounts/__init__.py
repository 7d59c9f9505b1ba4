"""Accounts of the service: what the owner pasted, the tokens that live, and who may use which account now.

`importer` and `capture` read what is pasted, `credential` and `account` hold the values. `tokens` gives out sessions:
`freshness` judges them, `flights` renews them, `refreshing` makes the calls, `durable` keeps the pairs. `pool` hands
accounts to answers: `queueing` says whose turn it is, `cooldowns` who rests, `fleet`, `ledger` and `newsroom` what
other processes do, all on one `board`. Nothing here knows a chat protocol or SQL; the network is reached through `web`
only.
"""

from __future__ import annotations

from ..store import TokenPair
from .account import Account
from .credential import Claims, Credential
from .durable import DurableTokenStore, MemoryTokenStore, TokenStore
from .importer import parse
from .lease import Lease
from .pool import Pool
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
