"""The account store: the one room that knows SQL and sealing.

Accounts, sealed tokens, what puts accounts aside, streams of every process, usage and an audit trail; in a SQLite file
of the user's, or in PostgreSQL where several machines share accounts. Knows neither the service nor the pool: it keeps
and hands out values.
"""

from __future__ import annotations

from .accounts import StoredAccount, StoredCooldown, StoredFailure
from .alerts import StoredAlert
from .audit import AuditEntry
from .chats import ChatRows, StoredChat
from .hints import durability_hint
from .opening import Store, Transaction, memory_store, open_store
from .sealing import StoreError
from .streams import StreamCount, StreamWish
from .tokens import Claim, RefreshFailures, TokenPair
from .usage import Usage

__all__ = [
    "AuditEntry",
    "ChatRows",
    "Claim",
    "RefreshFailures",
    "Store",
    "StoreError",
    "StoredAccount",
    "StoredAlert",
    "StoredChat",
    "StoredCooldown",
    "StoredFailure",
    "StreamCount",
    "StreamWish",
    "TokenPair",
    "Transaction",
    "Usage",
    "durability_hint",
    "memory_store",
    "open_store",
]
