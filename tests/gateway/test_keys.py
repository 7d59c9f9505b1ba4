"""Keys, limits, hooks and the root path: each of our routes behaves as /v1/chat/completions does.

Keys come from LiteLLM's `custom_auth`, so that a key that is no admin's is among them.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import Gateway, Simulator, shipped_config_without_limits

ROOT_PATH = "/llm"
HOOKS = """
import json, os
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

async def auth(request, api_key):
    limits = {"sk-one-model": {"models": ["kimi"]}, "sk-slow": {"rpm_limit": 2}, "sk-slow-too": {"rpm_limit": 2}}
    if (api_key or "").startswith("sk-slow-"):
        limits[api_key] = {"rpm_limit": 2}
    if api_key not in {"sk-free", *limits}:
        raise HTTPException(401, "unknown key")
    return UserAPIKeyAuth(api_key=api_key, user_role=LitellmUserRoles.INTERNAL_USER, **limits.get(api_key, {}))

class Hooks(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if "forbidden" in json.dumps(data.get("messages") or ""):
            raise HTTPException(403, {"error": "the guardrail says no"})
        return data

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        response.choices[0].message.content += " [checked]"
        return response

    async def async_post_call_streaming_iterator_hook(self, user_api_key_dict, response, request_data):
        async for chunk in response:
            if chunk.choices and chunk.choices[0].delta.content:
                chunk.choices[0].delta.content = chunk.choices[0].delta.content.replace("Hello", "HELLO")
            yield chunk

    def _write(self, kind, kwargs):
        slo = kwargs.get("standard_logging_object") or {}
        row = {"kind": kind, "group": slo.get("model_group"), "tokens": slo.get("total_tokens")}
        row["end_user"] = slo.get("end_user")
        with open(os.environ["SEEN_FILE"], "a") as out:
            out.write(json.dumps(row) + "\\n")

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self._write("success", kwargs)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self._write("failure", kwargs)

hooks = Hooks()
"""
SETTINGS = """
general_settings:
  custom_auth: test_hooks.auth
  custom_auth_run_common_checks: true
"""


@dataclass(frozen=True)
class Route:
    name: str
    path: str
    answers: bool = True
    stream: bool = False

    def ask(
        self, gateway: Gateway, key: str, *, model: str = "kimi", text: str = "Hello", **headers: str
    ) -> httpx.Response:
        url = ROOT_PATH + self.path.format(model=model)
        headers = {"authorization": f"Bearer {key}", **headers}
        if "models" in self.path and ":" not in self.path:
            return gateway.http.get(url, headers=headers)
        if self.path.startswith("/v1/chat"):
            body: dict[str, Any] = {
                "model": model,
                "stream": self.stream,
                "messages": [{"role": "user", "content": text}],
            }
        else:
            body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        return gateway.http.post(url, json=body, headers=headers)


CHAT = Route("chat", "/v1/chat/completions")
CHAT_STREAM = Route("chat-stream", "/v1/chat/completions", stream=True)
GENERATE = [
    Route("generate", "/v1beta/models/{model}:generateContent"),
    Route("generate-v1", "/v1/models/{model}:generateContent"),
    Route("generate-bare", "/models/{model}:generateContent"),
    Route("stream", "/v1beta/models/{model}:streamGenerateContent?alt=sse", stream=True),
    Route("stream-v1", "/v1/models/{model}:streamGenerateContent", stream=True),
    Route("stream-bare", "/models/{model}:streamGenerateContent?alt=sse", stream=True),
]
COUNT = [
    Route("count", "/v1beta/models/{model}:countTokens", answers=False),
    Route("count-v1", "/v1/models/{model}:countTokens", answers=False),
    Route("count-bare", "/models/{model}:countTokens", answers=False),
]
LISTS = [Route("list", "/v1beta/models", answers=False), Route("get", "/v1beta/models/{model}", answers=False)]
ANSWERS = [CHAT, CHAT_STREAM, *GENERATE]
ALL = [*ANSWERS, *COUNT, *LISTS]


@pytest.fixture(scope="module")
def keyed_process(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    tmp: Path = tmp_path_factory.mktemp("keyed")
    (tmp / "test_hooks.py").write_text(textwrap.dedent(HOOKS))
    config = shipped_config_without_limits(tmp)
    text = config.read_text().replace("general_settings:\n", SETTINGS.lstrip())
    text = text.replace("  master_key: os.environ/LITELLM_MASTER_KEY\n", "")
    text = text.replace(
        "litellm_settings:\n",
        "litellm_settings:\n  callbacks: test_hooks.hooks\n  enable_post_custom_auth_checks: true\n",
    )
    config.write_text(text)
    env = {"SEEN_FILE": str(tmp / "seen.jsonl"), "SERVER_ROOT_PATH": ROOT_PATH, "PYTHONPATH": str(tmp)}
    token = simulator_process.login("keyed")["refresh_token"]
    with Gateway(tmp, simulator_process.url, token, config, **env) as gateway:
        gateway.seen = tmp / "seen.jsonl"
        yield gateway


@pytest.fixture
def keyed(keyed_process: Gateway, simulator: Simulator) -> Gateway:
    keyed_process.seen.write_text("")
    return keyed_process


def by_name(route: Route) -> str:
    return route.name


@pytest.mark.parametrize("route", ALL, ids=by_name)
def test_a_key_that_is_no_admins_is_enough(keyed: Gateway, route: Route) -> None:
    answer = route.ask(keyed, "sk-free")
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("route", ALL, ids=by_name)
def test_an_unknown_key_is_refused(keyed: Gateway, simulator: Simulator, route: Route) -> None:
    answer = route.ask(keyed, "sk-stranger")
    assert answer.status_code == 401, answer.text
    assert simulator.state()["total_streams"] == 0


@pytest.mark.parametrize("route", [*ANSWERS, *COUNT], ids=by_name)
def test_the_keys_model_list_holds(keyed: Gateway, simulator: Simulator, route: Route) -> None:
    assert route.ask(keyed, "sk-one-model").status_code == 200
    before = simulator.state()["total_streams"]
    refused = route.ask(keyed, "sk-one-model", model="kimi-k2.6")
    assert refused.status_code in (401, 403), refused.text
    assert simulator.state()["total_streams"] == before


def test_the_lists_show_what_the_key_may_use(keyed: Gateway) -> None:
    listing, one = LISTS
    assert [m["name"] for m in listing.ask(keyed, "sk-one-model").json()["models"]] == ["models/kimi"]
    assert len(listing.ask(keyed, "sk-free").json()["models"]) >= 10
    assert one.ask(keyed, "sk-one-model").status_code == 200
    assert one.ask(keyed, "sk-one-model", model="kimi-k2.6").status_code == 404


@pytest.mark.parametrize("route", ANSWERS, ids=by_name)
def test_requests_per_minute_are_counted(keyed: Gateway, route: Route) -> None:
    key = f"sk-slow-{route.name}"
    statuses = [route.ask(keyed, key).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = route.ask(keyed, key)
    assert int(refused.headers["retry-after"]) > 0
    if route not in (CHAT, CHAT_STREAM):
        assert refused.json()["error"]["status"] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("route", ANSWERS, ids=by_name)
def test_hooks_see_requests_and_answers(keyed: Gateway, simulator: Simulator, route: Route) -> None:
    refused = route.ask(keyed, "sk-free", text="something forbidden")
    assert refused.status_code == 403, refused.text
    assert "the guardrail says no" in refused.text
    assert not simulator.chat_bodies()
    answer = route.ask(keyed, "sk-free")
    assert ("HELLO" if route.stream else "[checked]") in answer.text


@pytest.mark.parametrize("route", ANSWERS, ids=by_name)
def test_callbacks_get_group_tokens_and_end_user(keyed: Gateway, simulator: Simulator, route: Route) -> None:
    route.ask(keyed, "sk-free", **{"x-litellm-end-user-id": "ada"})
    simulator.scenario("paywall", times=None)
    assert route.ask(keyed, "sk-free").status_code == 403
    rows = wait_for_rows(keyed, 2)
    assert [row["kind"] for row in rows] == ["success", "failure"]
    assert rows[0]["group"] == "kimi"
    assert rows[0]["tokens"] > 0
    assert rows[0]["end_user"] == "ada"


def test_own_pages_live_below_the_root_path(keyed: Gateway) -> None:
    assert keyed.http.get(f"{ROOT_PATH}/ping").text == "pong"
    page = keyed.http.get(f"{ROOT_PATH}/kimi").text
    assert f"{keyed.url}{ROOT_PATH}/v1/chat/completions" in page
    sheet = httpx.URL(f"{keyed.url}{ROOT_PATH}/kimi").join("kimi/static/kimi.css")
    assert keyed.http.get(sheet).status_code == 200


def wait_for_rows(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    import time

    give_up_at = time.monotonic() + 10
    while True:
        rows = [json.loads(line) for line in gateway.seen.read_text().splitlines()]
        if len(rows) >= count:
            return rows
        assert time.monotonic() < give_up_at, rows
        time.sleep(0.05)
