"""What is known of an account: claims of its tokens, what the owner gave, and the state of its session.

Claims are read without checking a signature (protocol A.3): they steer, they prove nothing. Values that go into
headers are kept only when they are plain visible ASCII, so that no token can smuggle in a header. Tokens never show in
a `repr`. `Account` is the one mutable thing; its parts say whose lock guards them.
"""

from __future__ import annotations

import base64
import binascii
import concurrent.futures
import hashlib
import math
import re
import threading
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import orjson

from ..errors import KimiError
from ..settings import Settings
from ..store import TokenPair
from ..upstream import Upstream

Kind = Literal["refresh", "access", "opaque"]

_DAY_S = 86_400
#: A token without `typ` that lives longer than this is a refresh token (protocol A.3).
REFRESH_LIFE_S = 45 * _DAY_S

_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """Payload of a JWT (protocol A.2). Ids are strings even when all digits; times are Unix seconds."""

    sub: str | None = None
    device_id: str | None = None
    ssid: str | None = None
    region: str | None = None
    app_id: str | None = None
    typ: str | None = None
    aud: tuple[str, ...] = ()
    exp: float | None = None
    iat: float | None = None
    membership_level: int | None = None
    simulator: bool = False

    @property
    def life_s(self) -> float | None:
        """From issue to expiry, when both are known."""
        return None if self.exp is None or self.iat is None else self.exp - self.iat

    @property
    def is_refresh(self) -> bool:
        """`typ` decides; without one that is known, a long life does."""
        if self.typ in ("access", "refresh"):
            return self.typ == "refresh"
        return self.life_s is not None and self.life_s > REFRESH_LIFE_S


@lru_cache(maxsize=256)  # asked several times for each call
def claims_of(token: str | None) -> Claims | None:
    """Claims when `token` is a JWT: `eyJ` on part 1 and a JSON object in part 2 (protocol A.3); else None."""
    parts = (token or "").split(".")
    if len(parts) != 3 or not parts[0].startswith("eyJ"):
        return None
    try:
        payload = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(payload, dict):
        return None
    aud = payload.get("aud")
    membership = payload.get("membership")
    level = membership.get("level") if isinstance(membership, dict) else None
    return Claims(
        sub=_id(payload.get("sub")),
        device_id=_id(payload.get("device_id")),
        ssid=_id(payload.get("ssid")),
        region=_id(payload.get("region")),
        app_id=_id(payload.get("app_id")),
        typ=_id(payload.get("typ")),
        aud=tuple(one for one in (aud if isinstance(aud, list) else [aud]) if isinstance(one, str)),
        exp=_time(payload.get("exp")),
        iat=_time(payload.get("iat")),
        membership_level=level if isinstance(level, int) and not isinstance(level, bool) else None,
        simulator=payload.get("simulator") is True,
    )


def _id(value: Any) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and _VISIBLE.fullmatch(text) else None


