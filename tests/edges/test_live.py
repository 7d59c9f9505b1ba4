from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kimi_provider.errors import CredentialMissing, ModelNotFound
from kimi_provider.live import LiveTable, merged
from kimi_provider.protocols import LiveModel
from kimi_provider.upstream import Upstream

UPSTREAM = Upstream.load()
AGENT = {"scenario": "SCENARIO_OK_COMPUTER", "kimiplus_id": "ok-computer", "agent_mode": "TYPE_NORMAL"}
LEVELS = tuple(f"REASONING_EFFORT_{name}" for name in ("LOW", "HIGH", "MAX"))


def live(model_id: str, key: str = "key", title: str = "Title", **more: Any) -> LiveModel:
    return LiveModel(id=model_id, key=key, title=title, **({"scenario": "SCENARIO_CHAT"} | more))


K4 = live("k4-agent", "k4", "K4", efforts=LEVELS, **AGENT)


# --- what is taken over ---


def test_a_new_model_is_asked_for_as_its_kind_is() -> None:
    table = merged(UPSTREAM, [K4])
    old = UPSTREAM.resolve("kimi-k3")
    for name in ("kimi-k4-agent", "k4-agent", "k4", "K4", "kimi/K4", "kimi-k4-agent-thinking"):
        assert table.resolve(name) == old.model_copy(update={"title": "K4", "model": "k4-agent"})
    assert table.resolve("k4-search").search
    with pytest.raises(ModelNotFound):
        UPSTREAM.resolve("k4")


def test_efforts_we_have_no_word_for_are_not_sent() -> None:
    table = merged(UPSTREAM, [live("k4-chat", efforts=("REASONING_EFFORT_EXTREME",))])
    row = table.resolve("k4-chat")
    asked = row.effort_for("high", None)
    assert (asked.thinking, asked.value, asked.emulated) == (True, None, ("reasoning_effort",))
    assert row.effort_for(None, None).value is None


@pytest.mark.parametrize(
    "row",
    [
        live("slides-1", scenario="SCENARIO_SLIDES"),
        live("other", kimiplus_id="never-seen"),
        live("mode", **{**AGENT, "agent_mode": "TYPE_OTHER"}),
        live("k2d5", "k2d5"),  # a list of older versions: keys are no model ids
        live("odd/*"),
        live("with space"),
        live("-x"),
        live("x" * 65),
        live("k3-agent", "k3", "K3", **AGENT),  # the table has it
        live("kimi"),
    ],
    ids=lambda row: row.id[:20],
)
def test_what_cannot_be_asked_for_or_is_known_changes_nothing(row: LiveModel) -> None:
    assert merged(UPSTREAM, [row]) == UPSTREAM


def test_a_list_takes_no_name_away_from_the_table() -> None:
    table = merged(UPSTREAM, [live("k4-chat", "k3", "Instant"), live("k5-chat", "twin"), live("k6-chat", "twin")])
    for name in ("k3", "instant", *UPSTREAM.models, *UPSTREAM.aliases):
        assert table.resolve(name) == UPSTREAM.resolve(name)
    assert table.resolve("twin").model == "k5-chat"


# --- when the service is asked ---


class Service:
    """Answers when `open` is set; counts its calls."""

    def __init__(self, wait_s: float = 30) -> None:
        self.calls = 0
        self.failing = False
        self.open = asyncio.Event()
        self.now = 0.0
        times = UPSTREAM.live_models.model_copy(update={"keep_s": 300, "retry_s": 60, "wait_s": wait_s})
        upstream = UPSTREAM.model_copy(update={"live_models": times})
        self.table = LiveTable(upstream, self.fetch, clock=lambda: self.now)

    async def fetch(self) -> tuple[LiveModel, ...]:
        self.calls += 1
        while not self.open.is_set():
            await asyncio.sleep(0.001)
        if self.failing:
            raise CredentialMissing("none")
        return (K4,)


async def test_many_who_ask_at_once_share_one_call() -> None:
    service = Service()
    waiting = [asyncio.create_task(service.table.refreshed()) for _ in range(5)]
    while not service.calls:
        await asyncio.sleep(0.001)
    service.open.set()
    tables = await asyncio.gather(*waiting)
    assert service.calls == 1
    assert all(table.knows("k4") for table in tables)


async def test_the_list_is_kept_and_a_failure_is_repeated_sooner() -> None:
    service = Service()
    service.open.set()
    calls = []
    for now, failing in ((0, True), (59, False), (61, False), (360, True), (362, True), (421, True), (423, False)):
        service.now, service.failing = now, failing
        table = await service.table.refreshed()
        calls.append(service.calls)
        assert table.knows("k4") is (now >= 61), "a list that can't be read again stays as it was"
    assert calls == [1, 1, 2, 2, 3, 3, 4]


async def test_nobody_waits_for_a_silent_service_and_its_late_answer_counts() -> None:
    service = Service(wait_s=0.01)
    assert not (await service.table.refreshed()).knows("k4")
    leaving = asyncio.create_task(service.table.refreshed())
    await asyncio.sleep(0)
    leaving.cancel()
    service.open.set()
    while not service.table.upstream.knows("k4"):
        await asyncio.sleep(0.001)
    assert service.calls == 1
