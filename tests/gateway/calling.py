"""Tool use in words of no API: what is offered and was said before, what came back. One class for each official SDK.

The finish is told in the API's own word, because that is what its clients act on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import anthropic
import openai
from google import genai
from google.genai import errors, types

from tests.harness import MASTER_KEY

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


@dataclass(frozen=True, kw_only=True)
class Tool:
    name: str
    parameters: Mapping[str, Any]
    description: str = "A tool."


@dataclass(frozen=True, kw_only=True)
class Call:
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Of the call at the same place in its step."""

    text: str
    image: bytes = b""
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """A turn of the model's that called tools, and what they gave."""

    calls: tuple[Call, ...]
    results: tuple[Result, ...]
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    tools: tuple[Tool, ...] = ()
    #: `auto`, `none`, `any`, or the name of a tool.
    choice: str = "auto"
    #: Of the tools, where the choice is `any`; empty: all.
    allowed: tuple[str, ...] = ()
    parallel: bool = True
    steps: tuple[Step, ...] = ()
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 4000
    model: str = "kimi"
    text: str = "Add 1"

    @property
    def named(self) -> bool:
        return self.choice not in ("auto", "none", "any")

    def numbered(self) -> Iterator[tuple[str, Step, list[tuple[str, Call, Result]]]]:
        """Each step with an id for itself and for each of its calls."""
        for number, step in enumerate(self.steps):
            pairs = zip(step.calls, step.results, strict=True)
            yield f"step{number}", step, [(f"call_{number}_{at}", *pair) for at, pair in enumerate(pairs)]


@dataclass(kw_only=True)
class Said:
    """An answer; of a stream, what has come so far."""

    text: str = ""
    finish: str = ""
    #: The stop string that was met, where the API tells it.
    stop: str | None = None
    #: Name and JSON text of every call.
    written: dict[Any, list[str]] = field(default_factory=dict)

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments or "{}")) for name, arguments in self.written.values()]

    @property
    def everything(self) -> str:
        return self.text + "".join(name + arguments for name, arguments in self.written.values())

    def call(self, key: Any, name: str | None, arguments: str | None) -> None:
        """A piece of the call `key`."""
        written = self.written.setdefault(key, ["", ""])
        written[0] += name or ""
        written[1] += arguments or ""


@dataclass(kw_only=True)
class Failed(Exception):
    """`status` is None inside of a stream."""

    status: int | None
    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.status} {self.type}: {self.message}"


class Surface:
    """`ask` fills `into` as the answer comes. Raises Failed."""

    name: str
    finishes: Mapping[Literal["calls", "text", "length", "stop"], str]
    #: The API's own word for an answer that is not what was asked for: as a status, and in a stream.
    unusable: tuple[str, str]
    #: The arguments of a call come as they are written.
    streams_arguments = True
    #: The official SDK's.
    client: Any

    def ask(self, question: Question, *, stream: bool, into: Said | None = None) -> Said:
        raise NotImplementedError

    def close(self) -> None:
        self.client.close()


class OpenAISurface(Surface):
    """What the two APIs of one SDK share."""

    def __init__(self, url: str) -> None:
        http = openai.DefaultHttpxClient(verify=False)
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=MASTER_KEY, max_retries=0, http_client=http)

    def _calling(self, question: Question, named: dict[str, Any]) -> dict[str, Any]:
        """Which tools may be called, and whether several at once; `named` is how this API names the only one."""
        wishes: dict[str, Any] = {}
        if question.named:
            wishes["tool_choice"] = named
        elif question.choice != "auto":
            wishes["tool_choice"] = {"any": "required", "none": "none"}[question.choice]
        if not question.parallel:
            wishes["parallel_tool_calls"] = False
        return wishes


