"""Run by the gateway's Python under `kimi-mitm run`: a streamed call of each official SDK with its default host.

Prints a line of JSON for each: the SDK and the pieces of text that came.
"""

import json
import sys
from collections.abc import Iterator

import anthropic
import openai
from google import genai

ASK = [{"role": "user", "content": "Hello"}]


def chat(client: openai.OpenAI, model: str) -> Iterator[str]:
    for chunk in client.chat.completions.create(model=model, messages=ASK, stream=True):
        if chunk.choices:
            yield chunk.choices[0].delta.content or ""


def responses() -> Iterator[str]:
    for event in openai.OpenAI().responses.create(model="gpt-5", input="Hello", stream=True):
        if event.type == "response.output_text.delta":
            yield event.delta


def messages() -> Iterator[str]:
    client = anthropic.Anthropic()
    with client.messages.stream(model="claude-haiku-4-5", max_tokens=200, messages=ASK) as answer:
        yield from answer.text_stream


def generate() -> Iterator[str]:
    client = genai.Client()
    for part in client.models.generate_content_stream(model="gemini-3.1-pro", contents="Hello"):
        yield part.text or ""


def azure() -> Iterator[str]:
    host = "https://mine.openai.azure.com"
    return chat(openai.AzureOpenAI(azure_endpoint=host, api_version="2025-04-01-preview"), "my-deployment")


for name, pieces in {
    "openai chat": chat(openai.OpenAI(), "gpt-5"),
    "openai responses": responses(),
    "openai azure": azure(),
    "anthropic": messages(),
    "google-genai": generate(),
}.items():
    sys.stdout.write(json.dumps([name, [piece for piece in pieces if piece]]) + "\n")
