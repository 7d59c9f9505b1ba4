"""What was understood of a credential, for its owner to compare: never any part of the secret itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..upstream import Upstream
from ..wording import Language
from .credential import Credential, Kind, claims_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Understood:
    """Claims prove nothing (protocol A.3): `plan`, `region` and the times are what the token says of itself.

    `expires_at` is the end of the session in Unix seconds: of the refresh token if there is one, else of the access
    token; None when nothing tells. `renewable`: it has a refresh token.
    """

    kind: Kind
    short_id: str
    region: str | None
    plan: str | None
    expires_at: float | None
    renewable: bool
    simulated: bool

    @classmethod
    def of(cls, credential: Credential, upstream: Upstream) -> Understood:
        """Read what `credential` says of itself."""
        refresh, access = claims_of(credential.refresh), claims_of(credential.access)
        claims = credential.claims
        level = claims.membership_level
        if level is None and access is not None:
            level = access.membership_level
        session = refresh if credential.refresh is not None else access
        return cls(
            kind=credential.kind,
            short_id=credential.short_id,
            region=claims.region,
            plan=None if level is None else upstream.auth.plans.get(level, f"level {level}"),
            expires_at=session.exp if session else None,
            renewable=credential.refresh is not None,
            simulated=credential.simulated,
        )

    def missing(self, now: float, language: Language = "en") -> str:
        """What its owner should know before relying on it; empty when all is well."""
        left_s = None if self.expires_at is None else self.expires_at - now
        if left_s is not None and left_s <= 0:
            return {"en": "has expired: log in again", "id": "sudah kedaluwarsa: masuk lagi"}[language]
        if self.renewable:
            old = {
                "en": "an old kind of token: opens the older protocol only",
                "id": "jenis token lama: hanya membuka protokol lama",
            }
            return old[language] if self.kind == "opaque" else ""
        when = "" if left_s is None else duration(left_s, language)
        soon = {
            "en": f"dies in {when} and has no refresh partner" if when else "has no refresh partner",
            "id": f"mati dalam {when} dan tanpa pasangan refresh" if when else "tanpa pasangan refresh",
        }
        return soon[language]


def duration(seconds: float, language: Language = "en") -> str:
    """`15 min`, `3 h`, `12 d`: rounded, one unit."""
    seconds = max(0.0, seconds)
    units = {"en": ("s", "min", "h", "d"), "id": ("dtk", "mnt", "jam", "hr")}[language]
    if seconds < 100:
        return f"{seconds:.0f} {units[0]}"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} {units[1]}"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} {units[2]}"
    return f"{seconds / 86_400:.0f} {units[3]}"
