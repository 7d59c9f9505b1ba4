"""Searches and citations as data on all four surfaces, by the official SDKs, streamed and whole, for both protocols."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.harness import MASTER_KEY, Gateway, Simulator, quick_overlay, shipped_config_without_limits

ASK = [{"role": "user", "content": "Weather in Oslo?"}]
OSLO, BERGEN = "https://example.com/oslo", "https://example.com/bergen"
#: What each scenario says to a reader of data, and the pages behind its marks.
SEARCH_TURN = ("Rain today, about 9 °C.[1]", [OSLO])
CARETS = ("Rain in Oslo[1], sun in Bergen[2], nothing known of Voss.", [OSLO, BERGEN])
LIST = "\n\n[1] Oslo forecast: https://example.com/oslo"
WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
_ROWS = """model_list:
  - model_name: kimi-search-silent
    litellm_params: { model: kimi/kimi-search-silent }
  - model_name: kimi-search-thinking
    litellm_params: { model: kimi/kimi-search-thinking, allow_client_keepalive_override: true }
"""


@pytest.fixture(scope="module", params=["connect", "rest"])
def searching(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator
) -> Iterator[Gateway]:
    tmp = tmp_path_factory.mktemp("searching")
    config = shipped_config_without_limits(tmp)
    text = config.read_text("utf-8").replace("model_list:\n", _ROWS, 1)
    config.write_text(
        text.replace("litellm_settings:\n", "litellm_settings:\n  anthropic_sse_ping_interval_seconds: 1\n")
    )
    (overlay := tmp / "overlay.yaml").write_text(quick_overlay(tmp).read_text().replace("{", "{keepalive_s: 1, ", 1))
    token = simulator_process.login(f"search-{request.param}")["refresh_token"]
    more = {"KIMI_PROTOCOL": request.param, "KIMI_UPSTREAM_FILE": str(overlay)}
    with Gateway(tmp, simulator_process.url, token, config, **more) as gateway:
        gateway.protocol = request.param
        yield gateway


@pytest.fixture
def oai(searching: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{searching.url}/v1", api_key=MASTER_KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(searching: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=searching.url, api_key=MASTER_KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def google(searching: Gateway) -> Iterator[genai.Client]:
    client = genai.Client(api_key=MASTER_KEY, http_options=types.HttpOptions(base_url=searching.url))
    yield client
    client.close()


def assert_marks(text: str, places: list[Any], urls: list[str]) -> None:
    """Each place is that of its mark: number by first use, no mark without a place."""
    numbers = {url: number for number, url in enumerate(dict.fromkeys(urls), start=1)}
    assert [text[p.start_index : p.end_index] for p in places] == [f"[{numbers[p.url]}]" for p in places]
    assert [p.url for p in places] == urls
    assert len(re.findall(r"\[\d+\]", text)) == len(places)
    assert all(p.title for p in places)


CASES = pytest.mark.parametrize(
    ("scenario", "said"), [("search_turn", SEARCH_TURN), ("caret_citations", CARETS)], ids=["one", "two"]
)


@CASES
def test_chat_whole(oai: openai.OpenAI, simulator: Simulator, scenario: str, said: tuple[str, list[str]]) -> None:
    simulator.scenario(scenario)
    answer = oai.chat.completions.create(model="kimi", messages=ASK, web_search_options={})
    message = answer.choices[0].message
    assert message.content == said[0]
    assert_marks(said[0], [a.url_citation for a in message.annotations], said[1])
    found = message.provider_specific_fields["search_results"]
    assert [page["url"] for page in found] == said[1]


@CASES
def test_chat_streamed(oai: openai.OpenAI, simulator: Simulator, scenario: str, said: tuple[str, list[str]]) -> None:
    simulator.scenario(scenario)
    chunks = list(oai.chat.completions.create(model="kimi", messages=ASK, web_search_options={}, stream=True))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == said[0]
    annotations = [a for delta in deltas for a in getattr(delta, "annotations", None) or ()]
    places = [SimpleNamespace(**a["url_citation"]) for a in annotations]
    assert {a["type"] for a in annotations} == {"url_citation"}
    assert_marks(said[0], places, said[1])


@CASES
def test_responses_whole(oai: openai.OpenAI, simulator: Simulator, scenario: str, said: tuple[str, list[str]]) -> None:
    simulator.scenario(scenario)
    answer = oai.responses.create(model="kimi", input="Weather?", tools=[{"type": "web_search"}])
    assert answer.output_text == said[0]
    (message,) = [item for item in answer.output if item.type == "message"]
    assert_marks(said[0], message.content[0].annotations, said[1])


@CASES
def test_responses_streamed(
    oai: openai.OpenAI, simulator: Simulator, scenario: str, said: tuple[str, list[str]]
) -> None:
    simulator.scenario(scenario)
    tools = [{"type": "web_search_preview"}]
    events = list(oai.responses.create(model="kimi", input="Weather?", tools=tools, stream=True))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == said[0]
    added = [e for e in events if e.type == "response.output_text.annotation.added"]
    assert [e.annotation_index for e in added] == list(range(len(said[1])))
    assert_marks(text, [SimpleNamespace(**e.annotation) for e in added], said[1])
    (message,) = [item for item in events[-1].response.output if item.type == "message"]
    assert_marks(text, message.content[0].annotations, said[1])


def assert_blocks(content: list[Any], said: tuple[str, list[str]]) -> None:
    """One search before the text, every citation in the text block that ends with its mark."""
    kinds = [block.type for block in content if block.type != "thinking"]
    assert kinds[:2] == ["server_tool_use", "web_search_tool_result"]
    assert set(kinds[2:]) == {"text"}
    call, result = (block for block in content if block.type in ("server_tool_use", "web_search_tool_result"))
    assert result.tool_use_id == call.id
    assert [page.url for page in result.content] == said[1]
    texts = [block for block in content if block.type == "text"]
    assert "".join(block.text for block in texts) == said[0]
    cited = [block for block in texts if block.citations]
    assert [citation.url for block in cited for citation in block.citations] == said[1]
    for number, block in enumerate(cited, start=1):
        assert block.text.endswith(f"[{number}]")
        assert {citation.type for citation in block.citations} == {"web_search_result_location"}


@CASES
def test_messages_whole(
    claude: anthropic.Anthropic, simulator: Simulator, scenario: str, said: tuple[str, list[str]]
) -> None:
    simulator.scenario(scenario)
    answer = claude.messages.create(model="kimi", max_tokens=4000, messages=ASK, tools=[WEB_SEARCH])
    assert_blocks(answer.content, said)
    assert answer.stop_reason == "end_turn"
    assert answer.usage.server_tool_use.web_search_requests == 1


@CASES
def test_messages_streamed(
    claude: anthropic.Anthropic, simulator: Simulator, scenario: str, said: tuple[str, list[str]]
) -> None:
    simulator.scenario(scenario)
    with claude.messages.stream(model="kimi", max_tokens=4000, messages=ASK, tools=[WEB_SEARCH]) as stream:
        events = [event.type for event in stream]
        answer = stream.get_final_message()
    assert_blocks(answer.content, said)
    assert events.count("citation") == len(said[1])
    assert answer.usage.output_tokens > 0
    assert answer.usage.server_tool_use.web_search_requests == 1


def assert_grounding(text: str, candidate: types.Candidate, said: tuple[str, list[str]]) -> None:
    grounding = candidate.grounding_metadata
    assert text == said[0]
    assert [chunk.web.uri for chunk in grounding.grounding_chunks] == said[1]
    data = text.encode()
    for support, url in zip(grounding.grounding_supports, said[1], strict=True):
        segment = support.segment
        assert data[segment.start_index or 0 : segment.end_index].decode() == segment.text
        assert data[segment.end_index :].decode().startswith(f"[{said[1].index(url) + 1}]")
        assert [grounding.grounding_chunks[i].web.uri for i in support.grounding_chunk_indices] == [url]
    for before, after in pairwise(grounding.grounding_supports):
        assert before.segment.end_index < after.segment.start_index
    assert grounding.search_entry_point is None


GOOGLE_SEARCH = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])


@CASES
def test_gemini_whole(google: genai.Client, simulator: Simulator, scenario: str, said: tuple[str, list[str]]) -> None:
    simulator.scenario(scenario)
    answer = google.models.generate_content(model="kimi", contents="Weather?", config=GOOGLE_SEARCH)
    assert_grounding(answer.text, answer.candidates[0], said)


@CASES
def test_gemini_streamed(
    google: genai.Client, simulator: Simulator, scenario: str, said: tuple[str, list[str]]
) -> None:
    simulator.scenario(scenario)
    chunks = list(google.models.generate_content_stream(model="kimi", contents="Weather?", config=GOOGLE_SEARCH))
    assert_grounding("".join(chunk.text or "" for chunk in chunks), chunks[-1].candidates[0], said)


def test_a_searched_answer_can_be_continued(claude: anthropic.Anthropic, simulator: Simulator) -> None:
    simulator.scenario("caret_citations")
    first = claude.messages.create(model="kimi", max_tokens=4000, messages=ASK, tools=[WEB_SEARCH])
    more = [*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": "And Voss?"}]
    claude.messages.create(model="kimi", max_tokens=4000, messages=more, tools=[WEB_SEARCH])
    assert CARETS[0] in prompt(simulator)


# --- the ways to ask for a search ---


def asked(simulator: Simulator) -> dict[str, Any]:
    """The last chat call that reached the service."""
    return [r["body"] for r in simulator.state()["requests"] if r["path"].endswith(("ChatService/Chat", "/stream"))][-1]


def prompt(simulator: Simulator) -> str:
    body = asked(simulator)
    return body["message"]["blocks"][0]["text"]["content"] if "message" in body else body["messages"][0]["content"]


def searches(simulator: Simulator) -> bool:
    body = asked(simulator)
    return body["use_search"] if "use_search" in body else {"type": "TOOL_TYPE_SEARCH", "search": {}} in body["tools"]


CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
GEMINI = "/v1beta/models/kimi:generateContent"
GEMINI_SEARCH = "/v1beta/models/kimi-search:generateContent"
SHAPES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": ASK},
    MESSAGES: {"messages": ASK, "max_tokens": 4000},
    RESPONSES: {"input": "Weather?"},
    GEMINI: {"contents": [{"parts": [{"text": "Weather?"}]}]},
}
FUNCTION = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("path", "more", "wanted"),
    [
        (CHAT, {}, False),
        (CHAT, {"model": "kimi-search"}, True),
        (CHAT, {"use_search": True}, True),
        (CHAT, {"model": "kimi-search", "use_search": False}, False),
        (CHAT, {"web_search_options": {}}, True),
        (CHAT, {"web_search_options": {"search_context_size": "low"}}, True),
        (CHAT, {"tools": [{"type": "web_search"}]}, True),
        (CHAT, {"tools": [WEB_SEARCH]}, True),
        (CHAT, {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}, True),
        (CHAT, {"tools": [{"googleSearch": {}}]}, True),
        (CHAT, {"tools": [FUNCTION]}, False),
        (MESSAGES, {}, False),
        (MESSAGES, {"model": "kimi-search"}, True),
        (MESSAGES, {"use_search": True}, True),
        (MESSAGES, {"tools": [WEB_SEARCH]}, True),
        (MESSAGES, {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, True),
        (MESSAGES, {"tools": [WEB_SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}}, True),
        (MESSAGES, {"tools": [{"name": "web_search", "input_schema": {"type": "object"}}]}, False),
        (RESPONSES, {}, False),
        (RESPONSES, {"model": "kimi-search"}, True),
        (RESPONSES, {"use_search": True}, True),
        (RESPONSES, {"tools": [{"type": "web_search"}]}, True),
        (RESPONSES, {"tools": [{"type": "web_search_preview"}]}, True),
        (RESPONSES, {"tools": [{"type": "web_search_preview_2025_03_11"}]}, True),
        (RESPONSES, {"tools": [{"type": "web_search_2025_08_26"}]}, True),
        (GEMINI, {}, False),
        (GEMINI_SEARCH, {}, True),
        (GEMINI, {"tools": [{"googleSearch": {}}]}, True),
        (GEMINI, {"tools": [{"google_search": {}}]}, True),
        (GEMINI, {"tools": [{"googleSearchRetrieval": {"dynamicRetrievalConfig": {}}}]}, True),
    ],
)
def test_each_api_switches_search_on_its_own_way(
    searching: Gateway, simulator: Simulator, path: str, more: dict[str, Any], wanted: bool
) -> None:
    body = {"model": "kimi", **SHAPES.get(path, SHAPES[GEMINI]), **more}
    if path in (GEMINI, GEMINI_SEARCH):
        body.pop("model")
    answer = searching.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert searches(simulator) is wanted
    # A search that the service makes is no function of the client's.
    ignored = answer.headers.get("llm_provider-x-kimi-ignored", "").split(",")
    if wanted:
        assert "tools" not in ignored


# --- what readers of text see ---


def text_of(searching: Gateway, path: str, **more: Any) -> str:
    """The text of a whole answer of either chat API, or Gemini's."""
    answer = searching.http.post(path, json={**SHAPES.get(path, SHAPES[GEMINI]), **more}).json()
    match path:
        case "/v1/chat/completions":
            return str(answer["choices"][0]["message"]["content"])
        case "/v1/messages":
            return "".join(block["text"] for block in answer["content"] if block["type"] == "text")
        case "/v1/responses":
            return "".join(p["text"] for i in answer["output"] if i["type"] == "message" for p in i["content"])
    return "".join(p["text"] for p in answer["candidates"][0]["content"]["parts"] if not p.get("thought"))


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
def test_who_asks_by_name_gets_the_sources_as_text(searching: Gateway, simulator: Simulator, path: str) -> None:
    simulator.scenario("search_turn")
    assert text_of(searching, path, model="kimi-search") == SEARCH_TURN[0] + LIST
    simulator.scenario("search_turn")
    assert text_of(searching, path, model="kimi", use_search=True) == SEARCH_TURN[0] + LIST


