"""Who may call: accounts, their logins, and the rotation of refresh tokens (protocol A.1, A.5, A.6).

A login yields one session: a current refresh token and any number of access tokens. Refreshing kills the refresh
token it was given; access tokens live until they expire or are revoked. Sessions of a simulator that ran before with
the same key are taken up as their tokens say.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .tokens import LEVEL_NUMBERS, Region, TokenMint, digits_id, xid_of

LoginKind = Literal["pair", "cookie", "opaque"]


@dataclass(kw_only=True, slots=True)
class Account:
    """One user of the simulated service."""

    sub: str
    name: str
    level: str
    region: Region
    issued: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    revoked_at: float = 0.0
    # The access token that scenario `stale_token` refuses until another one comes.
    stale_jti: str | None = None

    def allows(self, level: str) -> bool:
        """Whether the plan is at least `level`."""
        return LEVEL_NUMBERS[self.level] >= LEVEL_NUMBERS[level]


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """An accepted access token: the account and the token's id."""

    account: Account
    jti: str


@dataclass(kw_only=True, slots=True)
class _Session:
    account: Account
    ssid: str
    device_id: str
    refresh: str  # jti of the one live refresh token, or the opaque token itself


class Accounts:
    """All accounts of one simulator."""

    def __init__(self, mint: TokenMint, clock: Callable[[], float]) -> None:
        self._mint = mint
        self._clock = clock
        self._by_sub: dict[str, Account] = {}
        self._sessions: dict[str, _Session] = {}
        self.refreshes = 0

    def login(
        self,
        *,
        user: str | None = None,
        kind: LoginKind = "pair",
        region: Region = "overseas",
        level: str = "LEVEL_FREE",
        access_ttl_s: float,
        refresh_ttl_s: float,
    ) -> dict[str, str]:
        """Tokens of a fresh session: `accessToken` and `refreshToken`, or `kimiAuth`; always `userId`."""
        name = user or f"user-{len(self._by_sub) + 1}"
        sub = xid_of(name)
        account = self._by_sub.setdefault(sub, Account(sub=sub, name=name, level=level, region=region))
        account.level, account.region = level, region
        session = _Session(
            account=account,
            ssid=digits_id(17 * 10**17, 18 * 10**17),
            device_id=digits_id(70 * 10**17, 799 * 10**16),
            refresh="",
        )
        self._sessions[session.ssid] = session
        if kind == "cookie":
            return {"kimiAuth": self._sign(session, "access", access_ttl_s, old=True), "userId": sub}
        if kind == "opaque":
            session.refresh = secrets.token_hex(24)
            return {"refreshToken": session.refresh, "userId": sub}
        return {**self._pair(session, access_ttl_s, refresh_ttl_s), "userId": sub}

    def caller_of(self, token: str) -> Caller | None:
        """Who an access token speaks for; None when it is missing, foreign, expired, revoked or of another `typ`."""
        claims = self._mint.read(token)
        if claims is None or claims.get("typ") != "access":
            return None
        account = self._account_of(claims)
        return Caller(account=account, jti=claims["jti"]) if self._alive(account, claims) else None

    def sub_of(self, token: str) -> str | None:
        """Whose token this is, dead or alive; None when it isn't one of this simulator's."""
        return self._mint.sub_of(token)

    def sub_named(self, user: str) -> str | None:
        """The id of a known user."""
        sub = xid_of(user)
        return sub if sub in self._by_sub else None

    def refresh(
        self,
        token: str,
        *,
        access_ttl_s: float,
        refresh_ttl_s: float,
        rotate: bool = True,
        reuse_kills_session: bool = False,
    ) -> dict[str, str] | None:
        """A new pair for a live refresh token, which dies unless `rotate` is off; None when it isn't live."""
        session = self._session_of(token)
        if session is None:
            if reuse_kills_session:
                self._end_session(token)
            return None
        self.refreshes += 1
        if not rotate:
            return {"accessToken": self._sign(session, "access", access_ttl_s), "refreshToken": token}
        return self._pair(session, access_ttl_s, refresh_ttl_s)

    def refresh_opaque(self, token: str, *, access_ttl_s: float) -> dict[str, str] | None:
        """Form 1 with an opaque refresh token (protocol A.1): it stays as it is."""
        session = next((one for one in self._sessions.values() if one.refresh and one.refresh == token), None)
        if session is None or "." in token:
            return None
        self.refreshes += 1
        return {"accessToken": self._sign(session, "access", access_ttl_s), "refreshToken": token}

    def revoke(self, user: str, *, what: Literal["access", "refresh", "all"] = "all") -> bool:
        """Kill the tokens issued to a user so far; a later login works again. False for an unknown user."""
        account = self._by_sub.get(xid_of(user))
        if account is None:
            return False
        live = {one.refresh for one in self._sessions.values() if one.account is account}
        if what in ("access", "all"):
            account.dead |= account.issued - live
        if what in ("refresh", "all"):
            for session in self._sessions.values():
                if session.account is account:
                    account.dead.add(session.refresh)
                    session.refresh = "revoked"
        account.revoked_at = self._clock()
        return True

    def reset(self) -> None:
        """Forget what scenarios left behind; accounts and tokens stay."""
        self.refreshes = 0
        for account in self._by_sub.values():
            account.stale_jti = None

    def _pair(self, session: _Session, access_ttl_s: float, refresh_ttl_s: float) -> dict[str, str]:
        access = self._sign(session, "access", access_ttl_s)
        refresh = self._sign(session, "refresh", refresh_ttl_s)
        return {"accessToken": access, "refreshToken": refresh}

    def _sign(self, session: _Session, typ: Literal["access", "refresh"], ttl_s: float, *, old: bool = False) -> str:
        account = session.account
        token, jti = self._mint.sign(
            typ,
            sub=account.sub,
            ssid=session.ssid,
            device_id=session.device_id,
            region="cn" if old else account.region,
            level=account.level,
            ttl_s=ttl_s,
            generation="user-center" if old else "account",
        )
        account.issued.add(jti)
        if typ == "refresh":
            session.refresh = jti
        return token

    def _session_of(self, token: str) -> _Session | None:
        claims = self._mint.read(token)
        if claims is None or claims.get("typ") != "refresh":
            return None
        account = self._account_of(claims)
        if not self._alive(account, claims):
            return None
        session = self._sessions.get(claims["ssid"])
        if session is None:
            session = _Session(
                account=account, ssid=claims["ssid"], device_id=claims["device_id"], refresh=claims["jti"]
            )
            self._sessions[session.ssid] = session
        return session if session.refresh == claims["jti"] else None

    def _end_session(self, token: str) -> None:
        claims = self._mint.read(token)
        if claims is not None and (session := self._sessions.get(claims["ssid"])) is not None:
            session.account.dead |= session.account.issued
            session.refresh = "reused"

    def _alive(self, account: Account, claims: dict[str, Any]) -> bool:
        if claims["jti"] in account.dead:
            return False
        return claims["jti"] in account.issued or claims["iat"] > account.revoked_at

    def _account_of(self, claims: dict[str, Any]) -> Account:
        sub = claims["sub"]
        if sub not in self._by_sub:
            level = next(name for name, number in LEVEL_NUMBERS.items() if number == claims["membership"]["level"])
            self._by_sub[sub] = Account(sub=sub, name=f"returned-{sub[:6]}", level=level, region=claims["region"])
        return self._by_sub[sub]
