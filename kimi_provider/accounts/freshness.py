"""How long an access token still serves, and what that asks of a caller. No I/O; under the account's lock.

Clocks differ: the service's is measured when a token comes, and counts only where it would do harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from ..store import TokenPair
from ..upstream import Service
from .account import TokenState
from .credential import claims_of

#: Assumed life of an access token that is no JWT (protocol A.5: what peers cache).
OPAQUE_ACCESS_LIFE_S: Final = 300

#: `soon`: it serves, and should be renewed behind the caller's back; `now`: the caller waits; `gone`: nothing helps.
Need = Literal["nothing", "soon", "now", "gone"]


class Freshness:
    """Judges pairs. `clock` is our time in Unix seconds."""

    def __init__(self, service: Service, clock: Callable[[], float]) -> None:
        self._service, self._clock = service, clock

    def need(self, state: TokenState) -> Need:
        """What a caller has to do before it can use the pair."""
        pair = state.pair
        if not state.loaded or state.unsaved:
            return "now"
        final = pair.refresh is None or state.refusal is not None
        if not self.alive(state):
            return "gone" if final else "now"
        if final:
            return "nothing"
        left_s, life_s = self._left_s(state), self._life_s(pair)
        # A service that issues shorter tokens than expected must not be asked at every call.
        if left_s < min(self._service.token_mandatory_s, life_s / 4):
            return "now"
        return "soon" if left_s < min(self._service.token_advisory_s, life_s / 2) else "nothing"

    def alive(self, state: TokenState) -> bool:
        """Saved, not refused, not expired."""
        access = state.pair.access
        usable = access is not None and access != state.rejected and state.loaded and not state.unsaved
        return usable and self._left_s(state) > 0

    def _left_s(self, state: TokenState) -> float:
        claims = claims_of(state.pair.access)
        now = self._clock()
        if claims is None or claims.exp is None:
            return state.pair.obtained_at + OPAQUE_ACCESS_LIFE_S - now
        # No token is issued in the future: when it looks so, our clock is behind.
        ahead = max(state.skew_s, claims.iat - now) if claims.iat is not None else state.skew_s
        return claims.exp - (now + ahead)

    def _life_s(self, pair: TokenPair) -> float:
        claims = claims_of(pair.access)
        return (claims.life_s if claims else None) or OPAQUE_ACCESS_LIFE_S

    def skew_s(self, pair: TokenPair) -> float:
        """The service's clock minus ours, from when a token was issued and when we had it; 0 while it does no harm."""
        claims = claims_of(pair.access)
        if claims is None or claims.iat is None or claims.exp is None or not pair.obtained_at:
            return 0.0
        skew_s = claims.iat - pair.obtained_at
        looked_old = claims.exp - pair.obtained_at < self._service.token_advisory_s < claims.exp - claims.iat
        return skew_s if skew_s > 0 or looked_old else 0.0
