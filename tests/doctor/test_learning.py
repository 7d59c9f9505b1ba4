"""What is proposed for what was seen, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_provider.doctor.failures import errors_of, moved_model, passing_reason, reasons_of, unknown_reason
from kimi_provider.doctor.hearing import CONNECT_STREAM, Heard, heard
from kimi_provider.doctor.learning import lessons
from kimi_provider.protocols import LiveModel
from kimi_provider.simulator import envelopes
from kimi_provider.tap import Exchange
from kimi_provider.upstream import Upstream

UPSTREAM = Upstream.load()


def answer(*frames: dict[str, Any], trailer: dict[str, Any] | None = None, end: bool = True) -> Heard:
    """An answer as bytes, read as the doctor reads it."""
    exchange = Exchange(
        method="POST", path="/x/Chat", request=envelopes.message({}), status=200, content_type=CONNECT_STREAM
    )
    exchange.answer += b"".join(map(envelopes.message, frames))
    exchange.answer += envelopes.trailer(trailer) if end else b""
    exchange.cut = not end
    return heard(exchange, step="test", model="kimi")


def block(kind: str, value: Any, block_id: str = "5", op: str = "set") -> dict[str, Any]:
    return {"op": op, "eventOffset": 1, "block": {"id": block_id, kind: value}}


SOURCES = {"message": {"id": "m", "refs": {"searchChunks": [
    {"id": "r1", "refIndex": "web_search:1#0"}, {"id": "r2", "refIndex": "web_search:1#2"}]}}}  # fmt: skip


def live(model_id: str, scenario: str, **more: Any) -> LiveModel:
    return LiveModel(id=model_id, key=model_id, title=model_id, scenario=scenario, **more)


# --- scenarios ---


def test_a_scenario_that_was_renamed_is_renamed_everywhere() -> None:
    lesson = moved_model("kimi", UPSTREAM.resolve("kimi"), [live("k2d6-chat", "SCENARIO_TALK")], UPSTREAM)
    assert lesson is not None
    taught = Upstream.overlaid(lesson.overlay)
    for name in ("kimi", "kimi-search-thinking", "kimi-k2.6"):
        assert taught.resolve(name).scenario == "SCENARIO_TALK"
    assert taught.resolve("kimi-k3").scenario == "SCENARIO_OK_COMPUTER"
    # Suffixes look at the scenario, too.
    assert taught.resolve("kimi-k2.6-research").kimiplus_id == "deep-researcher"


def test_one_model_that_moved_takes_no_other_along() -> None:
    offered = [live("k3-agent", "SCENARIO_K3"), live("k28-agent-preview", "SCENARIO_OK_COMPUTER")]
    lesson = moved_model("kimi-k3", UPSTREAM.resolve("kimi-k3"), offered, UPSTREAM)
    assert lesson is not None
    assert lesson.overlay == {"models": {"kimi-k3": {"scenario": "SCENARIO_K3"}}}


def test_a_row_without_a_model_is_known_by_agent_and_mode() -> None:
    offered = [live("any", "SCENARIO_AGENTS", kimiplus_id="ok-computer", agent_mode="TYPE_NORMAL")]
    lesson = moved_model("kimi-agent", UPSTREAM.resolve("kimi-agent"), offered, UPSTREAM)
    assert lesson is not None
    assert Upstream.overlaid(lesson.overlay).resolve("kimi-agent").scenario == "SCENARIO_AGENTS"


@pytest.mark.parametrize(
    "offered",
    [
        [],
        [live("k2d6-chat", "SCENARIO_CHAT")],
        [live("k2d6-chat", "")],
        [live("other", "SCENARIO_TALK")],
        [live("k2d6-chat", "SCENARIO_TALK"), live("k2d6-chat", "SCENARIO_CHAT")],
        [live("k2d6-chat", "SCENARIO_A"), live("k2d6-chat", "SCENARIO_B")],
    ],
)
def test_a_list_that_does_not_say_where_it_went_proposes_nothing(offered: list[LiveModel]) -> None:
    assert moved_model("kimi", UPSTREAM.resolve("kimi"), offered, UPSTREAM) is None


# --- signs ---


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("a\ue3b0cite\ue3b3web_search:1#0\ue3b8 b", {"start": "\ue3b0", "separator": "\ue3b3", "end": "\ue3b8"}),
        ("a\ue3b0cite\ue3b3web_search:1#0\ue3b3web_search:1#2\ue3b8",
         {"start": "\ue3b0", "separator": "\ue3b3", "end": "\ue3b8"}),
        ("a【web_search:1#0】", {"start": "【", "end": "】"}),
        ("a\ue3a0cite\ue3a3web_search:1#0\ue3b8", {"end": "\ue3b8"}),
        ("a\ue3a0cite\ue3a3web_search:1#0\ue3a8", {}),
        ("a [[web_search:1#0]] b", {}),
        ("a\ue3b0cite\ue3b3web_search:7#7\ue3b8", {}),
        ("aéweb_search:1#0é", {}),
        ("a\ue3b0 and nothing", {}),
    ],
)  # fmt: skip
def test_signs_around_references_of_the_answer(text: str, signs: dict[str, str]) -> None:
    pieces = [block("text", {"content": piece}, op="append") for piece in text]
    found = lessons(answer(SOURCES, *pieces), UPSTREAM)
    if not signs:
        assert found == []
        return
    (lesson,) = found
    table = Upstream.overlaid(lesson.overlay).citations
    for kind in ("start", "separator", "end"):
        old = getattr(UPSTREAM.citations, kind)
        assert getattr(table, kind) == ((*old, signs[kind]) if kind in signs else old)


# --- reasons ---


def trailer(**error: Any) -> Heard:
    return answer(trailer=error)


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        (trailer(code="resource_exhausted", message="x", details=[{"debug": {"reason": "REASON_NEW"}}]), "REASON_NEW"),
        (answer(block("exception", {"error": {"reason": "REASON_NEW", "severity": "SEVERITY_X"}})), "REASON_NEW"),
        (answer({"exception": {"reason": "REASON_NEW"}}), "REASON_NEW"),
        (answer({"error": {"code": "internal", "details": [{"debug": {"reason": "REASON_NEW"}}]}}), "REASON_NEW"),
        (trailer(code="resource_exhausted", message="quota", details=[{"debug": {"reason": "REASON_NEW"}}]), None),
        (trailer(code="resource_exhausted", message="x", details=[{"debug": {"paywall": {}, "reason": "R_N"}}]), "R_N"),
        (trailer(code="resource_exhausted", details=[{"debug": {"paywall": {"a": 1}, "reason": "REASON_NEW"}}]), None),
        (trailer(code="resource_exhausted", details=[{"debug": {"reason": "REASON_QUOTA_EXCEEDED"}}]), None),
        (trailer(code="resource_exhausted", message="x"), None),
        (trailer(code=7, message=[], details={"debug": 1}), None),
        (trailer(details=[None, {"debug": None}, {"debug": {"reason": 3}}]), None),
    ],
)  # fmt: skip
def test_reasons_that_nobody_knows(failed: Heard, reason: str | None) -> None:
    (error,) = errors_of(failed)
    assert unknown_reason(error, UPSTREAM) == reason
    if reason is not None:
        assert reasons_of(error) == [reason]
        taught = Upstream.overlaid(passing_reason(reason).overlay)
        assert taught.errors.reasons[reason] == "overloaded"
        assert unknown_reason(error, taught) is None


# --- the rest ---


def message(status: str, role: str | None = None) -> dict[str, Any]:
    return {"message": {"id": "m", "status": status, **({"role": role} if role else {})}}


def test_another_word_for_a_complete_answer() -> None:
    (lesson,) = lessons(answer(message("MESSAGE_STATUS_FINISHED")), UPSTREAM)
    taught = Upstream.overlaid(lesson.overlay)
    assert taught.connect.completed_statuses == {"MESSAGE_STATUS_COMPLETED", "MESSAGE_STATUS_FINISHED"}


@pytest.mark.parametrize(
    "ended",
    [
        answer(message("MESSAGE_STATUS_COMPLETED")),
        answer(message("MESSAGE_STATUS_GENERATING")),
        answer(message("MESSAGE_STATUS_FINISHED", "user")),
        answer(message("MESSAGE_STATUS_FAILED"), trailer={"code": "internal"}),
        answer(message("MESSAGE_STATUS_FAILED"), end=False),
    ],
)
def test_a_status_is_learned_from_whole_answers_only(ended: Heard) -> None:
    assert lessons(ended, UPSTREAM) == []


@pytest.mark.parametrize(
    ("args", "known"), [('{"queries":["x"]}', "search_tool_names"), ('{"questions":[{}]}', "question_tool_names")]
)
def test_a_native_tool_under_another_name(args: str, known: str) -> None:
    frames = [block("tool", {"name": "look_up", "status": "STATUS_PENDING"}), block("tool", {"args": args})]
    (lesson,) = lessons(answer(*frames), UPSTREAM)
    assert getattr(Upstream.overlaid(lesson.overlay).connect, known) >= {"look_up"}
    assert lessons(answer(*frames), Upstream.overlaid(lesson.overlay)) == []


def test_what_no_value_can_say_is_told_in_words() -> None:
    found = lessons(
        answer({"weather": {}}, block("hologram", {"content": "x"}), {"notification": {"type": "TYPE_PARTY"}}), UPSTREAM
    )
    assert [lesson.overlay for lesson in found] == [{}, {}, {}]
    assert [word in lesson.found for lesson, word in zip(found, ("TYPE_PARTY", "weather", "hologram"), strict=True)]


def test_frames_of_every_wrong_shape_teach_nothing() -> None:
    for value in (None, 3, "x", [], {}, {"id": 3}, {"error": 3}, {"content": {}}, [[]]):
        for name in ("block", "message", "notification", "exception", "error", "chat", "done"):
            call = answer({name: value}, {name: {name: value, "text": value, "tool": value, "refs": value}})
            for error in errors_of(call):
                unknown_reason(error, UPSTREAM)
            assert all(lesson.overlay == {} for lesson in lessons(call, UPSTREAM))
