"""Running streams: the limit, clients that leave, and cancelling."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from .wire import CHAT, Answer, Caller, body, pack, unpack

LIMIT_S = 30.0


def until_free(caller: Caller) -> None:
    """Wait until no stream runs."""
    _until(lambda: not caller.server.state.streams.active, "the stream is still counted")


def until_running(caller: Caller) -> None:
    _until(lambda: bool(caller.server.state.streams.active), "no stream runs")


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    give_up_at_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_at_s, otherwise
        time.sleep(0.002)


def until_opened(response: httpx.Response) -> Iterator[bytes]:
    """Read past the opening. The iterator must be kept: dropping it closes the response."""
    chunks, data = response.iter_raw(), b""
    while b"assistant" not in data:
        data += next(chunks)
    return chunks


def test_the_limit_is_per_account(caller: Caller, other: Caller) -> None:
    with ExitStack() as running:
        for _ in range(2):
            running.enter_context(caller.stream("hang_mid_text"))
        refused = caller.chat()
        assert refused.frames == [
            (2, {"error": {"code": "resource_exhausted", "message": "too many concurrent requests"}})
        ]
        assert other.chat().trailer == {}
        state = caller.server.snapshot()
        assert state["active_streams"] == 2
        assert state["active_by_account"] == {caller.tokens["user_id"]: 2}
        assert state["peak_streams"] == 3
        assert state["total_streams"] == 3
    until_free(caller)
    assert caller.chat().trailer == {}


def test_the_limit_is_a_setting(caller: Caller) -> None:
    caller.server.change(max_streams=1)
    with caller.stream("hang_mid_text"):
        assert caller.chat().trailer["error"]["code"] == "resource_exhausted"
    until_free(caller)


def test_a_finished_stream_is_free_at_once(caller: Caller) -> None:
    caller.server.change(max_streams=1)
    for _ in range(50):
        with caller.stream("say") as response:
            data = b""
            for chunk in response.iter_raw():
                data += chunk
                if data.endswith(pack(b"{}", 2)):
                    break
            assert caller.server.state.streams.active == 0
    assert caller.server.snapshot()["peak_streams"] == 1


@pytest.mark.parametrize(
    "play",
    [
        "fast frames=1000000 rate=200",
        "fast frames=100000000 chars=2000",
        "slow pause_s=600",
        "slow pause_s=600 heartbeat_s=200",
        "heartbeats_only every_s=600",
        "hang_mid_text",
        "hang_before_first_frame",
    ],
)
def test_a_client_that_leaves_frees_the_stream(caller: Caller, play: str) -> None:
    with caller.stream(play) as response:
        assert response.status_code == 200
        if "first_frame" not in play:
            _kept = until_opened(response)
        until_running(caller)
    until_free(caller)
    assert bool(caller.server.snapshot()["chats"]) is ("first_frame" not in play)
    for chat in caller.server.snapshot()["chats"]:
        assert chat["messages"][-1]["status"] == "MESSAGE_STATUS_COMPLETED"


def test_a_client_that_leaves_before_the_headers(caller: Caller) -> None:
    headers = caller.headers(**{"x-sim-scenario": "hang_before_headers"})
    with pytest.raises(httpx.ReadTimeout):
        caller.http.post(CHAT, content=pack(body()), headers=headers, timeout=httpx.Timeout(5, read=0.2))
    until_free(caller)


def test_a_demo_at_natural_speed_notices_too(caller: Caller) -> None:
    caller.server.change(pace=10_000)
    with caller.stream("demo") as response:
        _kept = until_opened(response)
        until_running(caller)
    until_free(caller)


def test_cancel_ends_the_stream_and_the_message_reads_completed(caller: Caller) -> None:
    with caller.stream("hang_mid_text") as response:
        chunks = response.iter_raw()
        data = b""
        while b"Then silence" not in data:
            data += next(chunks)
        events = [event for _, event in unpack(data)]
        chat_id = next(event["chat"]["id"] for event in events if "chat" in event)
        message_id = [event["message"]["id"] for event in events if "message" in event][-1]
        elsewhere = caller.unary("CancelChat", {"chat_id": chat_id, "message_id": "another"})
        assert elsewhere.json() == {}
        assert caller.server.state.streams.active == 1
        assert caller.unary("CancelChat", {"chatId": chat_id, "messageId": message_id}).json() == {}
        rest = [value for _, value in unpack(b"".join(chunks))]
    assert [value.get("mask") for value in rest] == ["message.status", "chat.name", None, None]
    assert rest[-1] == {}
    until_free(caller)
    newest = caller.unary("ListMessages", {"chat_id": chat_id}).json()["messages"][0]
    assert newest["status"] == "MESSAGE_STATUS_COMPLETED"
    assert {"chat_id": chat_id, "message_id": message_id} in caller.server.snapshot()["cancelled"]


def test_cancel_before_the_first_frame(caller: Caller) -> None:
    first = caller.chat()
    answers: list[Answer] = []

    def ask() -> None:
        headers = caller.headers(**{"x-sim-scenario": "hang_before_first_frame"})
        content = pack(body(chat_id=first.chat_id))
        with httpx.Client(base_url=caller.server.url, trust_env=False) as http:
            answers.append(Answer(http.post(CHAT, content=content, headers=headers)))

    asking = threading.Thread(target=ask)
    asking.start()
    until_running(caller)
    assert caller.unary("CancelChat", {"chat_id": first.chat_id, "message_id": ""}).json() == {}
    asking.join(LIMIT_S)
    assert answers[0].trailer == {}


def test_resume_ends_a_pause(caller: Caller) -> None:
    with caller.stream("slow pause_s=600") as response:
        chunks, data = response.iter_raw(), b""
        while b"Before the pause" not in data:
            data += next(chunks)
        caller.resume()
        rest = unpack(b"".join(chunks))
    assert rest[-1] == (2, {})
    assert any("after the pause." in str(value) for _, value in rest)


def test_reset_breaks_off_what_runs(caller: Caller) -> None:
    with caller.stream("hang_mid_text") as response:
        reading = until_opened(response)
        caller.server.reset()
        assert caller.server.snapshot()["active_streams"] == 0
        with pytest.raises(httpx.RemoteProtocolError):
            list(reading)