def test_who_asks_by_name_gets_the_sources_as_text_on_gemini(searching: Gateway, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    assert text_of(searching, GEMINI_SEARCH) == SEARCH_TURN[0] + LIST


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, GEMINI])
def test_a_silent_model_gives_text_alone(searching: Gateway, simulator: Simulator, path: str, stream: bool) -> None:
    simulator.scenario("caret_citations")
    name = "kimi-search-silent"
    body = {"model": name, **SHAPES[path], "stream": stream}
    if path == GEMINI:
        body = SHAPES[GEMINI]
        path = f"/v1beta/models/{name}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"
    answer = searching.http.post(path, json=body).text
    assert searches(simulator)
    assert "nothing known of Voss." in answer
    for sign in ("[1]", "[2]", "[^", "example.com", "Searching", "web_search", "bergen"):
        assert sign not in answer


def test_a_search_is_told_as_thinking_where_thinking_is_visible(searching: Gateway, simulator: Simulator) -> None:
    def thinking(model: str) -> str:
        simulator.scenario("search_turn")
        message = searching.http.post(CHAT, json={"model": model, "messages": ASK}).json()["choices"][0]["message"]
        return str(message.get("reasoning_content") or "")

    step, thought = "Searching the web", "I should look this up."
    # This generation says no words, and searches first.
    told = {"connect": f"{thought}\n\n{step}: Oslo weather", "rest": f"{step}\n\n{thought}"}
    assert thinking("kimi-search-thinking") == told[searching.protocol]
    assert thinking("kimi-search") == thought


