"""The official SDKs and curl, through a real proxy, on chat, messages and responses."""

from __future__ import annotations

import json
import subprocess

import anthropic
import openai
import pytest

from tests.harness import MASTER_KEY, Gateway, Simulator

TEXT = "Rain today, about 9 °C.[1]\n\n[1] Oslo forecast: https://example.com/oslo"
THINKING = "I should look this up.\n\nSearching the web: Oslo weather"
ASK = [{"role": "user", "content": "Weather in Oslo?"}]


@pytest.fixture
def oai(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER_KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(gateway: Gateway):
    with anthropic.Anthropic(base_url=gateway.url, api_key=MASTER_KEY, max_retries=0) as client:
        yield client


def test_chat_whole(oai: openai.OpenAI, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    answer = oai.chat.completions.create(model="kimi-thinking", messages=ASK)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.reasoning_content == THINKING
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_streamed(oai: openai.OpenAI, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    chunks = list(
        oai.chat.completions.create(
            model="kimi-thinking", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(d.content or "" for d in deltas) == TEXT
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == THINKING
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1
    usage = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usage) == 1
    assert usage[0].prompt_tokens > 0
    assert usage[0].completion_tokens > 0


def test_messages_whole(claude: anthropic.Anthropic, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    answer = claude.messages.create(model="kimi-thinking", max_tokens=4000, messages=ASK)
    assert answer.content[0].thinking == THINKING
    assert "".join(block.text for block in answer.content if block.type == "text") == TEXT
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


def test_messages_streamed(claude: anthropic.Anthropic, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    with claude.messages.stream(model="kimi-thinking", max_tokens=4000, messages=ASK) as stream:
        answer = stream.get_final_message()
    assert "".join(b.thinking for b in answer.content if b.type == "thinking") == THINKING
    assert "".join(b.text for b in answer.content if b.type == "text") == TEXT
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


def test_responses_whole(oai: openai.OpenAI, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    answer = oai.responses.create(model="kimi-thinking", input="Weather in Oslo?")
    assert answer.output_text == TEXT
    assert answer.status == "completed"
    assert "".join(
        part.text for item in answer.output if item.type == "reasoning" for part in item.content or item.summary
    )
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


def test_responses_streamed(oai: openai.OpenAI, simulator: Simulator) -> None:
    simulator.scenario("search_turn")
    events = list(oai.responses.create(model="kimi-thinking", input="Weather in Oslo?", stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
    assert "".join(e.delta for e in events if e.type == "response.reasoning_summary_text.delta") == THINKING
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens > 0
    assert events[-1].response.usage.input_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "auth", "body"),
    [
        ("/v1/chat/completions", f"Authorization: Bearer {MASTER_KEY}", {"messages": ASK}),
        ("/v1/messages", f"x-api-key: {MASTER_KEY}", {"messages": ASK, "max_tokens": 99}),
        ("/v1/responses", f"Authorization: Bearer {MASTER_KEY}", {"input": "Weather in Oslo?"}),
    ],
)
def test_curl(gateway: Gateway, simulator: Simulator, path: str, auth: str, body: dict, stream: bool) -> None:
    simulator.scenario("search_turn")
    payload = json.dumps({"model": "kimi", "stream": stream, **body})
    command = ["curl", "-sSN", "--fail", gateway.url + path, "-H", auth, "-H", "Content-Type: application/json"]
    out = subprocess.run([*command, "-d", payload], capture_output=True, timeout=60, check=True).stdout.decode()
    assert "about 9 °C." in out or "about 9 \\u00b0C." in out
    assert ("data:" in out) is stream


def test_history_and_system_prompt_arrive_whole(oai: openai.OpenAI, simulator: Simulator) -> None:
    oai.chat.completions.create(
        model="kimi",
        messages=[
            {"role": "system", "content": "Be brief. ÄÖ"},
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": "Hello Ada."},
            {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "my name?"}]},
        ],
    )
    sent = _chat_bodies(simulator)[-1]
    (block,) = sent["message"]["blocks"]
    text = block["text"]["content"]
    assert text.startswith("Be brief. ÄÖ\n\n")
    places = [text.index(piece) for piece in ("My name is Ada.", "Hello Ada.", "What is\nmy name?")]
    assert places == sorted(places)


def test_one_user_message_goes_as_it_is(oai: openai.OpenAI, simulator: Simulator) -> None:
    oai.chat.completions.create(model="kimi", messages=[{"role": "user", "content": "Just this.  \n"}])
    assert _chat_bodies(simulator)[-1]["message"]["blocks"][0]["text"]["content"] == "Just this.  \n"


def test_anthropic_system_and_responses_instructions_arrive(
    oai: openai.OpenAI, claude: anthropic.Anthropic, simulator: Simulator
) -> None:
    claude.messages.create(model="kimi", max_tokens=99, system="Answer in Indonesian.", messages=ASK)
    oai.responses.create(model="kimi", instructions="Answer in Indonesian.", input="Weather in Oslo?")
    for body in _chat_bodies(simulator)[-2:]:
        assert body["message"]["blocks"][0]["text"]["content"] == "Answer in Indonesian.\n\nWeather in Oslo?"


def test_nothing_stays_in_the_account(oai: openai.OpenAI, simulator: Simulator) -> None:
    oai.chat.completions.create(model="kimi", messages=ASK)
    simulator.until("chats", [], 5)


def _chat_bodies(simulator: Simulator) -> list[dict]:
    return [r["body"] for r in simulator.state()["requests"] if r["path"].endswith("ChatService/Chat")]
