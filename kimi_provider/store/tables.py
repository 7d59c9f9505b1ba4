"""What is kept, as tables. Times are Unix seconds by the database's clock, ids are the service's own.

On PostgreSQL everything stands in the schema `kimi` of its own: LiteLLM's migrations drop tables of `public` that they
don't know. Nothing secret is in a column but `tokens.sealed`; `seeds.digest` is SHA-256 of what an owner pasted, so
that a dead credential given again stays dead.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA: Final = "kimi"
#: Of this layout; a store with a later one is refused, never changed.
VERSION: Final = 1

metadata = MetaData()


def _account(*, primary_key: bool = True) -> Column[str]:
    owner = ForeignKey("accounts.id", ondelete="CASCADE")
    return Column("account_id", String(128), owner, primary_key=primary_key, nullable=False)


#: `version` and `mode` (real or demo) of the store.
about = Table("about", metadata, Column("name", String(32), primary_key=True), Column("value", Text, nullable=False))

#: One row, whose number grows with every change that other processes should learn of.
changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("short_id", String(32), nullable=False),
    Column("simulated", Boolean, nullable=False),
    #: Answers calls that bring no credential of their own.
    Column("shared", Boolean, nullable=False),
    #: Not paused by its owner.
    Column("enabled", Boolean, nullable=False),
    Column("added_at", Float, nullable=False),
    #: The service has flagged it; code and text of the error. NULL while it may be used.
    Column("stopped_code", String(40)),
    Column("stopped_message", Text),
    Column("stopped_at", Float),
)

seeds = Table(
    "seeds",
    metadata,
    Column("digest", String(64), primary_key=True),
    _account(primary_key=False),
)

tokens = Table(
    "tokens",
    metadata,
    _account(),
    Column("sealed", LargeBinary, nullable=False),
    #: Names the key that opens `sealed`.
    Column("key_id", String(16), nullable=False),
    #: 0 when it came from the owner.
    Column("obtained_at", Float, nullable=False),
    #: The service refused this refresh token for good; code and text of the error.
    Column("refused_code", String(40)),
    Column("refused_message", Text),
)

#: Who refreshes now. A row that outlives its time was left by a process that died.
refreshes = Table(
    "refreshes",
    metadata,
    _account(),
    Column("owner", String(64), nullable=False),
    Column("began_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

#: Refreshes of an account that failed for now, since the last one that ended; code and text of the last error.
refresh_failures = Table(
    "refresh_failures",
    metadata,
    _account(),
    Column("failures", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("code", String(40), nullable=False),
    Column("message", Text, nullable=False),
)

#: What the readers of one channel believe of an account ("" stands for all together): `told` is a trouble, "" none.
#: `sending` is what `owner` has begun to tell, and may until `until`; without it, nobody tries again before then.
alerts = Table(
    "alerts",
    metadata,
    Column("account_id", String(128), primary_key=True),
    Column("channel", String(80), primary_key=True),
    Column("told", String(40), nullable=False),
    Column("sending", String(40)),
    Column("owner", String(64)),
    Column("until", Float, nullable=False),
    Column("tries", Integer, nullable=False),
)

#: What put an account aside, until when; `hard` is obeyed, else a preference. A scope is a scenario, a model in it,
#: or "" for all of the account.
cooldowns = Table(
    "cooldowns",
    metadata,
    _account(),
    Column("scope", String(128), primary_key=True),
    Column("code", String(40), nullable=False),
    Column("message", Text, nullable=False),
    Column("hard", Boolean, nullable=False),
    Column("until", Float, nullable=False),
)

#: Streams that a process may run on an account; of no value after `expires_at`.
streams = Table(
    "streams",
    metadata,
    _account(),
    Column("owner", String(64), primary_key=True),
    Column("held", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
)

#: Processes that wait for a stream, first come, first served.
waiting = Table(
    "waiting",
    metadata,
    _account(),
    Column("owner", String(64), primary_key=True),
    Column("since", Float, nullable=False),
    Column("stream_limit", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
)

#: Chats in the accounts; no account is referred to, for a chat must still be removed when its account is added anew.
#: `history` to `answer` are hashes. `owner` works with it until `due_at`; what is overdue is to be removed.
chats = Table(
    "chats",
    metadata,
    Column("chat_id", String(64), primary_key=True),
    Column("account_id", String(128), nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("removable", Boolean, nullable=False),
    Column("message_id", String(64)),
    Column("guarded", Boolean, nullable=False),
    Column("history", String(64)),
    Column("setup", String(64)),
    Column("name", String(64)),
    Column("answer", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("owner", String(64)),
    Column("due_at", Float, nullable=False),
    Index("chats_history", "history"),
    Index("chats_name", "name"),
    Index("chats_answer", "answer"),
    Index("chats_due_at", "due_at"),
)

#: Answers and estimated tokens of one account, model and day (UTC, 2026-01-31).
usage = Table(
    "usage",
    metadata,
    _account(),
    Column("model", String(128), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("answers", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
)

#: What happened to accounts, for people; survives the account. No secrets: codes, counts and short texts of ours.
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("account_id", String(128), nullable=False),
    Column("event", String(40), nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_at", "at"),
)