# --- long silences ---


@pytest.fixture
def silence(simulator: Simulator) -> None:
    """An answer with a pause that is longer than the keep-alive's second."""
    simulator.scenario("slow", pause_s=3.5)


SAID = "Before the pause, after the pause."
SLOW = "kimi-search-thinking"


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize(
    ("path", "sign"),
    [
        (CHAT, "\n: ping\n"),
        (MESSAGES, "event: ping\n"),
        (RESPONSES, "\n: ping\n"),
        (f"/v1beta/models/{SLOW}:streamGenerateContent?alt=sse", '"parts":[{"text":""}]'),
    ],
)
def test_silence_is_broken_on_the_wire(searching: Gateway, path: str, sign: str) -> None:
    body = {"model": SLOW, "stream": True, **SHAPES[path]} if path in SHAPES else SHAPES[GEMINI]
    answer = searching.http.post(path, json=body)
    assert "keepalive" not in answer.headers.get("llm_provider-x-kimi-ignored", "")
    before, _, after = answer.text.partition("Before the pause, ")
    assert sign not in before
    assert after.partition("after the pause.")[0].count(sign) >= 2


@pytest.mark.usefixtures("silence")
def test_openai_takes_broken_silence(oai: openai.OpenAI) -> None:
    chunks = oai.chat.completions.create(model=SLOW, messages=ASK, stream=True)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == SAID


@pytest.mark.usefixtures("silence")
def test_openai_responses_take_broken_silence(oai: openai.OpenAI) -> None:
    events = oai.responses.create(model=SLOW, input="Hi", stream=True)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == SAID


@pytest.mark.usefixtures("silence")
def test_anthropic_takes_broken_silence(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model=SLOW, max_tokens=4000, messages=ASK) as stream:
        assert stream.get_final_text() == SAID


@pytest.mark.usefixtures("silence")
def test_google_takes_broken_silence(google: genai.Client) -> None:
    chunks = list(google.models.generate_content_stream(model=SLOW, contents="Hi"))
    assert "".join(chunk.text or "" for chunk in chunks) == SAID


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, f"/v1beta/models/{SLOW}:streamGenerateContent?alt=sse"])
def test_an_error_after_long_silence_is_still_a_status(searching: Gateway, simulator: Simulator, path: str) -> None:
    simulator.scenario("hang_before_first_frame", times=None)
    body = {"model": SLOW, "stream": True, **SHAPES[path]} if path in SHAPES else SHAPES[GEMINI]
    answer = searching.http.post(path, json=body, headers={"x-litellm-timeout": "2.5"})
    assert answer.status_code == 504, answer.text
    assert "[timeout]" in answer.text
