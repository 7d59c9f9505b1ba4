"""Which conversation a call belongs to, as LiteLLM tells it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kimi_provider.errors import BadRequest
from kimi_provider.litellm_bridge import conversing
from kimi_provider.litellm_bridge.conversing import Conversing


def read(params: dict[str, Any] | None = None, body: dict[str, Any] | None = None, **more: Any) -> Conversing:
    caller = {"body": body or {}, "headers": more.pop("headers", {})}
    return conversing.read(params or {}, {"proxy_server_request": caller, **more})


def test_without_a_word_there_is_none() -> None:
    nothing = Conversing(caller=None, conversation=None, previous_answer=None, lasts=False)
    assert read() == conversing.read({}, {}) == nothing


@pytest.mark.parametrize(
    ("params", "body"),
    [
        ({"conversation_id": "ours"}, {}),
        ({"conversation": "ours"}, {}),
        ({"conversation": {"id": "ours"}}, {}),
        ({}, {"metadata": {"conversation_id": "ours"}}),
    ],
)
def test_a_conversation_has_a_name(params: dict[str, Any], body: dict[str, Any]) -> None:
    assert read(params, body).conversation == "ours"


@pytest.mark.parametrize("name", [5, ["a"], "x" * 513])
def test_a_name_is_a_short_text(name: Any) -> None:
    with pytest.raises(BadRequest, match="conversation_id must be a text of at most 512"):
        read({"conversation_id": name})


def test_an_answer_is_known_by_the_id_it_left_with() -> None:
    wrapped = b"litellm:custom_llm_provider:kimi;model_id:abc;response_id:chatcmpl-1"
    for given in ("chatcmpl-1", "resp_" + base64.b64encode(wrapped).decode()):
        assert read(body={"input": "Hi", "previous_response_id": given}).previous_answer == "chatcmpl-1"


@pytest.mark.parametrize(
    ("body", "lasts"),
    [
        ({"input": "Hi"}, True),
        ({"input": "Hi", "store": True}, True),
        ({"input": "Hi", "store": False}, False),
        ({"messages": []}, False),
    ],
)
def test_an_answer_of_responses_may_be_named(body: dict[str, Any], lasts: bool) -> None:
    assert read(body=body).lasts is lasts


@pytest.mark.parametrize("header", ["x-litellm-session-id", "session-id", "session_id"])
def test_a_session_tells_that_there_will_be_more(header: str) -> None:
    found = read(headers={header: "s1"})
    assert (found.lasts, found.conversation) == (True, None)


def test_callers_differ_by_key_owner_and_user() -> None:
    fields = (
        "user_api_key_hash",
        "user_api_key_user_id",
        "user_api_key_team_id",
        "user_api_key_end_user_id",
    )
    callers = [read(metadata={field: value}).caller for field in fields for value in ("a", "b")]
    assert len(set(callers)) == len(callers)
    assert read(metadata={"user_api_key_hash": "a"}).caller == callers[0]
