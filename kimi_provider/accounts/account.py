"""An account of the service: the state of its session, and the hosts that it belongs to.

`Account` is the one mutable thing; its parts say whose lock guards them. Tokens never show in a `repr`.
"""

from __future__ import annotations

import concurrent.futures
import threading
from dataclasses import dataclass, field, replace

from ..errors import KimiError
from ..settings import Settings
from ..store import TokenPair
from ..upstream import Upstream
from .credential import Claims, Credential, claims_of, newest


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
            tokens=TokenState(pair=credential.pair, given=set(credential.digests)),
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
            fresh = credential.digests - self.tokens.given
            if not fresh:
                return False
            self.tokens.given |= fresh
            given = credential.pair
            broken = self.dead is not None or self.tokens.refusal is not None
            taken = given if broken else newest(self.tokens.pair, given)
            if (taken.access, taken.refresh) == (self.tokens.pair.access, self.tokens.pair.refresh):
                return False
            # The store learns of it before it is used.
            self.tokens.pair, self.tokens.loaded, self.tokens.unsaved = taken, False, False
            self.dead = self.tokens.refusal = self.tokens.rejected = None
            return True


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
