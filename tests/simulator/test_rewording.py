"""A service that spells its protocol otherwise (the setting `renamed`)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kimi_provider.simulator.settings import SimulatorSettings

from .sse import RestCaller
from .wire import Answer, Caller, body, pack

RENAMED = {"SCENARIO_CHAT": "SCENARIO_TALK", "MESSAGE_STATUS_COMPLETED": "STATUS_OVER", "\ue3a0": "\ue3b0"}


def renamed_body() -> Any:
    return orjson.loads(orjson.dumps(body()).replace(b"SCENARIO_CHAT", b"SCENARIO_TALK"))


def drifted(caller: Caller) -> Caller:
    caller.server.change(renamed=RENAMED)
    return caller


def test_the_old_word_is_refused_and_the_new_one_understood(caller: Caller) -> None:
    old = drifted(caller).post(pack(body()))
    assert old.status_code == 400
    assert old.json()["details"][0]["debug"]["violations"][0]["field"]["elements"] == [{"fieldName": "scenario"}]
    new = caller.post(pack(renamed_body()), **{"x-sim-scenario": "search_turn"})
    assert new.status_code == 200
    answer = Answer(new)
    assert answer.trailer == {}
    text = new.content.decode("utf-8", "replace")
    assert "SCENARIO_TALK" in text
    assert "STATUS_OVER" in text
    assert "\ue3b0" in text
    for word in RENAMED:
        assert word not in text


def test_envelopes_are_counted_anew_however_they_are_cut(caller: Caller) -> None:
    play = "split of=search_turn"
    whole = drifted(caller).post(pack(renamed_body()), **{"x-sim-scenario": play})
    assert Answer(whole).trailer == {}
    assert Answer(whole).text.startswith("Rain today, ")


def test_unary_calls_and_the_older_protocol_speak_the_same_words(caller: Caller, rest: RestCaller) -> None:
    caller.server.change(renamed={**RENAMED, "all_done": "the_end"})
    listed = caller.http.post(
        "/apiv2/kimi.gateway.config.v1.ConfigService/GetAvailableModels", json={}, headers={"x-msh-version": "2.2.0"}
    )
    assert orjson.loads(listed.content)["defaultScenario"]["scenario"] == "SCENARIO_TALK"
    assert rest.ask("Hello").events[-1]["event"] == "the_end"


def test_a_word_inside_a_longer_one_is_another_word(caller: Caller) -> None:
    caller.server.change(renamed={"SCENARIO_OK_COMPUTER": "SCENARIO_MACHINE"})
    listed = caller.http.post(
        "/apiv2/kimi.gateway.config.v1.ConfigService/GetAvailableModels", json={}, headers={"x-msh-version": "2.2.0"}
    ).json()
    scenarios = [row["scenario"] for row in listed["availableModels"]]
    assert scenarios == ["SCENARIO_CHAT", "SCENARIO_MACHINE", "SCENARIO_MACHINE", "SCENARIO_OK_COMPUTER_SWARM"]


def test_the_setting_takes_words_only() -> None:
    assert SimulatorSettings().changed({"renamed": {"a": "b"}}).renamed == {"a": "b"}
    with pytest.raises(ValueError, match="renamed"):
        SimulatorSettings().changed({"renamed": ["a"]})
