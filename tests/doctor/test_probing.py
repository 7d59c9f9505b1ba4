"""Probing in one process, where the simulator's clock and its end can be chosen."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kimi_provider.doctor import probing, questions, taking
from kimi_provider.doctor.plan import plan as planned
from kimi_provider.doctor.probing import Probed, Step
from kimi_provider.engine import KimiEngine
from kimi_provider.errors import KimiError
from kimi_provider.settings import Settings
from kimi_provider.simulator import Simulator, SimulatorServer
from kimi_provider.upstream import Upstream, merged
from tests.security.needles import composed_token

QUICK = {"retry": {"backoff_s": [0.01]}, "service": {"done_grace_s": 0.5}, "doctor": {"chats": ["kimi"]}}


class World:
    """A service whose clock goes ahead a second with each look at it, so that a later token is seen to be later."""

    def __init__(self, tmp: Path) -> None:
        ahead_s = itertools.count()
        self.server = SimulatorServer(Simulator(clock=lambda: time.time() + next(ahead_s)))
        self._states = (f"sqlite:///{tmp}/{number}.db" for number in itertools.count())

    def engine(self, *names: str, overlay: dict[str, object] | None = None, **login: object) -> KimiEngine:
        pair = self.server.login("ada", **login)
        settings = Settings.without_file(
            kimi_base_url=self.server.url,
            kimi_auth_url=self.server.url,
            kimi_state_url=next(self._states),
            kimi_token=" ".join(pair[name] for name in names),
        )
        return KimiEngine(settings, Upstream.overlaid(merged(QUICK, overlay or {})))

    async def probed(self, engine: KimiEngine) -> tuple[Probed, list[Step]]:
        steps: list[Step] = []
        return await probing.probe(engine, engine.pool.accounts[0], steps.append), steps


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.server as server:
        server.change(pace=0)
        yield made


@pytest.mark.parametrize("given", [("access_token", "refresh_token"), ("refresh_token",)])
async def test_a_pair_under_other_names_is_kept_and_the_names_are_learned(world: World, given: tuple[str, ...]) -> None:
    """The old pair died with the refresh: the one in the answer is the only one."""
    world.server.change(renamed={"accessToken": "accessJwt", "refreshToken": "refreshJwt"})
    engine = world.engine(*given)
    probed, steps = await world.probed(engine)
    assert [step.title for step in steps if step.failure] == []
    assert probed.overlay == {
        "auth": {
            "access_fields": ["accessToken", "access_token", "token", "accessJwt"],
            "refresh_fields": ["refreshToken", "refresh_token", "refreshJwt"],
        }
    }
    assert (await engine.check_account(engine.pool.accounts[0])).user_id == probed.account.id
    taught = KimiEngine(engine.settings, Upstream.overlaid(merged(QUICK, probed.overlay)))
    session = await taught.keeper.session(taught.pool.accounts[0])
    renewed = await taught.keeper.session(taught.pool.accounts[0], rejected=session.access_token)
    assert renewed.access_token != session.access_token, "the stored pair can be refreshed"
    await engine.close()
    await taught.close()


async def test_chats_are_removed_when_the_probing_breaks_off(world: World) -> None:
    engine = world.engine("access_token", "refresh_token")
    steps: list[Step] = []

    def told(step: Step) -> None:
        steps.append(step)
        if step.title == "chat with kimi":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await probing.probe(engine, engine.pool.accounts[0], told)
    state = world.server.snapshot()
    assert state["chats"] == []
    assert len(state["deleted"]) == 1
    assert steps[-1].title == "removal of our chats"
    await engine.close()


async def test_a_chat_that_can_not_be_removed_now_is_removed_later(world: World) -> None:
    methods = [f"{service}.v1.ChatService/DeleteChat" for service in ("kimi.chat", "kimi.gateway.chat")]
    world.server.change(unimplemented=methods)
    engine = world.engine("access_token", "refresh_token", overlay={"chats": {"retry_s": [0.01]}})
    _, steps = await world.probed(engine)
    assert [step.title for step in steps if step.failure] == ["removal of our chats"]
    left = {chat["id"] for chat in world.server.snapshot()["chats"]}
    assert left
    world.server.change(unimplemented=[])
    for _ in range(400):
        await engine.tidier.sweep()
        if not world.server.snapshot()["chats"]:
            break
        await asyncio.sleep(0.05)
    assert {*world.server.snapshot()["deleted"]} >= left
    await engine.close()


async def test_an_old_opaque_token_is_asked_over_the_older_protocol_alone(world: World) -> None:
    engine = world.engine("refresh_token", kind="opaque")
    account = engine.pool.accounts[0]
    plan = planned(engine.upstream, engine.settings, account)
    assert not any("list of models" in call for call in plan)
    probed, steps = await world.probed(engine)
    assert [step.title for step in steps if step.failure] == []
    assert {one.exchange.path.split("/")[1] for one in probed.heard} == {"api"}
    assert [answer.number for answer in questions.answers(probed)] == [1, 27]
    await engine.close()


async def test_an_access_token_alone_is_not_refreshed(world: World) -> None:
    engine = world.engine("access_token")
    plan = planned(engine.upstream, engine.settings, engine.pool.accounts[0])
    assert not any("refresh" in call for call in plan)
    probed, _ = await world.probed(engine)
    assert not any("RefreshToken" in one.exchange.path for one in probed.heard)
    await engine.close()


async def test_a_model_that_no_row_has_is_told_and_costs_nothing(world: World) -> None:
    engine = world.engine("access_token", overlay={"doctor": {"chats": ["kimi-k9"]}})
    _, steps = await world.probed(engine)
    failed = {step.title: step.failure for step in steps if step.failure}
    assert [*failed] == ["chat with kimi-k9"]
    assert "no model 'kimi-k9'" in str(failed["chat with kimi-k9"])
    await engine.close()


async def test_a_credential_in_a_recording_stops_it(world: World) -> None:
    """Whatever the redaction overlooks: a recording with a piece of the account's token is none."""
    engine = world.engine("access_token")
    probed, _ = await world.probed(engine)
    assert taking.taken(probed)[0].calls
    access = probed.account.tokens.pair.access
    assert access is not None
    for leak in (access, access[40:60], probed.account.id, composed_token()):
        with pytest.raises(KimiError, match="nothing was saved"):
            taking.taken(replace(probed, overlay={"leak": leak}))
    await engine.close()
