"""Every scenario of the legacy protocol can be run and does what its line says."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from kimi_provider.simulator.rest.scenario import REST
from kimi_provider.simulator.scenario import CONNECT

from .sse import RestCaller, completion, parse, stream_of

ENDLESS = {"heartbeats_only", "hang_before_headers", "hang_before_first_frame", "hang_mid_text"}
NO_STREAM = {
    "auth_http": 401,
    "auth_trailer": 200,
    "stale_token": 401,
    "not_found": 404,
    "permission_denied": 403,
    "account_abnormal": 403,
    "rate_limited": 429,
    "html_page": 502,
    "html_200": 200,
    "redirect": 302,
}
ERRORS = {
    "concurrency": "chat.user_stream_pushing",
    "unavailable": "openai.completion.stream",
    "internal": "openai.completion.stream",
    "overloaded_after_text": "openai.completion.stream",
    "overloaded_before_text": "openai.completion.stream",
    "overloaded_trailer": "openai.completion.stream",
    "moderated": "chat.forbidden",
    "moderated_before_text": "chat.forbidden",
    "context_too_long": "openai.completion.token_length_too_long",
    "done_then_error": "openai.completion.stream",
    "fail_times": "openai.completion.stream",
}
CUT = {
    "close_after_done",
    "close_after_completed",
    "close_mid_text",
    "close_before_text",
    "close_before_anything",
    "truncated_frame",
    "no_envelopes",
    "empty_200",
}
TEXTS = {
    "demo": "[simulator] ",
    "search_turn": "Rain today, about 9 °C.[^1^]",
    "degraded": "Sure.",
    "caret_citations": "Rain in Oslo[^1^], sun in Bergen[^2^], nothing known of Voss[^9^].",
    "echo_words": "All is well.",
    "unknown_things": "Known text.",
    "spellings": "Same text, other spelling: 9 °C.",
    "overloaded_after_text": "Well, ",
    "moderated": "The first steps are",
    "close_mid_text": "Only the first half of",
    "garbage": "After garbage.",
    "slow": "Before the pause, after the pause.",
    "fast": "benchmark benchmark ",
    "say": "Hello.",
    "recall": "Nothing.",
    "echo": "Weather in Oslo?",
    "split": "Rain today, about 9 °C.[^1^]",
}


def test_the_tables_of_this_file_name_real_scenarios() -> None:
    assert {*ENDLESS, *NO_STREAM, *ERRORS, *CUT, *TEXTS} <= set(REST.rows)


def test_shared_names_have_shared_parameters(rest: RestCaller) -> None:
    for name in set(REST.rows) & set(CONNECT.rows):
        mine, theirs = REST.rows[name].params, CONNECT.rows[name].params
        assert {key: type(value) for key, value in mine.items()} == {key: type(value) for key, value in theirs.items()}
        assert dict(REST.rows[name].choices) == dict(CONNECT.rows[name].choices) or name == "auth_trailer"
    rows = {row["name"]: row["protocols"] for row in rest.http.get("/_sim/scenarios").json()}
    assert (rows["say"], rows["quota"], rows["long"]) == (["connect", "rest"], ["connect"], ["rest"])


@pytest.mark.parametrize("name", [name for name in REST.rows if name not in ENDLESS])
def test_every_scenario_runs_and_leaves_no_stream(rest: RestCaller, name: str) -> None:
    answer = rest.ask(play="slow pause_s=0.1" if name == "slow" else name)
    state = rest.server.snapshot()
    assert state["active_streams"] == 0
    (chat,) = state["chats"]
    assert all(message["status"] == "MESSAGE_STATUS_COMPLETED" for message in chat["messages"])
    if name in NO_STREAM:
        assert answer.status == NO_STREAM[name]
        assert chat["messages"] == []
        return
    assert answer.status == 200
    assert answer.response.headers["content-type"].startswith("text/event-stream")
    if name in ERRORS:
        assert answer.error_type == ERRORS[name]
        assert answer.events[-1]["event"] == "error"
    elif name not in CUT:
        assert answer.events[-1] == {"event": "all_done"}
    if name in TEXTS:
        assert answer.text.startswith(TEXTS[name])


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_endless_scenarios_can_be_ended(rest: RestCaller, name: str) -> None:
    path = stream_of(rest.new_chat())
    if name == "heartbeats_only":
        headers = rest.headers(**{"x-sim-scenario": "heartbeats_only every_s=0.01"})
        with rest.http.stream("POST", path, json=completion(), headers=headers) as response:
            data = b""
            for chunk in response.iter_raw():
                data += chunk
                if data.count(b"keep-alive") > 3:
                    break
        assert {"ping", "loading"} <= {one["event"] for one in parse(data)}
    else:
        headers = rest.headers(**{"x-sim-scenario": name})
        with pytest.raises(httpx.ReadTimeout):
            rest.http.post(path, json=completion(), headers=headers, timeout=httpx.Timeout(5, read=0.2))
    until = time.monotonic() + 5
    while rest.server.snapshot()["active_streams"] and time.monotonic() < until:
        time.sleep(0.01)
    if name.startswith("hang"):
        assert rest.ask(play=f"{name} for_s=0.05").kinds[-1] == "all_done"


@pytest.mark.parametrize("name", sorted(name for name in CUT if name.startswith(("close", "truncated"))))
def test_abort_breaks_the_connection(rest: RestCaller, name: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        rest.ask(play=f"{name} abort=1")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("close_after_done", ["req", "resp", "cmpl", "done"]),
        ("close_after_completed", ["req", "resp", "cmpl", "rename"]),
        ("close_mid_text", ["req", "resp", "cmpl"]),
        ("close_before_text", ["req", "resp"]),
        ("close_before_anything", []),
        ("overloaded_before_text", ["req", "resp", "error"]),
        ("overloaded_trailer", ["req", "resp", "done", "error"]),
        ("moderated", ["req", "resp", "cmpl", "error"]),
        ("concurrency", ["error"]),
        ("search_turn", ["req", "resp", "search_plus", "k1", "cmpl", "ref_docs", "rename", "all_done"]),
    ],
)
def test_what_is_sent_and_where_it_breaks_off(rest: RestCaller, name: str, kinds: list[str]) -> None:
    assert rest.ask(play=name).kinds == kinds


@pytest.mark.parametrize(
    ("name", "status", "error_type"),
    [
        ("auth_http", 401, "auth.token.invalid"),
        ("auth_trailer", 200, "auth.token.invalid"),
        ("account_abnormal", 403, "auth.account_abnormal"),
        ("permission_denied", 403, "chat.forbidden"),
        ("not_found", 404, "chat.not_found"),
        ("concurrency carrier=http", 400, "chat.user_stream_pushing"),
        ("internal carrier=http", 500, "openai.completion.stream"),
        ("unavailable carrier=http", 503, "openai.completion.stream"),
        ("context_too_long carrier=http", 400, "openai.completion.token_length_too_long"),
    ],
)
def test_errors_as_json(rest: RestCaller, name: str, status: int, error_type: str) -> None:
    answer = rest.ask(play=name)
    assert answer.response.headers["content-type"] == "application/json"
    assert (answer.status, answer.error_type) == (status, error_type)


def test_errors_after_text(rest: RestCaller) -> None:
    answer = rest.ask(play="internal after=Some%20text")
    assert (answer.text, answer.error_type) == ("Some text", "openai.completion.stream")
    assert rest.ask(play="context_too_long carrier=exception").kinds == ["req", "resp", "error"]
    assert rest.ask(play="moderated reason=chat.other").error_type == "chat.other"


def test_http_faults(rest: RestCaller) -> None:
    limited = rest.ask(play="rate_limited retry_after_s=17").response
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "17")
    redirect = rest.ask(play="redirect status=307 to=https://elsewhere.invalid/x").response
    assert (redirect.status_code, redirect.headers["location"]) == (307, "https://elsewhere.invalid/x")
    for name in ("html_page", "html_200"):
        assert rest.ask(play=name).response.headers["content-type"].startswith("text/html")
    assert rest.ask(play="empty_200").response.content == b""


def test_stale_token(rest: RestCaller) -> None:
    play, chat_id = "stale_token", rest.new_chat()
    assert rest.complete(chat_id, play=play).error_type == "auth.token.invalid"
    assert rest.complete(chat_id, play=play).status == 401
    rest.caller.token = rest.server.login(user="ada")["access_token"]
    assert rest.complete(chat_id, play=play).text == "Answered after a refresh."


def test_fail_times(rest: RestCaller, other_rest: RestCaller) -> None:
    play = "fail_times n=2 how=moderated_before_text key=rest"
    assert [rest.ask(play=play).error_type for _ in range(2)] == ["chat.forbidden"] * 2
    assert other_rest.ask(play=play).kinds[-1] == "error"
    assert rest.ask(play=play).text == "Answered after 2 failures."
    assert rest.ask(play="fail_times n=1 how=rate_limited key=http").status == 429
    assert rest.ask(play="fail_times how=fail_times key=x").status == 400


def test_spellings(rest: RestCaller) -> None:
    for crlf, separator in ((1, b"\r\n"), (0, b"\n")):
        answer = rest.ask(play=f"spellings crlf={crlf}")
        raw = answer.response.content
        assert (b"\r" in raw) is bool(crlf)
        assert separator + b"event: cmpl" + separator + b'data:{"event":"cmpl"' in raw
        assert b": keep-alive" in raw
        assert answer.thinking == "Thinking, spelt otherwise."
        assert answer.kinds == [
            "req",
            "resp",
            "zone_set",
            "think",
            "zone_set",
            "ping",
            "cmpl",
            "done",
            "rename",
            "all_done",
        ]
        assert [one["zone_type"] for one in answer.all("zone_set")] == ["thought", "answer"]


def test_echo_words(rest: RestCaller) -> None:
    (req,) = rest.ask(play="echo_words").all("req")
    assert req["content"].startswith("Weather in Oslo? error overloaded")


@pytest.mark.parametrize(("param", "last"), [("", {"event": "all_done"}), ("in_trailer=1", b"\xff\xfe not json")])
def test_garbage(rest: RestCaller, param: str, last: Any) -> None:
    events = rest.ask(play=f"garbage {param}".strip()).events
    assert b'{"text":' in events
    assert events[-1] == last


def test_truncated(rest: RestCaller) -> None:
    assert rest.ask(play="truncated_frame missing=20").response.content.endswith(b"this fra")


@pytest.mark.parametrize("size", [1, 3, 4096])
def test_split_keeps_every_byte(rest: RestCaller, size: int) -> None:
    headers = rest.headers(**{"x-sim-scenario": f"split size={size}"})
    with rest.http.stream("POST", stream_of(rest.new_chat()), json=completion(), headers=headers) as response:
        chunks = list(response.iter_raw())
    assert "".join(one.get("text", "") for one in parse(b"".join(chunks)) if one["event"] == "cmpl").endswith(
        "°C.[^1^]"
    )
    if size == 1:
        assert len(chunks) > 20


def test_volume_and_time(rest: RestCaller) -> None:
    assert rest.ask(play="fast frames=500 chars=7 batch=64").text == "benchma" * 500
    assert rest.ask(play="fast frames=100 chars=5 rate=400 batch=10").text == "bench" * 100
    slow = rest.ask(play="slow pause_s=0.3 heartbeat_s=0.1")
    assert slow.response.content.count(b": keep-alive\n\n") == 2
    said = rest.ask(play="say text=Hi%20there think=Hm%20hm piece=3")
    assert (said.text, said.thinking, len(said.all("cmpl"))) == ("Hi there", "Hm hm", 3)
