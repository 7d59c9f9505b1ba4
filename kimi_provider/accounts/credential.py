"""Credentials as their owners give them: the tokens of one account, and what the tokens say of themselves.

Claims are read without checking a signature (protocol A.3): they steer, they prove nothing. Values that go into
headers are kept only when they are plain visible ASCII, so that no token can smuggle in a header. Tokens never show in
a `repr`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import orjson

from ..store import TokenPair

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
    def pair(self) -> TokenPair:
        """The tokens as the account store keeps them."""
        return TokenPair(access=self.access, refresh=self.refresh)

    @property
    def digests(self) -> frozenset[str]:
        """Names of its tokens, by which they are known when they are given again."""
        return frozenset(digest_of(token) for token in (self.refresh, self.access) if token)

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
