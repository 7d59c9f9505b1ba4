"""The model list in every shape, with what the service offers now, and the names that can be called."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import yaml
from google import genai
from google.genai import types

from kimi_provider.upstream import Upstream
from tests.harness import MASTER_KEY, Gateway, Simulator, shipped_config_without_limits

ASK = [{"role": "user", "content": "Hi"}]
HANDLER = {"custom_provider_map": [{"provider": "kimi", "custom_handler": "kimi_provider.litellm_bridge.handler"}]}
NONE_LOW = [{"effort": f"REASONING_EFFORT_{name}"} for name in ("NONE", "LOW")]
#: What the service adds: a chat model, an agent with other efforts, and two that nobody knows how to ask for.
ADDED: list[dict[str, Any]] = [
    {
        "scenario": "SCENARIO_CHAT",
        "displayName": "K4 Instant",
        "key": "k4",
        "id": "k4-chat",
        "reasoningEffortOptions": NONE_LOW,
    },
    {
        "scenario": "SCENARIO_OK_COMPUTER",
        "displayName": "K4",
        "kimiPlusId": "ok-computer",
        "agentMode": "TYPE_NORMAL",
        "key": "k4-agentic",
        "id": "K4-Agent",
        "reasoningEffortOptions": [{"effort": "REASONING_EFFORT_EXTREME"}],
    },
    {"scenario": "SCENARIO_SLIDES", "displayName": "Slides", "key": "slides", "id": "slides-1"},
    {"scenario": "SCENARIO_CHAT", "displayName": "No id", "key": "k5"},
    {"scenario": "SCENARIO_CHAT", "displayName": "Odd", "key": "odd", "id": "odd/*"},
]
NEW = {"kimi-k4-chat", "kimi-k4-agent"}

Started = Callable[..., Gateway]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Started]:
    """Starts gateways of their own: one that has never asked for the list."""
    open_gateways: list[Gateway] = []

    def start(models: list[dict[str, Any]] | None = None, live: str = "", url: str = "", **env: str) -> Gateway:
        tmp: Path = tmp_path_factory.mktemp("models")
        config = shipped_config_without_limits(tmp)
        if models is not None:
            general = {"master_key": "os.environ/LITELLM_MASTER_KEY"}
            config.write_text(
                yaml.safe_dump({"model_list": models, "litellm_settings": HANDLER, "general_settings": general})
            )
        (overlay := tmp / "overlay.yaml").write_text(f"retry: {{backoff_s: []}}\nlive_models: {{{live}}}\n")
        token = simulator_process.login("lister")["refresh_token"]
        env |= {"KIMI_UPSTREAM_FILE": str(overlay)}
        if url:
            env |= {"KIMI_BASE_URL": url}
        open_gateways.append(gateway := Gateway(tmp, simulator_process.url, token, config, **env))
        return gateway

    yield start
    for gateway in open_gateways:
        gateway.stop()


def listed(gateway: Gateway, path: str = "/v1/models", **headers: str) -> dict[str, dict[str, Any]]:
    answer = gateway.http.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    rows = answer.json().get("data") or answer.json()["models"]
    names = [row.get("id") or row["name"].removeprefix("models/") for row in rows]
    assert len(set(names)) == len(names), "no name twice"
    return dict(zip(names, rows, strict=True))


def live_calls(simulator: Simulator) -> int:
    return sum(r["path"].endswith("GetAvailableModels") for r in simulator.state()["requests"])


# --- the shipped configuration ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(started: Started, simulator_process: Simulator) -> Gateway:
    """Its list was asked for when the service had more models than the table."""
    simulator_process.reset()
    simulator_process.control("settings", more_models=ADDED)
    gateway = started()
    for _ in range(3):
        listed(gateway)
    assert live_calls(simulator_process) == 1, "the list is kept"
    return gateway


def test_the_list_has_the_table_and_what_the_service_added(shipped: Gateway) -> None:
    rows = listed(shipped)
    assert rows.keys() == {*Upstream.load().models, *NEW}
    for row in rows.values():
        assert (row["object"], row["owned_by"]) == ("model", "kimi")
        assert row["max_input_tokens"] == 262144
    assert listed(shipped, "/models").keys() == rows.keys()


def test_every_listed_model_can_be_called(shipped: Gateway, simulator: Simulator) -> None:
    simulator.control("settings", more_models=ADDED)
    for name in listed(shipped):
        answer = shipped.http.post("/v1/chat/completions", json={"model": name, "messages": ASK})
        # The demo account is on the free plan; the swarm needs another.
        assert answer.status_code == (403 if "swarm" in name else 200), (name, answer.text)
    by_model = {body["options"].get("model"): body for body in simulator.chat_bodies()}
    assert by_model["k4-chat"]["scenario"] == "SCENARIO_CHAT"
    assert by_model["k4-chat"]["options"]["reasoning_effort"] == "REASONING_EFFORT_NONE"
    assert by_model["K4-Agent"]["agent_mode"] == "TYPE_NORMAL"
    assert by_model["K4-Agent"]["kimiplus_id"] == "ok-computer"
    assert "reasoning_effort" not in by_model["K4-Agent"]["options"], "none of the efforts we know"


@pytest.mark.parametrize(
    ("name", "model", "tools"),
    [
        ("kimi/k4", "k4-chat", []),
        ("kimi/K4 Instant", "k4-chat", []),
        ("kimi-k4-chat-search", "k4-chat", ["TOOL_TYPE_SEARCH"]),
        ("kimi/k4-agentic", "K4-Agent", []),
        ("kimi-search-silent", "k2d6-chat", ["TOOL_TYPE_SEARCH"]),
        ("kimi-k2.6-thinking-search", "k2d6-chat", ["TOOL_TYPE_SEARCH"]),
        ("kimi/k3", "k3-agent", []),
        ("kimi/kimi-k2.6-research", None, ["TOOL_TYPE_ASK_USER"]),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1beta/models/{}"])
def test_names_behind_the_wildcard(
    shipped: Gateway, simulator: Simulator, path: str, name: str, model: str | None, tools: list[str]
) -> None:
    simulator.control("settings", more_models=ADDED)
    if path.startswith("/v1beta"):
        body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
        answer = shipped.http.post(path.format(name) + ":generateContent", json=body)
    else:
        answer = shipped.http.post(path, json={"model": name, "messages": ASK, "input": "Hi", "max_tokens": 4000})
    assert answer.status_code == 200, answer.text
    (body,) = simulator.chat_bodies()
    assert body["options"].get("model") == model
    assert [tool["type"] for tool in body["tools"]] == tools


def test_an_agent_id_reaches_the_older_generation(shipped: Gateway, simulator: Simulator) -> None:
    for name in ("kimi/cagent0translator000", "kimi/cagent0translator000-search", "kimi-k1"):
        answer = shipped.http.post("/v1/chat/completions", json={"model": name, "messages": ASK})
        assert answer.status_code == 200, answer.text
    sent = [r["body"] for r in simulator.state()["requests"] if r["path"].endswith("/completion/stream")]
    assert [(body["kimiplus_id"], body["use_search"]) for body in sent] == [
        ("cagent0translator000", False),
        ("cagent0translator000", True),
        ("crm40ee9e5jvhsn7ptcg", False),
    ]


def test_openais_client(shipped: Gateway) -> None:
    with openai.OpenAI(base_url=f"{shipped.url}/v1", api_key=MASTER_KEY, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == listed(shipped).keys()
        for name in ("kimi", "kimi-agent-swarm", "kimi-k4-chat"):
            model = client.models.retrieve(name)
            assert (model.id, model.object, model.owned_by) == (name, "model", "kimi")
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("kimi-nothing")


def test_anthropics_client(shipped: Gateway) -> None:
    with anthropic.Anthropic(base_url=shipped.url, api_key=MASTER_KEY, max_retries=0) as client:
        page = client.models.list()
        assert {model.id for model in page} == listed(shipped).keys()
        assert all(model.type == "model" and model.created_at for model in page)
        assert {model.id: model.display_name for model in page}["kimi-k3"] == "K3 (agent)"
        model = client.models.retrieve("kimi-k4-chat")
        assert (model.id, model.type, model.display_name) == ("kimi-k4-chat", "model", "K4 Instant")
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("kimi-nothing")


def test_googles_client(shipped: Gateway) -> None:
    client = genai.Client(api_key=MASTER_KEY, http_options=types.HttpOptions(base_url=shipped.url))
    found = {model.name: model for model in client.models.list(config={"page_size": 4})}
    assert found.keys() == {f"models/{name}" for name in listed(shipped)}
    model = client.models.get(model="kimi-k4-agent")
    assert (model.name, model.display_name, model.input_token_limit) == ("models/kimi-k4-agent", "K4", 262144)
    client.close()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize(
    ("name", "instead"),
    [("kimi-k2", "kimi-k2.6"), ("kimi-k2-thinking-search", "kimi-k2.6-thinking-search"), ("moonshot-v1-8k", "kimi")],
)
def test_a_retired_name_is_404_with_its_successor(shipped: Gateway, path: str, name: str, instead: str) -> None:
    body = {"model": name, "messages": ASK, "input": "Hi", "max_tokens": 4000}
    answer = shipped.http.post(path, json=body)
    assert answer.status_code == 404, answer.text
    assert f"retired: Kimi's web chat no longer has it. Use {instead}." in answer.text


def test_wildcards_are_healthy(shipped: Gateway) -> None:
    health = shipped.http.get("/health").json()
    assert health["unhealthy_count"] == 0, health


# --- other configurations ---------------------------------------------------------------------------------


def test_without_a_wildcard_only_the_rows_are_listed_and_kimi_is_not_asked(
    started: Started, simulator: Simulator
) -> None:
    simulator.control("settings", more_models=ADDED)
    gateway = started([{"model_name": "mine", "litellm_params": {"model": "kimi/kimi-k3"}}])
    rows = listed(gateway)
    assert rows.keys() == {"mine"}
    assert listed(gateway, **{"anthropic-version": "2023-06-01"})["mine"]["display_name"] == "K3 (agent)"
    assert live_calls(simulator) == 0
    answer = gateway.http.post("/v1/chat/completions", json={"model": "moonshot-v1-8k", "messages": ASK})
    assert answer.status_code == 404
    assert "Use kimi." in answer.text


def test_a_wildcard_of_any_name_lists_what_it_makes_callable(started: Started, simulator: Simulator) -> None:
    simulator.control("settings", more_models=ADDED)
    gateway = started(
        [
            {"model_name": "moon/*", "litellm_params": {"model": "kimi/*"}},
            {"model_name": "fast", "litellm_params": {"model": "kimi/k2d6"}},
            {"model_name": "always/*", "litellm_params": {"model": "kimi/kimi-k3"}},
        ]
    )
    table = {*Upstream.load().models, *NEW} - {"kimi-k2.6"}
    assert listed(gateway).keys() == {"fast", *(f"moon/{name}" for name in table)}
    assert listed(gateway, "/v1beta/models").keys() >= {"moon/kimi-k4-chat"}
    for name in ("moon/kimi-k4-chat", "moon/kimi-k3"):
        answer = gateway.http.post("/v1/chat/completions", json={"model": name, "messages": ASK})
        assert answer.status_code == 200, answer.text
        assert gateway.http.get(f"/v1/models/{name}").json()["id"] == name


def test_a_model_can_be_called_before_anyone_has_listed_it(started: Started, simulator: Simulator) -> None:
    simulator.control("settings", more_models=ADDED)
    gateway = started()
    answer = gateway.http.post("/v1/chat/completions", json={"model": "kimi/k4-chat", "messages": ASK})
    assert answer.status_code == 200, answer.text
    assert gateway.http.post("/v1/chat/completions", json={"model": "kimi/k9", "messages": ASK}).status_code == 404
    assert live_calls(simulator) == 1


def test_the_list_changes_when_it_was_kept_long_enough(started: Started, simulator: Simulator) -> None:
    gateway = started(live="keep_s: 0.001")
    before = listed(gateway).keys()
    assert not before & NEW
    simulator.control("settings", more_models=ADDED)
    assert listed(gateway).keys() == before | NEW
    simulator.control("settings", more_models=ADDED[:1])
    assert listed(gateway).keys() == before | {"kimi-k4-chat"}


def test_a_failing_live_call_leaves_the_table(started: Started, simulator: Simulator) -> None:
    simulator.control("settings", more_models=ADDED)
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    gateway = started(url=f"http://127.0.0.1:{port}")
    assert listed(gateway).keys() == Upstream.load().models.keys()
    assert listed(gateway, "/v1beta/models").keys() == Upstream.load().models.keys()


@contextmanager
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """Takes connections and never answers."""
    taken: list[socket.socket] = []
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                taken.append(server.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
        for connection in taken:
            connection.close()


def test_a_live_call_without_an_answer_is_not_waited_for(started: Started, simulator: Simulator) -> None:
    with silent_server() as (url, taken):
        gateway = started(live="wait_s: 0.2", url=url)
        assert listed(gateway).keys() == Upstream.load().models.keys()
        (connection,) = taken
        connection.settimeout(5)
        assert b"GetAvailableModels" in connection.recv(65536)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):  # still open: the list came while the call was waiting
            connection.recv(65536)


# --- efforts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "wish", "header"),
    [
        ("kimi", {"reasoning_effort": "high"}, None),
        ("kimi", {"reasoning_effort": "max"}, ("emulated", "reasoning_effort")),
        ("kimi-k3", {"reasoning_effort": "max"}, None),
        ("kimi-k3", {"reasoning_effort": "medium"}, ("emulated", "reasoning_effort")),
        ("kimi-k3", {"reasoning_effort": "none"}, ("ignored", "reasoning_effort")),
        ("kimi-research", {"reasoning_effort": "high"}, ("ignored", "reasoning_effort")),
    ],
)
def test_an_effort_kimi_does_not_do_is_named(
    shipped: Gateway,
    simulator: Simulator,
    model: str,
    wish: dict[str, Any],
    header: tuple[str, str] | None,
    stream: bool,
) -> None:
    body = {"model": model, "messages": ASK, "stream": stream, **wish}
    answer = shipped.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    named = {
        kind: value for kind in ("ignored", "emulated") if (value := answer.headers.get(f"llm_provider-x-kimi-{kind}"))
    }
    assert named == (dict([header]) if header else {})
