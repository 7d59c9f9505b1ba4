"""Tells the accounts' owner what needs him, and when it is over: once for the whole fleet, through each channel.

Every process looks at the account store every few seconds, which costs one small query while nothing has changed, and
judges the accounts (`troubles`) when something has or when time alone may have. What is to be told is claimed in the
store, delivered, and noted as told; a claim that outlives its time was left by a process that died, and is told again:
rather twice than never. A delivery that fails is tried again a few times. All of this is background work on a loop of
its own: no call waits for it or fails by it, and nothing secret is told.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..errors import KimiError, Unavailable
from ..loops import background
from ..settings import Settings
from ..store import Store, StoredAlert, Transaction, open_store
from ..upstream import Upstream
from .alert_text import Alert, worded
from .channels import INSTALL, SEND_TIMEOUT_S, Channel, apprise_channels, apprise_missing
from .troubles import Finding, Review, review
from .understanding import duration

log = logging.getLogger(__name__)

#: How often one looks whether anything has changed.
LOOK_S: Final = 5.0
#: Pauses between tries of one delivery; after the last one it is given up.
RETRY_S: Final = (5, 30, 120, 600, 1800)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Claim:
    """What this process tells now; `tries` have failed before."""

    account_id: str
    trouble: str
    alert: Alert
    tries: int


class Alerts:
    """The owner's alerts, as far as this process tells them. Without a `store` nothing is."""

    def __init__(self, store: Store | None, settings: Settings, upstream: Upstream) -> None:
        self._store, self._settings, self._upstream = store, settings, upstream
        self._owner = uuid.uuid4().hex
        self._channels: list[Channel] = [] if apprise_missing() else [*apprise_channels(settings)]
        self._running: concurrent.futures.Future[None] | None = None
        #: The change of the store, the channels and the moment (monotonic) up to which all has been looked at.
        self._seen: tuple[int, tuple[str, ...]] = (-1, ())
        self._valid_until = 0.0

    @classmethod
    def from_settings(cls, settings: Settings, upstream: Upstream) -> Alerts:
        """On the account store and with the URLs of the settings. Raises StoreError."""
        return cls(open_store(settings), settings, upstream)

    def add(self, channel: Channel) -> None:
        """One more way to tell, from now on."""
        self._channels.append(channel)
        self.start()

    def hint(self) -> str | None:
        """Why the URLs of the settings are of no use, as a sentence."""
        if not self._settings.kimi_alert_urls or self._settings.kimi_demo:
            return None
        if apprise_missing():
            return f"KIMI_ALERT_URLS is set, but Apprise is not installed, so nobody is told. Install it: {INSTALL}"
        if self._store is None:
            return "KIMI_ALERT_URLS is set, but alerts need an account store, and accounts are kept in memory only."
        return None

    def start(self) -> None:
        """Look from now on, in the background. Nothing in demo mode, whose accounts are simulated, and without a store
        or anybody to tell.
        """
        if self._running is None and self._store is not None and self._channels and not self._settings.kimi_demo:
            self._running = background().submit(self._watch())
            self._running.add_done_callback(_say_why_it_ended)

    def close(self) -> None:
        """Look no more; happens by itself when the process ends."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def look(self) -> None:
        """Tell what is to be told now. Raises Unavailable."""
        channels = [channel for channel in self._channels if channel.configured]
        if self._store is None or not channels:
            return
        due = await self._store.run(partial(self._due, self._store, channels))
        tellings = (self._tell_all(self._store, channel) for channel in due)
        for error in await asyncio.gather(*tellings, return_exceptions=True):
            if error is not None:
                raise error

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Unavailable as exc:  # whoever waits for the store says so
                log.debug("kimi-provider: alerts wait for the account store: %s", exc.message)
            await asyncio.sleep(LOOK_S)

    def _due(self, store: Store, channels: list[Channel]) -> list[Channel]:
        """Channels with something to tell. Blocks; raises Unavailable."""
        with store.read() as rows:
            seen = rows.accounts.number(), tuple(channel.name for channel in channels)
            if seen == self._seen and time.monotonic() < self._valid_until:
                return []
            state = review(rows, self._settings, self._upstream)
            known = {channel.name: rows.alerts.of(channel.name) for channel in channels}
        waits = [row.wait_s for alerts in known.values() for row in alerts.values() if row.wait_s > 0]
        due = [channel for channel in channels if _is_any_due(state, known[channel.name])]
        self._seen = seen
        self._valid_until = 0.0 if due else time.monotonic() + min([state.valid_s, *waits])
        return due

    async def _tell_all(self, store: Store, channel: Channel) -> None:
        """One after the other, until nothing is left or one fails. Raises Unavailable (the store)."""
        while (claim := await store.run(partial(self._claim, store, channel))) is not None:
            failure: KimiError | None = None
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await channel.send(claim.alert)
            except TimeoutError:
                failure = Unavailable(f"no answer in {SEND_TIMEOUT_S} s")
            except KimiError as exc:
                failure = exc
            pause_s = None if failure is None else _pause_s(claim, channel, failure)
            await store.run(partial(self._settle, store, channel, claim, pause_s))
            if failure is not None:
                return

    def _claim(self, store: Store, channel: Channel) -> _Claim | None:
        """The next thing to tell, which nobody else tells now. Blocks; raises Unavailable."""
        with store.write() as rows:
            rows.accounts.lock()
            state = review(rows, self._settings, self._upstream)
            known = rows.alerts.of(channel.name)
            for id_ in _needless(state, known):
                rows.alerts.forget(id_, channel.name)
            for finding in state.findings:
                if _is_due(finding, known):
                    return self._claimed(rows, channel, finding, known.get(finding.account_id, StoredAlert()))
        return None

    def _claimed(self, rows: Transaction, channel: Channel, finding: Finding, before: StoredAlert) -> _Claim:
        trouble = finding.trouble or ""
        rows.alerts.claim(finding.account_id, channel.name, self._owner, trouble)
        alert = worded(finding, before.sending or before.told, self._settings.kimi_lang)
        return _Claim(account_id=finding.account_id, trouble=trouble, alert=alert, tries=before.tries)

    def _settle(self, store: Store, channel: Channel, claim: _Claim, pause_s: float | None) -> None:
        """Note how it went; `pause_s` until the next try. Blocks; raises Unavailable."""
        with store.write() as rows:
            rows.accounts.lock()
            if pause_s is None:
                rows.alerts.tell(claim.account_id, channel.name, self._owner, claim.trouble)
            else:
                rows.alerts.fail(claim.account_id, channel.name, self._owner, pause_s)


def _say_why_it_ended(running: concurrent.futures.Future[None]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        log.error("kimi-provider: nobody is told of accounts any more: %s", type(error).__name__, exc_info=error)


def _is_any_due(state: Review, known: Mapping[str, StoredAlert]) -> bool:
    return bool(_needless(state, known)) or any(_is_due(one, known) for one in state.findings)


def _needless(state: Review, known: Mapping[str, StoredAlert]) -> list[str]:
    """Ids of which there is nothing more to tell: all is well and known to be, or its owner has removed the account."""
    troubles = {one.account_id: one.trouble for one in state.findings}
    removed = known.keys() - troubles.keys() - state.unjudged
    well = {id_ for id_, row in known.items() if not row.told and row.sending is None and not troubles.get(id_)}
    return sorted(removed | (well - state.unjudged))


def _is_due(finding: Finding, known: Mapping[str, StoredAlert]) -> bool:
    """Whether readers should learn of it now: they believe something else, or nobody knows what they were told."""
    row = known.get(finding.account_id, StoredAlert())
    return row.wait_s <= 0 and (row.told != (finding.trouble or "") or row.sending is not None)


def _pause_s(claim: _Claim, channel: Channel, failure: KimiError) -> float | None:
    """Until the next try, None when it is given up; says so."""
    pause_s = RETRY_S[claim.tries] if claim.tries < len(RETRY_S) else None
    then = "given up" if pause_s is None else f"next try in {duration(pause_s)}"
    log.warning(
        "kimi-provider: alert '%s' was not delivered through %s: %s (%s)",
        claim.alert.title,
        channel.label,
        failure.describe(),
        then,
    )
    return pause_s
