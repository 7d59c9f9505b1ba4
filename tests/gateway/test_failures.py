"""Each class of error on each surface: status and body, streaming and not, before the first event and in mid-stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness import Gateway, Simulator

ASK = [{"role": "user", "content": "Weather in Oslo?"}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": ASK}),
    "messages": ("/v1/messages", {"messages": ASK, "max_tokens": 99}),
    "responses": ("/v1/responses", {"input": "Weather in Oslo?"}),
}


@dataclass(frozen=True)
class Case:
    scenario: str
    status: int
    code: str
    openai_type: str
    anthropic_type: str
    params: tuple[tuple[str, Any], ...] = ()


#: scenario -> status, our stable code, and the `type` each API gives it.
BEFORE_THE_FIRST_EVENT = [
    Case("auth_http", 401, "credential_rejected", "authentication_error", "authentication_error"),
    Case("auth_trailer", 401, "credential_rejected", "authentication_error", "authentication_error"),
    Case("violations", 400, "invalid_request", "invalid_request_error", "invalid_request_error"),
    Case("protocol_error", 400, "invalid_request", "invalid_request_error", "invalid_request_error"),
    Case("context_too_long", 400, "context_length_exceeded", "invalid_request_error", "invalid_request_error"),
    Case("moderated_before_text", 400, "content_filter", "invalid_request_error", "invalid_request_error"),
    Case("paywall", 403, "membership_required", "permission_error", "permission_error"),
    Case("permission_denied", 403, "permission_refused", "permission_error", "permission_error"),
    Case("not_found", 404, "chat_not_found", "invalid_request_error", "not_found_error"),
    Case("concurrency", 429, "too_many_streams", "throttling_error", "rate_limit_error"),
    Case("quota", 429, "quota_exhausted", "throttling_error", "rate_limit_error"),
    Case("rate_limited", 429, "rate_limited", "throttling_error", "rate_limit_error", (("retry_after_s", 0),)),
    Case("internal", 502, "upstream_error", "internal_server_error", "api_error"),
    Case("unknown_error", 502, "upstream_error", "internal_server_error", "api_error"),
    Case("html_page", 503, "unavailable", "internal_server_error", "api_error"),
    Case("html_200", 502, "upstream_protocol", "internal_server_error", "api_error"),
    Case("redirect", 502, "upstream_error", "internal_server_error", "api_error"),
    Case("empty_200", 502, "upstream_protocol", "internal_server_error", "api_error"),
    Case("close_before_anything", 502, "upstream_protocol", "internal_server_error", "api_error"),
    Case("close_before_text", 502, "upstream_protocol", "internal_server_error", "api_error"),
    Case("no_envelopes", 502, "upstream_protocol", "internal_server_error", "api_error"),
    Case("overloaded_before_text", 503, "overloaded", "internal_server_error", "api_error"),
    Case("overloaded_trailer", 503, "overloaded", "internal_server_error", "api_error"),
    Case("unavailable", 503, "unavailable", "internal_server_error", "api_error"),
    Case("deadline_exceeded", 504, "timeout", "internal_server_error", "api_error"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", BODIES)
@pytest.mark.parametrize("case", BEFORE_THE_FIRST_EVENT, ids=lambda case: case.scenario)
def test_before_the_first_event(gateway: Gateway, simulator: Simulator, case: Case, surface: str, stream: bool) -> None:
    simulator.scenario(case.scenario, times=None, **dict(case.params))
    path, body = BODIES[surface]
    answer = gateway.http.post(path, json={"model": "kimi", "stream": stream, **body})
    assert answer.status_code == case.status, answer.text
    error = answer.json()["error"]
    assert f"[{case.code}]" in error["message"]
    if surface == "messages":
        assert answer.json()["type"] == "error"
        assert error["type"] == case.anthropic_type
    else:
        assert error["type"] == case.openai_type
        assert error["code"] == str(case.status)
    assert "Traceback" not in answer.text


MID_STREAM = [
    ("overloaded_after_text", 503, "overloaded"),
    ("done_then_error", 502, "upstream_error"),
    ("close_mid_text", 502, "upstream_protocol"),
    ("truncated_frame", 502, "upstream_protocol"),
    ("oversized_header", 502, "upstream_protocol"),
]


@pytest.mark.parametrize(("scenario", "status", "code"), MID_STREAM)
@pytest.mark.parametrize("surface", BODIES)
def test_in_mid_stream(
    gateway: Gateway, simulator: Simulator, surface: str, scenario: str, status: int, code: str
) -> None:
    simulator.scenario(scenario, times=None)
    path, body = BODIES[surface]
    answer = gateway.http.post(path, json={"model": "kimi", "stream": True, **body})
    assert answer.status_code == 200
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    match surface:
        case "chat":
            assert "".join(c["delta"].get("content") or "" for e in events[:-1] for c in e["choices"])
            assert not [c for e in events[:-1] for c in e["choices"] if c.get("finish_reason")]
            assert events[-1]["error"]["code"] == str(status)
            message = events[-1]["error"]["message"]
        case "messages":
            assert "content_block_delta" in {e["type"] for e in events}
            assert not {"message_stop", "message_delta"} & {e["type"] for e in events}
            assert events[-1]["type"] == "error"
            message = events[-1]["error"]["message"]
        case _:
            assert "response.output_text.delta" in {e["type"] for e in events}
            assert "response.completed" not in {e["type"] for e in events}
            assert events[-1]["type"] == "response.failed"
            message = events[-1]["response"]["error"]["message"]
    assert f"[{code}]" in message


@pytest.mark.parametrize("surface", BODIES)
@pytest.mark.parametrize(("scenario", "status"), [(scenario, status) for scenario, status, _ in MID_STREAM])
def test_in_mid_stream_of_a_whole_answer(
    gateway: Gateway, simulator: Simulator, surface: str, scenario: str, status: int
) -> None:
    simulator.scenario(scenario, times=None)
    path, body = BODIES[surface]
    assert gateway.http.post(path, json={"model": "kimi", **body}).status_code == status


@pytest.mark.parametrize(
    ("surface", "reason"), [("chat", "content_filter"), ("messages", "refusal"), ("responses", "content_filter")]
)
def test_moderation_after_text_keeps_the_text(
    gateway: Gateway, simulator: Simulator, surface: str, reason: str
) -> None:
    simulator.scenario("moderated")
    path, body = BODIES[surface]
    answer = gateway.http.post(path, json={"model": "kimi", **body})
    assert answer.status_code == 200
    assert "The first steps are" in answer.text
    assert reason in answer.text or '"status":"incomplete"' in answer.text


def test_overload_that_passes_is_not_seen(gateway: Gateway, simulator: Simulator) -> None:
    simulator.scenario("fail_times", times=None, n=1)
    answer = gateway.http.post("/v1/chat/completions", json={"model": "kimi", "messages": ASK})
    assert answer.status_code == 200
    assert simulator.state()["total_streams"] == 2


def test_a_refused_access_token_is_refreshed_once(gateway: Gateway, simulator: Simulator) -> None:
    simulator.scenario("stale_token", times=None)
    answer = gateway.http.post("/v1/chat/completions", json={"model": "kimi", "messages": ASK})
    assert answer.status_code == 200, answer.text
    assert simulator.state()["refreshes"] == 1


def test_retry_after_reaches_the_client(gateway: Gateway, simulator: Simulator) -> None:
    simulator.scenario("quota")
    answer = gateway.http.post("/v1/chat/completions", json={"model": "kimi", "messages": ASK})
    assert int(answer.headers["retry-after"]) >= 1


def test_parameters_without_effect_are_named(gateway: Gateway, simulator: Simulator) -> None:
    body = {"model": "kimi", "messages": ASK, "temperature": 0.2, "seed": 7}
    for stream in (False, True):
        answer = gateway.http.post("/v1/chat/completions", json={**body, "stream": stream})
        assert set(answer.headers["llm_provider-x-kimi-ignored"].split(",")) >= {"temperature", "seed"}
