"""Chats that go on: what the model then sees, what is refused, what is counted; and chats that won't go away."""

from __future__ import annotations

from typing import Any

import pytest

from .sse import RestCaller, completion, stream_of
from .wire import Answer, Caller, body, pack

DELETE = "/apiv2/{}/DeleteChat"
SERVICES = ("kimi.gateway.chat.v1.ChatService", "kimi.chat.v1.ChatService")


def recall(caller: Caller, before: Answer) -> list[str]:
    """What the model sees in a chat after `before`."""
    return caller.go_on(before, "What do you know?", play="recall").text.splitlines()


def test_a_branch_knows_what_led_to_it_and_nothing_else(caller: Caller) -> None:
    first = caller.chat("This is note one", play="say text=And%20note%20two")
    second = caller.go_on(first, "This is note three", play="say")
    other = caller.go_on(first, "This is note four", play="say")
    assert recall(caller, second) == ["note one", "note two", "note three"]
    assert recall(caller, other) == ["note one", "note two", "note four"]
    assert caller.chat("Something else", play="recall").text == "Nothing."


def test_the_system_prompt_is_seen_in_its_own_call_only(caller: Caller) -> None:
    first = caller.chat("Hi", play="recall", options={"system_prompt": "note zero"})
    assert first.text == "note zero"
    assert recall(caller, first) == ["note zero"]  # it said so itself
    assert caller.chat("Hi", play="recall").text == "Nothing."


def test_the_older_protocol_goes_on_at_the_newest_message(rest: RestCaller) -> None:
    chat_id = rest.new_chat()
    rest.complete(chat_id, "note one", play="say text=note%20two")
    assert rest.complete(chat_id, "note three", play="recall").text.splitlines() == [
        "note one",
        "note two",
        "note three",
    ]
    assert rest.ask("Something else", play="recall").text == "Nothing."


def test_a_deleted_chat_does_not_go_on(rest: RestCaller, caller: Caller) -> None:
    chat_id = rest.new_chat()
    rest.complete(chat_id)
    assert rest.delete(f"/api/chat/{chat_id}").status_code == 200
    assert (refused := rest.complete(chat_id)).status == 404
    assert refused.error_type == "chat.not_found"
    answer = caller.chat()
    assert caller.unary("DeleteChat", {"chat_id": answer.chat_id}).status_code == 200
    assert caller.go_on(answer, "Still there?").trailer["error"]["code"] == "not_found"
    assert len(caller.server.snapshot()["calls"]) == 2  # what is refused is no answer


def test_what_a_call_uploads_is_counted(rest: RestCaller, caller: Caller) -> None:
    first = caller.chat("x" * 3000)
    second = caller.go_on(first, "y")
    chat_id = rest.new_chat()
    third = rest.complete(chat_id, "z")
    calls = caller.server.snapshot()["calls"]
    sent: list[Any] = [len(one.response.request.content) for one in (first, second, third)]
    assert [one["uploaded_bytes"] for one in calls] == sent
    assert sent[0] == len(pack(body("x" * 3000))) > 3000 > sent[1]
    assert [one["chat_id"] for one in calls] == [first.chat_id, first.chat_id, chat_id]
    assert [one["message_id"] for one in calls] == [first.answer_id, second.answer_id, third.answer_id]
    requests = [one for one in caller.server.snapshot()["requests"] if one["path"] == stream_of(chat_id)]
    assert [one["body"] for one in requests] == [completion("z")]
    assert [one["body_bytes"] for one in requests] == sent[2:]


def test_who_made_a_chat(rest: RestCaller, caller: Caller) -> None:
    (owners,) = caller.server.make_chats("ada")
    mine, old = caller.chat().chat_id, rest.new_chat()
    made = {chat["id"]: chat["creator"] for chat in caller.server.snapshot()["chats"]}
    assert made == {owners: "owner", mine: "connect", old: "rest"}


def test_the_owners_chats_go_on_over_the_protocol_of_their_ids(rest: RestCaller, caller: Caller) -> None:
    (new,) = caller.server.make_chats("ada")
    (old,) = caller.http.post("/_sim/chats", json={"user": "ada", "legacy": True}).json()["ids"]
    assert caller.http.post("/_sim/chats", json={"user": "ada", "legacy": "no"}).status_code == 400
    assert rest.complete(new).error_type == "chat.not_found"
    assert rest.complete(old, play="recall word=question").text == "question 1"
    # Without a parent it goes on at the newest message (protocol C.2).
    assert caller.chat(chat_id=new, play="recall word=question").text == "question 1"
    newest = caller.unary("ListMessages", {"chat_id": new, "page_size": 1}).json()["messages"][0]
    again = caller.chat(
        chat_id=new, message=body()["message"] | {"parent_id": newest["id"]}, play="recall word=question"
    )
    assert again.text.splitlines() == ["question 1", "question 1"]  # the owner's, and the model's own answer


@pytest.mark.parametrize("service", SERVICES)
def test_deletions_can_fail_for_a_while(rest: RestCaller, caller: Caller, service: str) -> None:
    chat_id, old = caller.chat().chat_id, rest.new_chat()
    caller.server.change(deletion_fails=True)
    refused = caller.unary(DELETE.format(service), {"chat_id": chat_id})
    assert (refused.status_code, refused.json()["code"]) == (500, "internal")
    assert rest.delete(f"/api/chat/{old}").status_code == 500
    assert len(caller.server.snapshot()["chats"]) == 2
    assert caller.unary(DELETE.format(service), {"chat_id": "0198a000"}).status_code == 404
    caller.server.change(deletion_fails=False)
    assert caller.unary(DELETE.format(service), {"chat_id": chat_id}).status_code == 200
    assert rest.delete(f"/api/chat/{old}").status_code == 200
    assert caller.server.snapshot()["deleted"] == [chat_id, old]
