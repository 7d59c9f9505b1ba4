"""Failures that pass, the same on either protocol: a new token, a pause or one more attempt cures them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from .. import refusals
from ..playing import Script
from ..refusals import Refusal
from .row import Params, Scenario
from .speaker import Speaker

SpeakerT = TypeVar("SpeakerT", bound=Speaker)


def _stale_token(turn: Speaker, params: Params) -> Script:
    account = turn.account
    if account.stale_jti is None:
        account.stale_jti = turn.jti
        account.dead.add(turn.jti)
        yield turn.refused(refusals.unauthenticated())
        return
    # The gate only lets a token other than the dead one through, so this is the call after the refresh.
    account.stale_jti = None
    yield from _answered(turn, "Answered after a refresh.")


def _rate_limited(turn: Speaker, params: Params) -> Script:
    refusal = Refusal("resource_exhausted", "rate limited")
    yield turn.refused(refusal, **{"retry-after": str(params.count("retry_after_s"))})


def _answered(turn: Speaker, text: str) -> Script:
    yield from turn.opening()
    yield turn.text(text)
    yield from turn.closing()


TABLE: tuple[Scenario[Speaker], ...] = (
    Scenario(
        name="stale_token",
        description="401 for this access token from now on; success with the next one",
        play=_stale_token,
    ),
    Scenario(
        name="rate_limited", description="HTTP 429 with Retry-After", play=_rate_limited, params={"retry_after_s": 3}
    ),
)


def fail_times_of(failures: Callable[[], Iterable[Scenario[SpeakerT]]]) -> Scenario[SpeakerT]:
    """`fail_times`: another of the `failures`, so many times."""

    def play(turn: SpeakerT, params: Params) -> Script:
        counts, limit, how = turn.simulator.failures, params.count("n"), params.text("how")
        counted = f"{turn.account.sub}/{params.text('key')}"
        counts[counted] += 1
        if counts[counted] > limit:
            del counts[counted]
            yield from _answered(turn, f"Answered after {limit} failures.")
            return
        row = next((one for one in failures() if one.name == how != "fail_times"), None)
        if row is None:
            yield turn.refused(Refusal("invalid_argument", f"fail_times can't fail as {how!r}"))
            return
        yield from row.play(turn, row.checked({}))

    return Scenario(
        name="fail_times",
        description="fails n times for this account and key, then answers; how: another failure's name",
        play=play,
        params={"n": 2, "how": "overloaded_trailer", "key": ""},
    )