class Chat(OpenAISurface):
    name = "chat"
    finishes = {"calls": "tool_calls", "text": "stop", "length": "length", "stop": "stop"}
    unusable = ("internal_server_error", "502")  # LiteLLM streams no type

    def ask(self, question: Question, *, stream: bool, into: Said | None = None) -> Said:
        said = Said() if into is None else into
        try:
            if stream:
                for chunk in self.client.chat.completions.create(**self._request(question), stream=True):
                    for choice in chunk.choices:
                        said.text += choice.delta.content or ""
                        for call in choice.delta.tool_calls or ():
                            said.call(call.index, call.function.name, call.function.arguments)
                        assert not (said.finish and choice.finish_reason)
                        said.finish = said.finish or choice.finish_reason or ""
                return said
            (choice,) = self.client.chat.completions.create(**self._request(question)).choices
        except openai.APIError as exc:
            raise _openai_failed(exc) from exc
        for at, call in enumerate(choice.message.tool_calls or ()):
            said.call(at, call.function.name, call.function.arguments)
        said.text, said.finish = choice.message.content or "", choice.finish_reason
        return said

    def _request(self, question: Question) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "user", "content": question.text}]
        for _, step, calls in question.numbered():
            made = [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for call_id, call, _ in calls
            ]
            messages.append({"role": "assistant", "content": step.text or None, "tool_calls": made})
            for call_id, _, result in calls:
                content: Any = result.text
                if result.image:
                    picture = {"type": "image_url", "image_url": {"url": _data_url(result.image)}}
                    content = [{"type": "text", "text": result.text}, picture]
                messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
        wishes: dict[str, Any] = {"max_tokens": question.max_tokens}
        if question.tools:
            functions = [_function(tool, "parameters") for tool in question.tools]
            wishes["tools"] = [{"type": "function", "function": one} for one in functions]
        wishes |= self._calling(question, {"type": "function", "function": {"name": question.choice}})
        if question.stop:
            wishes["stop"] = list(question.stop)
        if question.schema is not None:
            wanted = {"name": "answer", "schema": question.schema, "strict": True}
            wishes["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return {"model": question.model, "messages": messages, **wishes}


class Responses(OpenAISurface):
    name = "responses"
    finishes = {"calls": "completed", "text": "completed", "length": "max_output_tokens", "stop": "completed"}
    unusable = ("internal_server_error", "server_error")

    def ask(self, question: Question, *, stream: bool, into: Said | None = None) -> Said:
        said = Said() if into is None else into
        try:
            if not stream:
                return self._read(self.client.responses.create(**self._request(question)), said)
            for event in self.client.responses.create(**self._request(question), stream=True):
                match event.type:
                    case "response.output_text.delta":
                        said.text += event.delta
                    case "response.output_item.added" if event.item.type == "function_call":
                        said.call(event.item.id, event.item.name, None)
                    case "response.function_call_arguments.delta":
                        said.call(event.item_id, None, event.delta)
                    case "response.completed" | "response.incomplete":
                        whole = self._read(event.response, Said())
                        assert (whole.text, whole.calls) == (said.text, said.calls)
                        said.finish = whole.finish
                    case "response.failed":
                        error = event.response.error
                        raise Failed(status=None, type=error.code, message=error.message)
        except openai.APIError as exc:
            raise _openai_failed(exc) from exc
        return said

    def _read(self, response: Any, said: Said) -> Said:
        for item in response.output:
            if item.type == "function_call":
                said.call(item.call_id, item.name, item.arguments)
        said.text = response.output_text
        details = response.incomplete_details
        said.finish = response.status if response.status == "completed" else details.reason
        return said

    def _request(self, question: Question) -> dict[str, Any]:
        items: list[dict[str, Any]] = [{"role": "user", "content": question.text}]
        for _, step, calls in question.numbered():
            if step.text:
                items.append({"role": "assistant", "content": step.text})
            for call_id, call, _ in calls:
                arguments = json.dumps(call.arguments)
                items.append({"type": "function_call", "call_id": call_id, "name": call.name, "arguments": arguments})
            for call_id, _, result in calls:
                output: Any = result.text
                if result.image:
                    picture = {"type": "input_image", "image_url": _data_url(result.image)}
                    output = [{"type": "input_text", "text": result.text}, picture]
                items.append({"type": "function_call_output", "call_id": call_id, "output": output})
        wishes: dict[str, Any] = {"max_output_tokens": question.max_tokens}
        if question.tools:
            wishes["tools"] = [{"type": "function", **_function(tool, "parameters")} for tool in question.tools]
        wishes |= self._calling(question, {"type": "function", "name": question.choice})
        if question.stop:
            wishes["extra_body"] = {"stop": list(question.stop)}  # this API has no field for it
        if question.schema is not None:
            wanted = {"type": "json_schema", "name": "answer", "schema": question.schema, "strict": True}
            wishes["text"] = {"format": wanted}
        return {"model": question.model, "input": items, **wishes}


class Messages(Surface):
    name = "messages"
    finishes = {"calls": "tool_use", "text": "end_turn", "length": "max_tokens", "stop": "stop_sequence"}
    unusable = ("api_error", "api_error")

    def __init__(self, url: str) -> None:
        http = anthropic.DefaultHttpxClient(verify=False)
        self.client = anthropic.Anthropic(base_url=url, api_key=MASTER_KEY, max_retries=0, http_client=http)

    def ask(self, question: Question, *, stream: bool, into: Said | None = None) -> Said:
        said = Said() if into is None else into
        try:
            if not stream:
                return self._read(self.client.messages.create(**self._request(question)), said)
            with self.client.messages.stream(**self._request(question)) as events:
                for event in events:
                    match event.type:
                        case "text":
                            said.text += event.text
                        case "content_block_start" if event.content_block.type == "tool_use":
                            said.call(event.index, event.content_block.name, None)
                        case "content_block_delta" if event.delta.type == "input_json_delta":
                            said.call(event.index, None, event.delta.partial_json)
                whole = self._read(events.get_final_message(), Said())
                assert (whole.text, whole.calls) == (said.text, said.calls)
                said.finish, said.stop = whole.finish, whole.stop
        except anthropic.APIStatusError as exc:
            body: Any = exc.body
            status = exc.status_code if exc.status_code >= 400 else None
            raise Failed(status=status, type=body["error"]["type"], message=body["error"]["message"]) from exc
        return said

    def _read(self, message: Any, said: Said) -> Said:
        for block in message.content:
            if block.type == "tool_use":
                said.call(block.id, block.name, json.dumps(block.input))
        said.text = "".join(block.text for block in message.content if block.type == "text")
        said.finish, said.stop = message.stop_reason, message.stop_sequence
        return said

    def _request(self, question: Question) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "user", "content": question.text}]
        for _, step, calls in question.numbered():
            blocks: list[dict[str, Any]] = [{"type": "text", "text": step.text}] if step.text else []
            blocks += [
                {"type": "tool_use", "id": call_id, "name": call.name, "input": call.arguments}
                for call_id, call, _ in calls
            ]
            messages.append({"role": "assistant", "content": blocks})
            results = []
            for call_id, _, result in calls:
                content: Any = result.text
                if result.image:
                    source = {"type": "base64", "media_type": "image/png", "data": _base64(result.image)}
                    content = [{"type": "text", "text": result.text}, {"type": "image", "source": source}]
                failed = {"is_error": True} if result.is_error else {}
                results.append({"type": "tool_result", "tool_use_id": call_id, "content": content, **failed})
            messages.append({"role": "user", "content": results})
        wishes: dict[str, Any] = {}
        if question.tools:
            wishes["tools"] = [_function(tool, "input_schema") for tool in question.tools]
            choice = {"type": "tool", "name": question.choice} if question.named else {"type": question.choice}
            if not question.parallel:
                choice["disable_parallel_tool_use"] = True
            wishes["tool_choice"] = choice
        if question.stop:
            wishes["stop_sequences"] = list(question.stop)
        if question.schema is not None:
            wishes["output_config"] = {"format": {"type": "json_schema", "schema": question.schema}}
        return {"model": question.model, "messages": messages, "max_tokens": question.max_tokens, **wishes}


