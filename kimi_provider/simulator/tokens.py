"""Simulated credentials: JWTs with the claims of protocol A.2, signed with a key of this simulator only.

Ids are strings of digits (19 digits overflow a double), `sub` is a 20-character xid, the algorithm is HS512. One claim
more than the real service has, `SIMULATOR_CLAIM`, lets a client tell a simulated credential from a real one. A token
proves itself by its signature, so a restarted simulator with the same key still accepts it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Literal

import jwt

SIMULATOR_CLAIM = "simulator"

Region = Literal["overseas", "cn"]
Generation = Literal["account", "user-center"]

# Levels in order of price (protocol D.3). 10, 20 and 25 are measured (A.2), the two above are ours.
LEVEL_NUMBERS = {
    "LEVEL_FREE": 10,
    "LEVEL_BASIC": 20,
    "LEVEL_INTERMEDIATE": 25,
    "LEVEL_ADVANCED": 30,
    "LEVEL_STANDARD": 40,
}


def xid_of(name: str) -> str:
    """A stable 20-character id in xid's alphabet (0-9a-v) for a user name."""
    digest = hashlib.sha256(name.encode()).digest()[:12]
    return base64.b32hexencode(digest).decode().lower().rstrip("=")


def new_xid() -> str:
    """A random id in xid's form, as the legacy protocol has for chats, segments and files."""
    return xid_of(secrets.token_hex(16))


def digits_id(low: int, high: int) -> str:
    """A random 19-digit id as a string."""
    return str(low + secrets.randbelow(high - low))


class TokenMint:
    """Signs and reads the simulator's JWTs; knows nothing of accounts."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        # Stretched to 64 bytes: HS512 wants a key as long as its digest, whatever the caller's key file holds.
        self._key = hashlib.sha512(key).digest()
        self._clock = clock

    def sign(
        self,
        typ: Literal["access", "refresh"],
        *,
        sub: str,
        ssid: str,
        device_id: str,
        region: Region,
        level: str,
        ttl_s: float,
        generation: Generation = "account",
    ) -> tuple[str, str]:
        """A token and its `jti`. A negative `ttl_s` gives one that is already expired."""
        issued_at = int(self._clock())
        jti = secrets.token_hex(10)
        claims: dict[str, Any] = {
            "iss": generation,
            "app_id": "kimi",
            "typ": typ,
            "sub": sub,
            "ssid": ssid,
            "device_id": device_id,
            "abstract_user_id": sub,
            "region": region,
            "membership": {"level": LEVEL_NUMBERS[level]},
            "iat": issued_at,
            # Fractions of a second are kept so that tests can live with very short tokens.
            "exp": issued_at + int(ttl_s) if float(ttl_s).is_integer() else self._clock() + ttl_s,
            "jti": jti,
            SIMULATOR_CLAIM: True,
        }
        if generation == "account":
            claims["aud"] = ["kimi.ai" if region == "overseas" else "kimi.com"]
            claims["code_membership"] = {"level": 10}
        else:
            claims["space_id"] = digits_id(10**18, 2 * 10**18)
        return jwt.encode(claims, self._key, algorithm="HS512"), jti

    def read(self, token: str) -> dict[str, Any] | None:
        """The claims of a token of this mint that has not expired; None for anything else."""
        claims = self._decode(token)
        return claims if claims is not None and claims.get("exp", 0) > self._clock() else None

    def sub_of(self, token: str) -> str | None:
        """Whose token this is, or was before it expired; None for a token of another mint."""
        claims = self._decode(token)
        return None if claims is None else str(claims["sub"])

    def _decode(self, token: str) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=["HS512"],
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return None
        return claims
