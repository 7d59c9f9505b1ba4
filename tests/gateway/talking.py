"""An agent's conversation as the guides of each official SDK keep it: what came back is sent back as it came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import anthropic
import openai
from google import genai
from google.genai import types

from tests.gateway.calling import Said, Tool
from tests.harness import MASTER_KEY


class Talk:
    """`say` and `give` send a message or the results of the last calls. `history`: all that was said, as text."""

    name: ClassVar[str]

    def __init__(self, url: str, *, tools: Sequence[Tool] = (), system: str = "", stream: bool = False) -> None:
        self.tools, self.system, self.stream = tools, system, stream
        self.history = [system]
        self._call_ids: list[str] = []
        self._begin(url)

    def say(self, text: str) -> Said:
        self.history.append(text)
        return self._heard(self._say(text))

    def give(self, *results: str) -> Said:
        self.history += results
        return self._heard(self._give(dict(zip(self._call_ids, results, strict=True))))

    def close(self) -> None:
        raise NotImplementedError

    def _begin(self, url: str) -> None:
        raise NotImplementedError

    def _say(self, text: str) -> Said:
        raise NotImplementedError

    def _give(self, results: dict[str, str]) -> Said:
        raise NotImplementedError

    def _heard(self, said: Said) -> Said:
        self._call_ids = [str(call_id) for call_id in said.written]
        self.history.append(said.everything)
        return said


class Chat(Talk):
    name = "chat"

    def _begin(self, url: str) -> None:
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=MASTER_KEY, max_retries=0)
        self.messages: list[Any] = [{"role": "system", "content": self.system}] if self.system else []
        self.more: dict[str, Any] = {}

    def _say(self, text: str) -> Said:
        self.messages.append({"role": "user", "content": text})
        return self._ask()

    def _give(self, results: dict[str, str]) -> Said:
        self.messages += [
            {"role": "tool", "tool_call_id": call_id, "content": text} for call_id, text in results.items()
        ]
        return self._ask()

    def _ask(self) -> Said:
        made = [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": True}
            for tool in self.tools
        ]
        tools = {"tools": [{"type": "function", "function": one} for one in made]} if made else {}
        request: dict[str, Any] = {"model": "kimi", "messages": self.messages, **tools, **self.more}
        if self.stream:
            with self.client.chat.completions.stream(**request) as events:
                completion: Any = events.get_final_completion()
        else:
            completion = self.client.chat.completions.create(**request)
        (choice,) = completion.choices
        self.messages.append(choice.message)
        said = Said(text=choice.message.content or "", finish=choice.finish_reason)
        for call in choice.message.tool_calls or ():
            said.call(call.id, call.function.name, call.function.arguments)
        return said

    def close(self) -> None:
        self.client.close()


class Messages(Talk):
    name = "messages"

    def _begin(self, url: str) -> None:
        self.client = anthropic.Anthropic(base_url=url, api_key=MASTER_KEY, max_retries=0)
        self.messages: list[Any] = []

    def _say(self, text: str) -> Said:
        return self._ask(text)

    def _give(self, results: dict[str, str]) -> Said:
        return self._ask(
            [{"type": "tool_result", "tool_use_id": call_id, "content": text} for call_id, text in results.items()]
        )

    def _ask(self, content: Any) -> Said:
        self.messages.append({"role": "user", "content": content})
        request: dict[str, Any] = {"model": "kimi", "messages": self.messages, "max_tokens": 4000}
        if self.tools:
            request["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
                for tool in self.tools
            ]
        if self.system:
            request["system"] = self.system
        if self.stream:
            with self.client.messages.stream(**request) as events:
                message: Any = events.get_final_message()
        else:
            message = self.client.messages.create(**request)
        self.messages.append({"role": "assistant", "content": message.content})
        said = Said(finish=message.stop_reason)
        for block in message.content:
            if block.type == "tool_use":
                said.call(block.id, block.name, json.dumps(block.input))
            elif block.type == "text":
                said.text += block.text
        return said

    def close(self) -> None:
        self.client.close()


class Responses(Talk):
    name = "responses"

    def _begin(self, url: str) -> None:
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=MASTER_KEY, max_retries=0)
        self.input: list[Any] = []

    def _say(self, text: str) -> Said:
        return self._ask([{"role": "user", "content": text}])

    def _give(self, results: dict[str, str]) -> Said:
        outputs = [{"type": "function_call_output", "call_id": key, "output": text} for key, text in results.items()]
        return self._ask(outputs)

    def _ask(self, items: list[Any]) -> Said:
        self.input += items
        response = self._answered({"input": self.input})
        self.input += response.output
        return self._read(response)

    def _answered(self, request: dict[str, Any]) -> Any:
        request |= {"model": "kimi"}
        if self.tools:
            request["tools"] = [
                {"type": "function", "name": one.name, "description": one.description, "parameters": one.parameters}
                | {"strict": True}
                for one in self.tools
            ]
        if self.system:
            request["instructions"] = self.system
        if not self.stream:
            return self.client.responses.create(**request)
        with self.client.responses.stream(**request) as events:
            return events.get_final_response()

    def _read(self, response: Any) -> Said:
        said = Said(text=response.output_text, finish=response.status)
        for item in response.output:
            if item.type == "function_call":
                said.call(item.call_id, item.name, item.arguments)
        return said

    def close(self) -> None:
        self.client.close()


class Chained(Responses):
    """Each request names the response before it and brings only what is new."""

    name = "previous_response_id"

    def _begin(self, url: str) -> None:
        super()._begin(url)
        self.last_id: str | None = None

    def _ask(self, items: list[Any]) -> Said:
        named = {} if self.last_id is None else {"previous_response_id": self.last_id}
        response = self._answered({"input": items, **named})
        self.last_id = response.id
        return self._read(response)


class Gemini(Talk):
    name = "gemini"

    def _begin(self, url: str) -> None:
        self.client = genai.Client(api_key=MASTER_KEY, http_options=types.HttpOptions(base_url=url))
        config = types.GenerateContentConfig(
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        if self.tools:
            declared = [
                types.FunctionDeclaration(
                    name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters)
                )
                for tool in self.tools
            ]
            config.tools = [types.Tool(function_declarations=declared)]
        if self.system:
            config.system_instruction = self.system
        self.chat = self.client.chats.create(model="kimi", config=config)

    def _say(self, text: str) -> Said:
        return self._ask([types.Part(text=text)])

    def _give(self, results: dict[str, str]) -> Said:
        given = zip(self._names, results.values(), strict=True)
        return self._ask([types.Part.from_function_response(name=n, response={"output": text}) for n, text in given])

    def _ask(self, parts: list[Any]) -> Said:
        said = Said()
        if self.stream:
            for piece in self.chat.send_message_stream(parts):
                self._read(piece, said)
        else:
            self._read(self.chat.send_message(parts), said)
        self._names = [name for name, _ in said.calls]
        return said

    def _read(self, response: types.GenerateContentResponse, said: Said) -> None:
        (candidate,) = response.candidates or ()
        for part in (candidate.content and candidate.content.parts) or ():
            if call := part.function_call:
                said.call(call.id or len(said.written), call.name, json.dumps(call.args))
            elif not part.thought:
                said.text += part.text or ""

    def close(self) -> None:
        self.client.close()


TALKS = (Chat, Messages, Responses, Chained, Gemini)
