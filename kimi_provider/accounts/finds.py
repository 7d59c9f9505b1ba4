"""What was met in a paste, put together: one credential for each account, in order of appearance.

A JWT names its user, so tokens of one user become one credential, the latest of each kind. An opaque token names
nobody: it belongs to the user whose token stands in the same JSON object, or is an account of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .credential import Claims, Credential, claims_of

#: Keys under which tokens are kept, without case, dashes and underscores.
REFRESH_KEYS: Final = frozenset({"refreshtoken", "kimirefreshtoken"})
_ACCESS_KEYS: Final = frozenset({"accesstoken", "kimiaccesstoken"})
STRONG_KEYS: Final = REFRESH_KEYS | {"kimiauth", "authorization", "bearer"}
WEAK_KEYS: Final = frozenset({"token", "value", "kimitoken"})
KNOWN_KEYS: Final = STRONG_KEYS | _ACCESS_KEYS | WEAK_KEYS | {"cookie"}


def key_of(name: str) -> str:
    """A name in the spelling of the tables above."""
    return name.replace("-", "").replace("_", "").lower()


@dataclass(slots=True)
class Finds:
    """What was met, in order. `partner` joins tokens of one JSON object; `weak` ones are a last resort."""

    jwts: list[tuple[str, Claims, int]] = field(default_factory=list)
    opaque: list[tuple[str, int]] = field(default_factory=list)
    weak: list[str] = field(default_factory=list)
    objects: int = 0

    def add(self, token: str, name: str | None, partner: int = 0) -> None:
        """A JWT; foreign ones (other cookies of a copied request) are left out."""
        claims = claims_of(token)
        if claims is None:
            return
        known = name is None or key_of(name) in KNOWN_KEYS
        ours = claims.typ in ("access", "refresh") and claims.app_id in (None, "kimi")
        if known or ours:
            self.jwts.append((token, claims, partner))

    def credentials(self) -> list[Credential]:
        """May be none."""
        merged: dict[str, _Draft] = {}
        of_object: dict[int, _Draft] = {}
        for token, claims, partner in self.jwts:
            draft = merged.setdefault(claims.sub or token, _Draft())
            draft.take(token, claims)
            if partner:
                of_object[partner] = draft
        seen: set[str] = set()
        opaque = self.opaque or ([(token, 0) for token in self.weak] if not self.jwts else [])
        for token, partner in opaque:
            if token in seen:
                continue
            seen.add(token)
            friend = of_object.get(partner)
            if friend is not None and friend.refresh is None:
                friend.refresh = token
            else:
                merged[token] = _Draft(refresh=token)
        return [Credential.of(refresh=draft.refresh, access=draft.access) for draft in merged.values()]


@dataclass(slots=True)
class _Draft:
    """Tokens of one user; the latest of each kind wins."""

    refresh: str | None = None
    access: str | None = None

    def take(self, token: str, claims: Claims) -> None:
        if claims.is_refresh:
            if _later(claims.iat, claims_of(self.refresh), "iat"):
                self.refresh = token
        elif _later(claims.exp, claims_of(self.access), "exp"):
            self.access = token


def _later(time: float | None, held: Claims | None, which: str) -> bool:
    if held is None:
        return True
    before: float | None = getattr(held, which)
    return time is not None and (before is None or time > before)