def _time(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """What the owner gave for one account: a refresh token, an access token, or both.

    `claims` are those of the refresh token when it is a JWT, else of the access token, else empty.
    """

    refresh: str | None = field(default=None, repr=False)
    access: str | None = field(default=None, repr=False)
    claims: Claims

    @classmethod
    def of(cls, *, refresh: str | None = None, access: str | None = None) -> Credential:
        """Build with the right claims."""
        return cls(refresh=refresh, access=access, claims=claims_of(refresh) or claims_of(access) or Claims())

    @property
    def kind(self) -> Kind:
        """`refresh`: a JWT that can be renewed; `access`: dies at its expiry; `opaque`: old refresh token."""
        if self.refresh is None:
            return "access"
        return "refresh" if claims_of(self.refresh) else "opaque"

    @property
    def simulated(self) -> bool:
        """Made by the built-in simulator (payload claim `"simulator": true`)."""
        return self.claims.simulator

    @property
    def account_id(self) -> str:
        """The service's user id; without one, an id made from a hash of the token."""
        return self.claims.sub or f"hash-{self._digest[:16]}"

    @property
    def short_id(self) -> str:
        """What people see in errors and lists: the head of the user id, or of the hash. No secret."""
        return self.claims.sub[:8] if self.claims.sub else f"#{self._digest[:8]}"

    @property
    def _digest(self) -> str:
        return digest_of(self.refresh or self.access or "")


def digest_of(secret: str) -> str:
    """SHA-256 in hex: a name for a secret that does not give it away."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def newest(stored: TokenPair, given: TokenPair) -> TokenPair:
    """Stored or given? A rotated pair outlives the text it came from, unless the owner logged in again since."""
    old, new = claims_of(stored.refresh), claims_of(given.refresh)
    later_login = bool(old and new and old.iat is not None and new.iat is not None and new.iat > old.iat)
    winner, other = (given, stored) if later_login or stored.refresh is None else (stored, given)
    access = max((winner.access, other.access), key=_expiry)
    return replace(winner, access=access, refresh=winner.refresh or other.refresh)


def _expiry(access: str | None) -> float:
    claims = claims_of(access)
    if access is None:
        return -math.inf
    return 0.0 if claims is None or claims.exp is None else claims.exp


@dataclass(kw_only=True, slots=True)
class TokenState:
    """The TokenKeeper's notes, guarded by `Account.lock`."""

    pair: TokenPair
    #: `pair` has met what the store holds; until then nothing may be used.
    loaded: bool = False
    #: `pair` is not yet in the store and so may not be used (protocol A.6, rotation).
    unsaved: bool = False
    #: The service's clock minus ours, as far as it matters.
    skew_s: float = 0.0
    #: The access token that the service refused last.
    rejected: str | None = field(default=None, repr=False)
    #: The refresh token was refused for good.
    refusal: KimiError | None = None
    #: No background refresh before this time of our clock.
    retry_at: float = 0.0
    #: The one refresh in flight; its result is a failure or None.
    flight: concurrent.futures.Future[KimiError | None] | None = None
    #: Hashes of every token the owner gave, so that a dead one given again stays dead.
    given: set[str] = field(default_factory=set)


@dataclass(eq=False, kw_only=True, slots=True, weakref_slot=True)
class Account:
    """One account of the service and the state of its session. Compared by identity."""

    id: str
    short_id: str
    base_url: str
    auth_url: str
    simulated: bool
    claims: Claims
    tokens: TokenState = field(repr=False)
    #: Why it can't be used until the owner gives a new credential.
    dead: KimiError | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(cls, credential: Credential, settings: Settings, upstream: Upstream) -> Account:
        """The account that `credential` opens, at the hosts of its audience."""
        base_url, auth_url = hosts_of(credential.claims, settings, upstream)
        return cls(
            id=credential.account_id,
            short_id=credential.short_id,
            base_url=base_url,
            auth_url=auth_url,
            simulated=credential.simulated,
            claims=credential.claims,
            tokens=TokenState(pair=_pair(credential), given={digest_of(t) for t in _tokens(credential)}),
        )

    @classmethod
    def stored(
        cls, id_: str, short_id: str, pair: TokenPair, given: set[str], settings: Settings, upstream: Upstream
    ) -> Account:
        """An account of the store; `given` are digests of what its owner gave."""
        account = cls.of(Credential.of(refresh=pair.refresh, access=pair.access), settings, upstream)
        account.id, account.short_id = id_, short_id
        account.tokens = TokenState(pair=pair, given=given, loaded=pair.refused is None)
        return account

    def homeless(self, upstream: Upstream) -> bool:
        """Whether it is the simulator's and would meet the service, which it can't: left behind by a try."""
        return self.simulated and not real_hosts(upstream).isdisjoint((self.base_url, self.auth_url))

    def renew_from(self, other: Account) -> None:
        """Live again when the store has another pair than the one that died here."""
        with self.lock:
            pair = other.tokens.pair
            if pair.refused is None and pair != replace(self.tokens.pair, refused=None):
                self.tokens.pair, self.tokens.loaded, self.tokens.unsaved = pair, False, False
                self.tokens.given |= other.tokens.given
                self.dead = self.tokens.refusal = self.tokens.rejected = None

    @property
    def credential(self) -> Credential:
        """The tokens as they are now."""
        pair = self.tokens.pair
        return Credential.of(refresh=pair.refresh, access=pair.access)

    @property
    def opaque(self) -> bool:
        """Whether it has an old refresh token, which opens the REST generation only (protocol A.6)."""
        refresh = self.tokens.pair.refresh
        return refresh is not None and claims_of(refresh) is None

    def adopt(self, credential: Credential) -> bool:
        """Take a credential given later for the same account; True when it brought something new.

        A dead account takes any token not seen before; a living one only a later login, or it would step back to a
        pair that rotation has killed.
        """
        with self.lock:
            fresh = {digest_of(token) for token in _tokens(credential)} - self.tokens.given
            if not fresh:
                return False
            self.tokens.given |= fresh
            given = _pair(credential)
            broken = self.dead is not None or self.tokens.refusal is not None
            taken = given if broken else newest(self.tokens.pair, given)
            if (taken.access, taken.refresh) == (self.tokens.pair.access, self.tokens.pair.refresh):
                return False
            # The store learns of it before it is used.
            self.tokens.pair, self.tokens.loaded, self.tokens.unsaved = taken, False, False
            self.dead = self.tokens.refusal = self.tokens.rejected = None
            return True


def _tokens(credential: Credential) -> list[str]:
    return [token for token in (credential.refresh, credential.access) if token]


def _pair(credential: Credential) -> TokenPair:
    return TokenPair(access=credential.access, refresh=credential.refresh)


def hosts_of(claims: Claims, settings: Settings, upstream: Upstream) -> tuple[str, str]:
    """Site and account gateway for tokens with these claims; an address the owner set always wins (protocol A.8)."""
    base_url, auth_url = settings.kimi_base_url, settings.kimi_auth_url
    row = next((upstream.auth.audiences[aud] for aud in claims.aud if aud in upstream.auth.audiences), None)
    if row is not None:
        default_base, default_auth = default_hosts()
        base_url = row.base_url if base_url == default_base else base_url
        auth_url = row.auth_url if auth_url == default_auth else auth_url
    return base_url, auth_url


def default_hosts() -> tuple[str, str]:
    """The service's own site and account gateway."""
    fields = Settings.model_fields
    return str(fields["kimi_base_url"].default), str(fields["kimi_auth_url"].default)


def real_hosts(upstream: Upstream) -> frozenset[str]:
    """Every origin that is the service itself, none of which may ever see a simulated credential."""
    rows = upstream.auth.audiences.values()
    return frozenset((*default_hosts(), *(row.base_url for row in rows), *(row.auth_url for row in rows)))
