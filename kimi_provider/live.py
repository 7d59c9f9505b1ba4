"""The service's own model list, kept for a while (protocol C.8).

A model that the table lacks can be asked for as soon as the service lists it, when the table shows how its kind is
asked for: a row with the same scenario, kimiplus id and agent mode. All other rows of the list are left out. Asking
never fails and never takes longer than `live_models.wait_s`: then the table is as it was.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final

from .errors import KimiError
from .loops import background, joined
from .protocols import LiveModel
from .upstream import ModelSpec, Upstream

log = logging.getLogger(__name__)

#: Ids that can stand in a model's name.
_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class LiveTable:
    """`upstream` with what `fetch` says the service offers; for every loop and thread. `clock` is monotonic seconds."""

    def __init__(
        self,
        upstream: Upstream,
        fetch: Callable[[], Coroutine[Any, Any, tuple[LiveModel, ...]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._packaged = upstream
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._asking: concurrent.futures.Future[None] | None = None
        self._ask_again_at = clock()
        #: The table as it was when the service was last asked.
        self.upstream = upstream

    async def refreshed(self) -> Upstream:
        """The table, after asking the service when that was long ago."""
        with self._lock:
            if self._asking is None and self._clock() >= self._ask_again_at:
                # On a loop of its own: a caller that gives up waiting leaves the answer for the next one.
                self._asking = background().submit(self._ask())
            asking = self._asking
        if asking is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._packaged.live_models.wait_s):
                    await joined(asking)
        return self.upstream

    async def _ask(self) -> None:
        times = self._packaged.live_models
        pause_s = times.retry_s
        try:
            self.upstream = merged(self._packaged, await self._fetch())
            pause_s = times.keep_s
        except KimiError as exc:
            log.info("Kimi's own model list can't be read (%s); the built-in table stands", exc.code)
        finally:
            with self._lock:
                self._ask_again_at = self._clock() + pause_s
                self._asking = None


def merged(upstream: Upstream, offered: Iterable[LiveModel]) -> Upstream:
    """The table with rows for those models of the service's list that it lacks and that can be asked for."""
    models: dict[str, ModelSpec] = {}
    aliases: dict[str, str] = {}
    for live in offered:
        model_id = live.id.lower()
        if upstream.knows(model_id) or not _ID.fullmatch(model_id) or (spec := _row(live, upstream)) is None:
            continue
        name = f"kimi-{model_id.removeprefix('kimi-')}"
        models[name] = spec
        for other in (model_id, live.key.lower(), live.title.lower()):
            if not upstream.knows(other):
                aliases.setdefault(other, name)
    return upstream.with_models(models, aliases)


def _row(live: LiveModel, upstream: Upstream) -> ModelSpec | None:
    """How to ask for a model that is no row of the table, told by one that is asked for in the same way."""
    kind = (live.scenario, live.kimiplus_id, live.agent_mode)
    for row in upstream.models.values():
        if row.model is not None and (row.scenario, row.kimiplus_id, row.agent_mode) == kind:
            break
    else:
        return None
    if live.id == live.key:  # lists of older versions: keys are no model ids
        return None
    changes: dict[str, Any] = {"title": live.title, "model": live.id}
    if not set(row.efforts.values()) <= set(live.efforts):
        changes |= {"efforts": {}, "exact_efforts": frozenset(), "effort_on": None, "effort_off": None}
    return row.model_copy(update=changes)
