"""Agent loops of others, each to its end: two calls, their results, an answer. The model writes what is scripted."""

from __future__ import annotations

from collections.abc import Iterator

import agents
import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.gateway.test_tools import calls, prompts, says
from tests.harness import MASTER_KEY, Gateway, Simulator

SCRIPT = (
    f"I look it up.\n\n{calls(('get_weather', {'city': 'Oslo'}))}",
    calls(("convert", {"celsius": 9.5})),
    "It is 49.1 °F in Oslo.",
)
SYSTEM = "You report the weather."


class Machine:
    """The functions that the loops call."""

    def __init__(self) -> None:
        self.called: list[tuple[str, object]] = []

    def get_weather(self, city: str) -> str:
        """Weather of a city.

        Args:
            city: Name of the city.
        """
        self.called.append(("get_weather", city))
        return "9.5 °C, dry"

    def convert(self, celsius: float) -> str:
        """Degrees Celsius as Fahrenheit.

        Args:
            celsius: Degrees.
        """
        self.called.append(("convert", celsius))
        return f"{celsius * 9 / 5 + 32:.1f}"


@pytest.fixture
def machine(gateway: Gateway, simulator: Simulator) -> Iterator[Machine]:
    says(simulator, *SCRIPT)
    machine = Machine()
    yield machine
    assert machine.called == [("get_weather", "Oslo"), ("convert", 9.5)]
    asked = prompts(simulator)
    assert len(asked) == len(SCRIPT)
    assert "Weather in Oslo in °F?" in asked[0]
    assert "9.5 °C, dry" in asked[1]
    assert "49.1" in asked[2]
    # Each brings what is new, to the chat that knows the rest.
    assert "9.5 °C, dry" not in asked[2]
    assert len({call["chat_id"] for call in simulator.state()["calls"]}) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_openai_agents(gateway: Gateway, machine: Machine, api: str, stream: bool) -> None:
    agents.set_tracing_disabled(True)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER_KEY, max_retries=0) as client:
        kind = {"chat": agents.OpenAIChatCompletionsModel, "responses": agents.OpenAIResponsesModel}[api]
        agent = agents.Agent(
            name="Reporter",
            instructions=SYSTEM,
            model=kind("kimi", client),
            tools=[agents.function_tool(machine.get_weather), agents.function_tool(machine.convert)],
        )
        if stream:
            result = agents.Runner.run_streamed(agent, "Weather in Oslo in °F?")
            async for _ in result.stream_events():
                pass
        else:
            result = await agents.Runner.run(agent, "Weather in Oslo in °F?")
    assert result.final_output == SCRIPT[-1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_anthropics_tool_runner(gateway: Gateway, machine: Machine, stream: bool) -> None:
    tools = [anthropic.beta_tool(machine.get_weather), anthropic.beta_tool(machine.convert)]
    with anthropic.Anthropic(base_url=gateway.url, api_key=MASTER_KEY, max_retries=0) as client:
        runner = client.beta.messages.tool_runner(
            model="kimi",
            max_tokens=4000,
            system=SYSTEM,
            tools=tools,
            messages=[{"role": "user", "content": "Weather in Oslo in °F?"}],
            stream=stream,
        )
        *_, last = (one.get_final_message() if stream else one for one in runner)
    assert [block.text for block in last.content] == [SCRIPT[-1]]
    assert last.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_google_genais_automatic_function_calling(gateway: Gateway, machine: Machine, stream: bool) -> None:
    options = types.HttpOptions(base_url=gateway.url)
    config = types.GenerateContentConfig(system_instruction=SYSTEM, tools=[machine.get_weather, machine.convert])
    with genai.Client(api_key=MASTER_KEY, http_options=options) as client:
        chat = client.chats.create(model="kimi", config=config)
        if stream:
            text = [piece.text or "" for piece in chat.send_message_stream("Weather in Oslo in °F?")]
            assert "".join(text).endswith(SCRIPT[-1])
        else:
            assert chat.send_message("Weather in Oslo in °F?").text == SCRIPT[-1]
