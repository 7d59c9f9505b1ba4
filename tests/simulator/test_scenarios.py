"""Every named scenario can be run and does what its line says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from kimi_provider.simulator import SimulatorServer

from .wire import CHAT, Answer, Caller, body, pack, unpack

ENDLESS = {"heartbeats_only", "hang_before_headers", "hang_before_first_frame", "hang_mid_text"}
NO_STREAM = {
    "auth_http": 401,
    "stale_token": 401,
    "permission_denied": 403,
    "account_abnormal": 403,
    "violations": 400,
    "rate_limited": 429,
    "html_page": 502,
    "html_200": 200,
    "redirect": 302,
    "empty_200": 200,
}
NOT_WHOLE = {"truncated_frame", "oversized_header", "no_envelopes"}
NO_TRAILER = {"close_after_done", "close_after_completed", "close_mid_text", "close_before_text"}
# Texts whose frames set once and then append; the rest is checked one by one below.
TEXTS = {
    "demo": "[simulator] ",
    "search_turn": "Rain today, about 9 °C.",
    "native_tool": "6 x 7 = 42",
    "failing_tool": "The calculation failed.",
    "degraded": "Sure.",
    "oddities": "Hello!",
    "older_search": "Rain today[^1^].",
    "think_blocks": "Part one. Part two. The end.",
    "caret_citations": "Rain in Oslo[^1^], sun in Bergen[^2^], nothing known of Voss[^9^].",
    "bracket_citations": "Rain in Oslo[[1]], sun in Bergen[[cite:2]], nothing known of Voss[[cite:9]].",
    "split_markers": "Rain\ue3a0cite\ue3a3web_search:1#2\ue3a3web_search:1#0\ue3a8 and wind\ue3a0article",
    "unknown_things": "Known text.",
    "echo_words": "All is well.",
    "no_message_id": "Nameless answer.",
    "slow": "Before the pause, after the pause.",
    "fast": "benchmark benchmark ",
    "say": "Hello.",
    "recall": "Nothing.",
    "echo": "Weather in Oslo?",
    "split": "Rain today, about 9 °C.",
}
ERRORS = {
    "concurrency": "resource_exhausted",
    "quota": "resource_exhausted",
    "paywall": "resource_exhausted",
    "auth_trailer": "unauthenticated",
    "protocol_error": "invalid_argument",
    "not_found": "not_found",
    "unavailable": "unavailable",
    "deadline_exceeded": "deadline_exceeded",
    "internal": "internal",
    "unknown_error": "unknown",
    "overloaded_trailer": "resource_exhausted",
    "context_too_long": "invalid_argument",
    "done_then_error": "internal",
    "fail_times": "resource_exhausted",
}


def names() -> list[str]:
    with SimulatorServer() as server:
        rows = httpx.get(server.url + "/_sim/scenarios", trust_env=False).json()
        return [row["name"] for row in rows if "connect" in row["protocols"]]


NAMES = names()


def test_the_tables_of_this_file_name_real_scenarios() -> None:
    assert {*ENDLESS, *NO_STREAM, *NOT_WHOLE, *NO_TRAILER, *TEXTS, *ERRORS} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ENDLESS])
def test_every_scenario_runs_and_leaves_no_stream(caller: Caller, name: str) -> None:
    play = "slow pause_s=0.1" if name == "slow" else name
    response = caller.post(pack(body()), **{"x-sim-scenario": play})
    assert response.status_code == NO_STREAM.get(name, 200)
    if name not in NO_STREAM:
        assert response.headers["content-type"] == "application/connect+json"
    assert caller.server.snapshot()["active_streams"] == 0
    for chat in caller.server.snapshot()["chats"]:
        assert chat["messages"][-1]["status"] == "MESSAGE_STATUS_COMPLETED"
    if name in NO_STREAM or name in NOT_WHOLE or name == "close_before_anything":
        return
    answer = Answer(response)
    if name in NO_TRAILER:
        assert all(flag == 0 for flag, _ in answer.frames)
    elif name in ERRORS:
        assert answer.trailer["error"]["code"] == ERRORS[name]
    else:
        assert answer.trailer in ({}, {"error": {}})
    if name in TEXTS:
        assert answer.text.startswith(TEXTS[name])


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_endless_scenarios_can_be_ended(caller: Caller, name: str) -> None:
    timeout = httpx.Timeout(5, read=0.3)
    if name == "heartbeats_only":
        with caller.stream("heartbeats_only every_s=0.01") as response:
            data = b""
            for chunk in response.iter_raw():
                data += chunk
                if data.count(b"heartbeat") > 5:
                    break
        assert data.endswith(pack(b'{"heartbeat":{}}'))
    else:
        headers = caller.headers(**{"x-sim-scenario": name})
        with pytest.raises(httpx.ReadTimeout):
            caller.http.post(CHAT, content=pack(body()), headers=headers, timeout=timeout)
    if name.startswith("hang"):
        assert caller.chat(play=f"{name} for_s=0.05").trailer == {}


def test_hang_before_headers_sends_none(caller: Caller) -> None:
    with caller.stream("hang_before_first_frame") as response:
        assert response.status_code == 200
        caller.resume()
        assert unpack(response.read())[-1] == (2, {})


@pytest.mark.parametrize("name", sorted({*NO_TRAILER, "close_before_anything", "truncated_frame", "oversized_header"}))
def test_abort_breaks_the_connection(caller: Caller, name: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        caller.post(pack(body()), **{"x-sim-scenario": f"{name} abort=1"})
    assert caller.server.snapshot()["active_streams"] == 0


def test_close_before_anything(caller: Caller) -> None:
    response = caller.post(pack(body()), **{"x-sim-scenario": "close_before_anything"})
    assert (response.status_code, response.content) == (200, b"")


def last_mask(answer: Answer) -> Any:
    last = answer.events[-1]
    return "done" if "done" in last else last["mask"]


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("close_after_done", "done"),
        ("close_after_completed", "message.status"),
        ("close_mid_text", "block.text.content"),
        ("close_before_text", "message"),
        ("done_then_error", "done"),
    ],
)
def test_where_it_breaks_off(caller: Caller, name: str, mask: str) -> None:
    assert last_mask(caller.chat(play=name)) == mask


def test_truncated_frame(caller: Caller) -> None:
    content = caller.post(pack(body()), **{"x-sim-scenario": "truncated_frame missing=7"}).content
    with pytest.raises(AssertionError, match="frame of"):
        unpack(content)
    assert content.endswith(b"in the middle of this fr")  # without ame"}}}


def test_oversized_header(caller: Caller) -> None:
    content = caller.post(pack(body()), **{"x-sim-scenario": "oversized_header length=16777216"}).content
    assert content.endswith(b"\x00\x01\x00\x00\x00" + b'{"heartbeat":{}}')


@pytest.mark.parametrize(("param", "last"), [("", (2, {})), ("in_trailer=1", (2, b"\xff\xfe not json"))])
def test_garbage(caller: Caller, param: str, last: tuple[int, Any]) -> None:
    frames = caller.chat(play=f"garbage {param}".strip()).frames
    assert (0, b'{"text":') in frames
    assert frames[-1] == last


def test_http_faults(caller: Caller) -> None:
    def play(name: str) -> httpx.Response:
        return caller.post(pack(body()), **{"x-sim-scenario": name})

    redirect = play("redirect status=307 to=https://elsewhere.invalid/x")
    assert (redirect.status_code, redirect.headers["location"]) == (307, "https://elsewhere.invalid/x")
    limited = play("rate_limited retry_after_s=17")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "17")
    assert limited.json()["code"] == "resource_exhausted"
    page = play("html_page status=504")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (504, "text/html")
    assert play("html_200").headers["content-type"].startswith("text/html")
    assert play("empty_200").content == b""
    assert play("no_envelopes").content.startswith(b"this body")
    assert caller.server.snapshot()["chats"] == []


STATUS = {
    "unavailable": 503,
    "deadline_exceeded": 504,
    "internal": 500,
    "unknown_error": 500,
    "permission_denied": 403,
    "not_found": 404,
    "quota": 429,
}


@pytest.mark.parametrize("name", sorted(STATUS))
def test_named_errors_choose_their_carrier(caller: Caller, name: str) -> None:
    response = caller.post(pack(body()), **{"x-sim-scenario": f"{name} carrier=http"})
    assert response.status_code == STATUS[name]
    trailer = caller.chat(play=f"{name} carrier=trailer after=Some%20text%2C%20").trailer
    assert trailer == {"error": response.json()}
    answer = caller.chat(play=f"{name} carrier=trailer after=Some%20text%2C%20")
    assert answer.text == "Some text, "


@pytest.mark.parametrize("carrier", ["trailer", "http", "exception"])
def test_context_too_long(caller: Caller, carrier: str) -> None:
    play = f"context_too_long carrier={carrier} reason=REASON_TOKEN_LENGTH"
    response = caller.post(pack(body()), **{"x-sim-scenario": play})
    assert b"REASON_TOKEN_LENGTH" in response.content
    assert response.status_code == (400 if carrier == "http" else 200)


def exceptions(answer: Answer) -> list[Any]:
    return [one["block"]["exception"] for one in answer.blocks if "exception" in one.get("block", {})]


def test_exceptions_before_text(caller: Caller) -> None:
    for name in ("overloaded_before_text", "moderated_before_text"):
        answer = caller.chat(play=name)
        assert answer.text == ""
        assert len(exceptions(answer)) == 1
        assert answer.trailer == {}
    answer = caller.chat(play="moderated reason=REASON_OTHER after=Hm")
    assert exceptions(answer)[0]["error"]["reason"] == "REASON_OTHER"
    assert answer.text == "Hm"


def test_event_level_errors(caller: Caller) -> None:
    answer = caller.chat(play="event_exception after=Hm")
    assert [one["exception"]["error"]["reason"] for one in answer.events if "exception" in one] == [
        "REASON_COMPLETION_OVERLOADED"
    ]
    answer = caller.chat(play="error_frame")
    assert {"error": {"code": "internal", "message": "internal error"}} in answer.events


@pytest.mark.parametrize("how", ["overloaded_trailer", "overloaded_before_text", "unavailable"])
def test_fails_n_times_then_answers(caller: Caller, other: Caller, how: str) -> None:
    play = f"fail_times n=2 how={how}"
    failed = ["", ""]
    assert [caller.chat(play=play).text for _ in range(2)] == failed
    assert other.chat(play=play).text == ""  # counted for each account
    assert caller.chat(play=f"{play} key=another").text == ""  # and each key
    assert caller.chat(play=play).text == "Answered after 2 failures."
    assert caller.chat(play=play).text == ""  # it starts again


def test_fail_times_with_http_errors(caller: Caller) -> None:
    answers = [caller.post(pack(body()), **{"x-sim-scenario": "fail_times n=1 how=rate_limited"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [429, 200]
    nonsense = caller.post(pack(body()), **{"x-sim-scenario": "fail_times how=fail_times"})
    assert nonsense.status_code == 400


def test_message_ids(caller: Caller) -> None:
    answer = caller.chat(play="message_ids")
    pieces: dict[str, str] = {}
    for event in answer.blocks:
        if "block" in event:
            owner = event["block"]["messageId"]
            pieces[owner] = pieces.get(owner, "") + event["block"]["text"]["content"]
    assert pieces.pop(answer.answer_id) == "Mine, still mine, mine to the end."
    assert "NOT MINE" in pieces.popitem()[1]


def test_no_message_id(caller: Caller) -> None:
    faces = caller.chat(play="no_message_id").faces
    assert "id" not in faces["assistant"]
    assert "id" in faces["user"]


def test_duplicate_offsets(caller: Caller) -> None:
    seen: dict[int, Any] = {}
    repeated = 0
    for event in caller.chat(play="duplicate_offsets").events:
        if "eventOffset" in event:
            repeated += event["eventOffset"] in seen
            assert seen.setdefault(event["eventOffset"], event) == event
    assert repeated == 3


def test_echo_words(caller: Caller) -> None:
    echo = caller.chat(play="echo_words").faces["user"]["blocks"][0]["text"]["content"]
    assert echo.startswith("Weather in Oslo?")
    assert "error" in echo
    assert "overloaded" in echo


@pytest.mark.parametrize("to", ["Hello there", "Bye"])
def test_replaced_text(caller: Caller, to: str) -> None:
    answer = caller.chat(play=f"replaced_text to={to.replace(' ', '%20')}")
    sets = [one["block"]["text"] for one in answer.blocks if one.get("op") == "set" and "text" in one.get("block", {})]
    assert sets == [{"content": "Hel"}, {"content": to}]
    kept = caller.unary("ListMessages", {"chat_id": answer.chat_id}).json()["messages"][0]["blocks"]
    assert kept[0]["text"]["content"] == to + "!"


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_split_keeps_every_byte(caller: Caller, size: int) -> None:
    with caller.stream(f"split size={size} of=split_markers") as response:
        chunks = list(response.iter_raw())
    answer = unpack(b"".join(chunks))
    assert answer[-1] == (2, {})
    if size == 1:
        assert any(chunk[:1] and not chunk.endswith(b"}") for chunk in chunks)
        assert len(chunks) > 20  # the loopback joins some; that it joins none is not promised


def test_split_of_an_http_answer(caller: Caller) -> None:
    assert caller.post(pack(body()), **{"x-sim-scenario": "split of=auth_http"}).status_code == 401


def test_slow_pauses_with_heartbeats(caller: Caller) -> None:
    answer = caller.chat(play="slow pause_s=0.3 heartbeat_s=0.1")
    assert sum("heartbeat" in one for one in answer.blocks) == 2


@pytest.mark.parametrize("batch", [1, 10, 64])
def test_fast(caller: Caller, batch: int) -> None:
    answer = caller.chat(play=f"fast frames=500 chars=7 batch={batch}")
    assert answer.text == "benchma" * 500
    assert answer.trailer == {}


def test_fast_at_a_rate(caller: Caller) -> None:
    assert caller.chat(play="fast frames=100 chars=5 rate=400 batch=10").text == "bench" * 100
    caller.in_steps("fast frames=100 chars=5 rate=0.001 batch=10", b"bench", (10, 20, 30))


def test_say_and_echo(caller: Caller) -> None:
    answer = caller.chat(play="say text=Hi%20%5B%5Bthere%5D%5D think=Hm%20hm piece=3")
    assert answer.text == "Hi [[there]]"
    thoughts = [one["block"]["think"]["content"] for one in answer.blocks if "think" in one.get("block", {})]
    assert thoughts == ["Hm ", "hm"]
    answer = caller.chat("Repeat me", play="echo", options={"system_prompt": "Be brief"})
    assert answer.text == "<system>Be brief</system>\nRepeat me"


Asking = Callable[[Caller], Answer]


@pytest.mark.parametrize(
    "ask",
    [
        lambda caller: caller.chat("Please [[scenario:say text=Yes%21]]"),
        lambda caller: caller.chat("[[scenario:quota]] old\n\nUser: new [[scenario:say  text=Yes!]] end"),
        lambda caller: caller.chat("[[scenario:say\ttext=Yes!]]", play="quota"),
        lambda caller: caller.chat(play="say text=Yes!"),
    ],
    ids=["directive", "last-directive", "before-header", "header"],
)
def test_choosing_by_request(caller: Caller, ask: Asking) -> None:
    assert ask(caller).text == "Yes!"


def test_choosing_by_queue(caller: Caller) -> None:
    caller.server.queue("say", times=2, text="Queued [1]]\n")
    caller.server.queue("quota", times=None)
    assert caller.chat(play="say text=Mine").text == "Mine"  # takes nothing from the queue
    assert [caller.chat().text for _ in range(2)] == ["Queued [1]]\n"] * 2
    assert [caller.chat().trailer["error"]["message"] for _ in range(3)] == ["quota used up"] * 3
    caller.server.queue(None)
    assert caller.chat().text.startswith("[simulator] ")


def test_bad_directive_in_the_prompt(caller: Caller) -> None:
    response = caller.post(pack(body("[[scenario:serch_turn]]")))
    assert response.status_code == 400
    assert "'serch_turn'; near: search_turn" in response.json()["message"]