class Gemini(Surface):
    name = "gemini"
    finishes = {"calls": "STOP", "text": "STOP", "length": "MAX_TOKENS", "stop": "STOP"}
    unusable = ("INTERNAL", "INTERNAL")
    streams_arguments = False

    def __init__(self, url: str) -> None:
        self.client = genai.Client(api_key=MASTER_KEY, http_options=types.HttpOptions(base_url=url))

    def ask(self, question: Question, *, stream: bool, into: Said | None = None) -> Said:
        said = Said() if into is None else into
        models = self.client.models
        try:
            if stream:
                for response in models.generate_content_stream(**self._request(question)):
                    self._read(response, said)
            else:
                self._read(models.generate_content(**self._request(question)), said)
        except errors.APIError as exc:
            raise Failed(status=exc.code, type=exc.status or "", message=exc.message or "") from exc
        return said

    def _read(self, response: types.GenerateContentResponse, said: Said) -> None:
        (candidate,) = response.candidates
        for part in candidate.content.parts or ():
            if part.function_call:
                call = part.function_call
                said.call(len(said.written), call.name, json.dumps(call.args))
            elif not part.thought:
                said.text += part.text or ""
        if candidate.finish_reason:
            assert not said.finish
            said.finish = candidate.finish_reason.value

    def _request(self, question: Question) -> dict[str, Any]:
        contents = [types.Content(role="user", parts=[types.Part(text=question.text)])]
        for _, step, calls in question.numbered():
            parts = [types.Part(text=step.text)] if step.text else []
            parts += [
                types.Part(function_call=types.FunctionCall(name=c.name, args=dict(c.arguments))) for _, c, _ in calls
            ]
            contents.append(types.Content(role="model", parts=parts))
            contents.append(types.Content(role="user", parts=[self._result(call, one) for _, call, one in calls]))
        config: dict[str, Any] = {"max_output_tokens": question.max_tokens}
        if question.tools:
            declared = [
                types.FunctionDeclaration(
                    name=tool.name, description=tool.description, parameters=types.Schema(**_upper(tool.parameters))
                )
                for tool in question.tools
            ]
            config["tools"] = [types.Tool(function_declarations=declared)]
            mode = "ANY" if question.named else question.choice.upper()
            names = [question.choice] if question.named else list(question.allowed) or None
            calling = types.FunctionCallingConfig(
                mode=types.FunctionCallingConfigMode(mode), allowed_function_names=names
            )
            config["tool_config"] = types.ToolConfig(function_calling_config=calling)
        if question.stop:
            config["stop_sequences"] = list(question.stop)
        if question.schema is not None:
            config |= {"response_mime_type": "application/json", "response_schema": _upper(question.schema)}
        return {"model": question.model, "contents": contents, "config": types.GenerateContentConfig(**config)}

    def _result(self, call: Call, result: Result) -> types.Part:
        parts = None
        if result.image:
            parts = [types.FunctionResponsePart.from_bytes(data=result.image, mime_type="image/png")]
        response = {"error" if result.is_error else "output": result.text}
        return types.Part(function_response=types.FunctionResponse(name=call.name, response=response, parts=parts))


SURFACES = (Chat, Messages, Responses, Gemini)


def _function(tool: Tool, schema: str) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, schema: tool.parameters}


def _upper(schema: Any) -> Any:
    """Types as Gemini spells them."""
    if isinstance(schema, Mapping):
        return {key: value.upper() if key == "type" else _upper(value) for key, value in schema.items()}
    return schema


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _data_url(data: bytes) -> str:
    return f"data:image/png;base64,{_base64(data)}"


def _openai_failed(exc: openai.APIError) -> Failed:
    return Failed(status=getattr(exc, "status_code", None), type=str(exc.type or exc.code), message=exc.message)
