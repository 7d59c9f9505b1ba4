"""Kimi added to somebody else's proxy with `model_list` and `custom_provider_map` alone.

Its own models must answer as they did without us, byte for byte; ours must work whatever its settings.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.harness import MASTER_KEY, ROOT, Process, Simulator, clean_environment, free_port
from tests.provider import KEY, OtherProvider

ASK = [{"role": "user", "content": "Hi"}]
KIMI_ROW = {"model_name": "kimi", "litellm_params": {"model": "kimi/kimi-latest"}}
OURS = {"custom_provider_map": [{"provider": "kimi", "custom_handler": "kimi_provider.litellm_bridge.handler"}]}


class BareLiteLLM(Process):
    """`litellm --config` as a stranger runs it, by this environment or by the one of `python`."""

    def __init__(self, tmp: Path, config: dict[str, Any] | str, *, python: Path | None = None, **env: str) -> None:
        tmp.mkdir(parents=True, exist_ok=True)
        (path := tmp / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-c", "from litellm import run_server; run_server()"]
        if python is not None:
            command = [str(python.with_name("litellm"))]
        else:
            env["PYTHONPATH"] = str(ROOT)
        command += ["--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
        environment = clean_environment(tmp, LITELLM_MASTER_KEY=MASTER_KEY, **env)
        super().__init__(command, tmp / "litellm.log", environment, tmp)
        self.wait_for(r"Uvicorn running on", 90)
        self.http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {MASTER_KEY}"}, trust_env=False, timeout=60
        )

    def stop(self) -> int:
        if hasattr(self, "http"):
            self.http.close()
        return super().stop()


def foreign_config(other: OtherProvider) -> dict[str, Any]:
    params = {"model": "openai/their-model", "api_base": other.url, "api_key": KEY, "input_cost_per_token": 1e-6}
    vllm = {"model": "hosted_vllm/their-llama", "api_base": other.url, "api_key": KEY}
    broken = {"model": "openai/broken", "api_base": "http://127.0.0.1:9", "api_key": KEY, "max_retries": 0}
    return {
        "model_list": [
            {"model_name": "theirs", "litellm_params": params},
            {"model_name": "their-llama", "litellm_params": vllm},
            {"model_name": "broken", "litellm_params": broken},
        ],
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }


@pytest.fixture(scope="module")
def other() -> Iterator[OtherProvider]:
    with OtherProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator, other: OtherProvider
) -> Iterator[tuple[BareLiteLLM, BareLiteLLM]]:
    """The same proxy without and with us."""
    alone = foreign_config(other)
    together = {**alone, "model_list": [*alone["model_list"], KIMI_ROW], "litellm_settings": OURS}
    token = simulator_process.login("guest")["refresh_token"]
    env = {"KIMI_BASE_URL": simulator_process.url, "KIMI_AUTH_URL": simulator_process.url, "KIMI_TOKEN": token}
    with ExitStack() as stack:
        without = stack.enter_context(BareLiteLLM(tmp_path_factory.mktemp("without"), alone))
        yield without, stack.enter_context(BareLiteLLM(tmp_path_factory.mktemp("with"), together, **env))


GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
FOUND = {"type": "search_result", "source": "x", "title": "T", "content": [{"type": "text", "text": "Hi"}]}
REQUESTS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/v1/chat/completions", {"model": "theirs", "messages": ASK}),
    ("POST", "/v1/chat/completions", {"model": "theirs", "messages": ASK, "stream": True}),
    ("POST", "/v1/chat/completions", {"model": "theirs", "messages": ASK, "tools": [TOOL], "temperature": 0.3}),
    ("POST", "/v1/chat/completions", {"model": "theirs", "messages": ASK, "reasoning_effort": "high"}),
    ("POST", "/v1/chat/completions", {"model": "their-llama", "messages": ASK, "thinking": {"type": "enabled"}}),
    ("POST", "/v1/chat/completions", {"model": "theirs", "messages": ASK, "conversation_id": "a"}),
    ("POST", "/v1/chat/completions", {"model": "theirs", "messages": []}),
    ("POST", "/v1/chat/completions", {"model": "broken", "messages": ASK}),
    ("POST", "/v1/chat/completions", {"model": "gpt-nothing", "messages": ASK}),
    ("POST", "/v1/messages", {"model": "theirs", "messages": ASK, "max_tokens": 4000}),
    ("POST", "/v1/messages", {"model": "theirs", "messages": [], "max_tokens": 4000}),
    ("POST", "/v1/messages", {"model": "their-llama", "messages": ASK, "max_tokens": 4000, "stream": True}),
    ("POST", "/v1/responses", {"model": "theirs", "input": "Hi"}),
    ("POST", "/v1/responses", {"model": "theirs", "input": "Hi", "stream": True}),
    ("POST", "/v1beta/models/theirs:generateContent", GEMINI),
    ("POST", "/v1beta/models/their-llama:generateContent", GEMINI),
    ("POST", "/v1beta/models/their-llama:streamGenerateContent?alt=sse", GEMINI),
    ("POST", "/v1beta/models/their-llama:streamGenerateContent", GEMINI),
    ("POST", "/v1beta/models/theirs:countTokens", GEMINI),
    ("POST", "/v1beta/models/broken:generateContent", GEMINI),
    ("POST", "/v1beta/models/nothing:generateContent", GEMINI),
    ("POST", "/v1/models/theirs:generateContent", GEMINI),
    ("POST", "/models/their-llama:generateContent", GEMINI),
    ("POST", "/v1/messages/count_tokens", {"model": "theirs", "messages": ASK, "tools": [{"name": "f"}]}),
    ("POST", "/v1/messages/count_tokens", {"model": "theirs", "messages": [{"role": "user", "content": [FOUND]}]}),
    ("POST", "/v1/responses/input_tokens", {"model": "theirs", "input": "Hi"}),
    ("POST", "/utils/token_counter", {"model": "theirs", "messages": ASK}),
    # What we refuse in requests to our models stays LiteLLM's business in theirs.
    ("POST", "/v1/chat/completions", {"model": "theirs", "messages": [{"role": "user", "content": [{"type": "x"}]}]}),
    ("POST", "/v1/messages", {"model": "theirs", "messages": ["Hi"], "max_tokens": 4000}),
    ("POST", "/v1/responses", {"model": "theirs", "input": [{"role": "user", "content": 5}]}),
    ("GET", "/v1/models/theirs", None),
    ("GET", "/health/readiness", None),
    ("GET", "/model/info?litellm_model_id=none", None),
    ("GET", "/nothing/here", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS, ids=lambda value: json.dumps(value)[:70])
def test_their_answers_are_byte_identical(
    both: tuple[BareLiteLLM, BareLiteLLM], other: OtherProvider, method: str, path: str, body: dict[str, Any] | None
) -> None:
    seen = []
    for proxy in both:
        other.reset()
        answer = proxy.http.request(method, path, json=body)
        received = {"bodies": other.bodies[:], "headers": sent(other)}
        seen.append({"status": answer.status_code, "body": constant(answer.text), **headers(answer), **received})
    without, together = seen
    differing = {name for name in without.keys() | together.keys() if without.get(name) != together.get(name)}
    assert {name: (without.get(name), together.get(name)) for name in differing} == {}


def test_their_prices_are_the_same(both: tuple[BareLiteLLM, BareLiteLLM]) -> None:
    tables = []
    for proxy in both:
        rows = proxy.http.get("/model/info").json()["data"]
        tables.append({row["model_name"]: row["model_info"] for row in rows if row["model_name"] != "kimi"})
    for table in tables:
        for info in table.values():
            info.pop("id", None)
    assert tables[0] == tables[1]


def constant(text: str) -> str:
    """`text` without what differs between any two calls."""
    text = re.sub(r"(chatcmpl-|resp_|msg_|litellm_call_id=|rs_)[\w=+/-]+", r"\1ID", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r'"(created|created_at|completed_at)": ?[\d.]+', r'"\1":0', text)
    return re.sub(r"127\.0\.0\.1:\d+", "HOST", text)


def headers(answer: httpx.Response) -> dict[str, str]:
    changing = r"(llm_provider-)?date|.*duration.*|.*call-id|.*model-id|content-length|.*timing.*|x-litellm-overhead.*"
    return {k: constant(v) for k, v in answer.headers.items() if not re.fullmatch(changing, k)}


def sent(other: OtherProvider) -> list[dict[str, str]]:
    return [{k: v for k, v in h.items() if k not in ("host", "content-length")} for h in other.headers]


# --- our models under a stranger's settings ---------------------------------------------------------------

ABSENT = {"model": "kimi/kimi-latest", "api_key": "os.environ/ABSENT_TOKEN"}
ABSENT_ROWS: list[dict[str, Any]] = [
    {"model_name": "absent", "litellm_params": ABSENT},
    {"model_name": "absent-numbered", "litellm_params": ABSENT, "model_info": {"id": "one"}},
]
EMPTY_ROW = {"model_name": "empty", "litellm_params": {"model": "kimi/kimi-latest", "api_key": None}}
SETTINGS: list[dict[str, Any]] = [{}, {"drop_params": True}, {"drop_params": False}]


@pytest.fixture(scope="module", params=SETTINGS, ids=["unset", "drop", "keep"])
def guest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator
) -> Iterator[BareLiteLLM]:
    logins = [simulator_process.login(f"guest-{number}") for number in range(2)]
    bad = {"model": "kimi/kimi-latest", "api_key": "os.environ/DEAD_TOKEN"}
    config = {
        "model_list": [KIMI_ROW, {"model_name": "dead", "litellm_params": bad}, *ABSENT_ROWS, EMPTY_ROW],
        "litellm_settings": {**OURS, **request.param},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    simulator_process.control("revoke", user="guest-1")
    env = {"KIMI_BASE_URL": simulator_process.url, "KIMI_AUTH_URL": simulator_process.url}
    env |= {"KIMI_TOKEN": logins[0]["refresh_token"], "DEAD_TOKEN": logins[1]["refresh_token"]}
    with BareLiteLLM(tmp_path_factory.mktemp("guest"), config, **env) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("path", "body", "thinking", "search"),
    [
        ("/v1/chat/completions", {"messages": ASK, "reasoning_effort": "high"}, True, False),
        (
            "/v1/chat/completions",
            {"messages": ASK, "thinking": {"type": "enabled", "budget_tokens": 2000}},
            True,
            False,
        ),
        ("/v1/chat/completions", {"messages": ASK, "web_search_options": {}}, False, True),
        ("/v1/chat/completions", {"messages": ASK, "use_search": True}, False, True),
        (
            "/v1/messages",
            {"messages": ASK, "max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
            True,
            False,
        ),
        ("/v1/responses", {"input": "Hi", "reasoning": {"effort": "high"}}, True, False),
        (
            "/v1beta/models/kimi:generateContent",
            {**GEMINI, "generationConfig": {"thinkingConfig": {"thinkingBudget": 9999}}},
            True,
            False,
        ),
        ("/v1beta/models/kimi:generateContent", {**GEMINI, "tools": [{"googleSearch": {}}]}, False, True),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_wishes_reach_us(
    guest: BareLiteLLM,
    simulator: Simulator,
    path: str,
    body: dict[str, Any],
    thinking: bool,
    search: bool,
    stream: bool,
) -> None:
    if "generateContent" in path:
        path, more = path.replace("generate", "streamGenerate") if stream else path, {}
    else:
        more = {"model": "kimi", "stream": stream}
    answer = guest.http.post(path, json={**body, **more})
    assert answer.status_code == 200, answer.text
    (sent_body,) = simulator.chat_bodies()
    assert sent_body["options"]["thinking"] is thinking
    assert bool(sent_body["tools"]) is search


def test_unknown_parameters_are_reported(guest: BareLiteLLM, simulator: Simulator) -> None:
    body = {"model": "kimi", "messages": ASK, "verbosity": "low", "seed": 1, "made_up": {"x": 1}, "top_k": 4}
    answer = guest.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    named = set(answer.headers["llm_provider-x-kimi-ignored"].split(","))
    assert named >= {"verbosity", "seed", "made_up", "top_k"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "generateContent"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_dead_token_names_its_cure_every_time(guest: BareLiteLLM, path: str, stream: bool) -> None:
    body: dict[str, Any] = {"model": "dead", "messages": ASK, "input": "Hi", "max_tokens": 4000, "stream": stream}
    if path == "generateContent":
        path, body = f"/v1beta/models/dead:{'streamGenerateContent' if stream else path}", GEMINI
    for _ in range(4):
        answer = guest.http.post(path, json=body)
        assert answer.status_code == 401, answer.text
        assert "private window" in answer.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "generateContent"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", [row["model_name"] for row in ABSENT_ROWS])
def test_the_pool_never_answers_for_an_account_that_is_not_there(
    guest: BareLiteLLM, simulator: Simulator, model: str, path: str, stream: bool
) -> None:
    body: dict[str, Any] = {"model": model, "messages": ASK, "input": "Hi", "max_tokens": 4000, "stream": stream}
    if path == "generateContent":
        path, body = f"/v1beta/models/{model}:{'streamGenerateContent' if stream else path}", GEMINI
    answer = guest.http.post(path, json=body)
    assert answer.status_code == 401, answer.text
    assert f"ABSENT_TOKEN that '{model}' names as its api_key is not set" in answer.text
    assert "KIMI_TOKEN" in answer.text
    assert simulator.state()["total_streams"] == 0


def test_an_api_key_that_is_left_empty_means_any_account(guest: BareLiteLLM, simulator: Simulator) -> None:
    assert guest.http.post("/v1/chat/completions", json={"model": "empty", "messages": ASK}).status_code == 200
    assert simulator.state()["total_streams"] == 1
    assert "'empty'" not in guest.output


def test_the_start_names_the_variables_that_are_not_set(guest: BareLiteLLM) -> None:
    for row in ABSENT_ROWS:
        words = f"ABSENT_TOKEN that '{row['model_name']}' names as its api_key is not set: it can't answer."
        assert f"kimi-provider: {words}" in guest.output
