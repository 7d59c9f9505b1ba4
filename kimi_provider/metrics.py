"""What this process counts for Prometheus: answers, failures, fail-overs, token refreshes, calls that wait or run.

Whoever meets something says so here; how it is kept is prometheus-client's: in memory, or in files of
PROMETHEUS_MULTIPROC_DIR, which all workers of a gateway share. Values of labels come from our own tables, so that their
number is bounded and none names an account, a caller or anything that a caller wrote. Importing this puts our metrics
beside those of the host, once and for good; nothing is written before something is counted.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from .errors import AccountSuspended, CredentialError, CredentialMissing, KimiError, codes, of_code
from .settings import SettingsError

PREFIX: Final = "kimi_"
#: prometheus-client's own variable, read at the moment at which it decides where to keep values.
_SHARED_FOLDER: Final = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
_PUBLISHED_EVERY_S: Final = 1.0
#: From a cached greeting to a research that thinks for minutes.
_FIRST_EVENT_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)

#: All of ours and nothing else.
registry: Final = CollectorRegistry()

_first_event: Final = Histogram(
    "kimi_first_event_seconds",
    "From a call to the first piece of its answer: waiting for an account, uploads and fail-overs included.",
    ("protocol", "model"),
    registry=registry,
    buckets=_FIRST_EVENT_BUCKETS_S,
)
_answers: Final = Counter(
    "kimi_answers_total", "Answers that ended well, by model of the table.", ("protocol", "model"), registry=registry
)
_failures: Final = Counter(
    "kimi_failures_total", "Calls that ended in an error, by its code.", ("code",), registry=registry
)
_failovers: Final = Counter(
    "kimi_failovers_total",
    "Attempts that failed unseen by the caller and were followed by one elsewhere: another account, a new chat, later.",
    ("code",),
    registry=registry,
)
_refreshes: Final = Counter(
    "kimi_token_refreshes_total",
    "Token refreshes: renewed, refused for good, or failed for now.",
    ("outcome",),
    registry=registry,
)
_calls_now: Final = {"waiting": 0, "running": 0}
_calls_lock: Final = threading.RLock()
_calls: Final = Gauge(
    "kimi_calls",
    "Calls that wait for an account now, and those that have one.",
    ("state",),
    registry=registry,
    multiprocess_mode="livesum",  # without processes that have ended
)


class Watch:
    """One call from now on; `model` is the name of a row of the table."""

    def __init__(self, *, model: str) -> None:
        self._model, self._began_at = model, time.monotonic()

    def first_event(self, protocol: str) -> None:
        """The caller sees something of the answer."""
        _first_event.labels(protocol, self._model).observe(time.monotonic() - self._began_at)

    def answered(self, protocol: str) -> None:
        """The answer has ended well."""
        _answers.labels(protocol, self._model).inc()


def failed(failure: KimiError) -> None:
    """A caller has got `failure` in place of an answer, or in the middle of one."""
    _failures.labels(failure.code).inc()


def failed_over(failure: KimiError) -> None:
    """Another attempt follows one that ended in `failure`, unseen by the caller."""
    _failovers.labels(failure.code).inc()


@contextmanager
def refreshing() -> Iterator[None]:
    """Count how a token refresh ends."""
    try:
        yield
    except (CredentialError, AccountSuspended):
        _refreshes.labels("refused").inc()
        raise
    except KimiError:
        _refreshes.labels("failed").inc()
        raise
    _refreshes.labels("renewed").inc()


def calls(state: Literal["waiting", "running"], change: int) -> None:
    """So many more calls wait for an account, or have one.

    Takes no lock of prometheus-client: a garbage collection may end an abandoned call while this thread holds it.
    """
    with _calls_lock:
        _calls_now[state] += change


def start() -> None:
    """Begin with zeros: a rate needs a value before the first event. Raises SettingsError when the folder that workers
    share can't be used.
    """
    everything = {*codes(), KimiError.code, CredentialMissing.code}
    try:
        if _SHARED_FOLDER:
            Path(_SHARED_FOLDER).mkdir(parents=True, exist_ok=True)
        for code in everything:
            _failures.labels(code)
            if of_code(code).another_account or of_code(code).try_again:
                _failovers.labels(code)
        for outcome in ("renewed", "refused", "failed"):
            _refreshes.labels(outcome)
        _show_calls()
    except OSError as exc:
        raise SettingsError(
            f"PROMETHEUS_MULTIPROC_DIR: {_SHARED_FOLDER} can't be used ({exc.strerror}). Name a folder that this user "
            "may write to, or unset it."
        ) from None


@functools.cache
def _show_calls() -> None:
    """As they are at each scrape; in a shared folder, as they were within the last second."""
    if not _SHARED_FOLDER:
        for state in _calls_now:
            _calls.labels(state).set_function(functools.partial(_calls_now.__getitem__, state))
        return

    def publish() -> None:
        for state, now in _calls_now.items():
            _calls.labels(state).set(now)

    def keep_publishing() -> None:
        while True:
            time.sleep(_PUBLISHED_EVERY_S)
            publish()

    publish()
    threading.Thread(target=keep_publishing, name="kimi-metrics", daemon=True).start()


def shown(accounts: Collector) -> CollectorRegistry:
    """All of ours with what `accounts` collects, which is read anew for each scrape: of this process, or of every
    worker where they share a folder.
    """
    if not _SHARED_FOLDER:
        registry.register(accounts)
        return registry
    whole = CollectorRegistry()
    whole.register(_AllWorkers())
    whole.register(accounts)
    return whole


class _AllWorkers(Collector):
    """Ours out of the files that the host's metrics are kept in, too."""

    def collect(self) -> Iterable[Metric]:
        found: Iterable[Metric] = MultiProcessCollector(None, _SHARED_FOLDER).collect()  # type: ignore[no-untyped-call]  # theirs
        return [metric for metric in found if metric.name.startswith(PREFIX)]


class _Ours(Collector):
    """Ours for whoever shows the process's own registry, as LiteLLM's /metrics does."""

    def describe(self) -> Iterable[Metric]:
        return registry.collect()

    def collect(self) -> Iterable[Metric]:
        found: CollectorRegistry = sys.modules[__name__].registry  # after a reload, too
        return found.collect()


with suppress(ValueError):  # the names are taken: this module has been here before
    REGISTRY.register(_Ours())
