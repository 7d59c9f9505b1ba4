"""Files and documents of every API as parts of a request: kinds, names, order, places, and nothing copied."""

from __future__ import annotations

import base64
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from kimi_provider.errors import BadRequest
from kimi_provider.litellm_bridge import inbound
from kimi_provider.litellm_bridge.carrying import Carrier
from kimi_provider.litellm_bridge.gemini.inbound import to_chat
from kimi_provider.litellm_bridge.parts import MAX_PROMPT_DOCUMENT_CHARS, PlacedPart, read
from kimi_provider.request import FilePart, Part, TextPart
from tests.bridge.test_library import run
from tests.harness import Simulator

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="


def parts(*content: Any) -> list[Part]:
    return list(read(list(content), 2, set()))


def one(block: Any) -> FilePart:
    (part,) = parts(block)
    assert isinstance(part, FilePart)
    return part


def source(kind: str, block_type: str = "document", **more: Any) -> dict[str, Any]:
    fields = {name: more.pop(name) for name in ("data", "url", "media_type", "content", "file_id") if name in more}
    return {"type": block_type, "source": {"type": kind, **fields}, **more}


def base64_document(**more: Any) -> dict[str, Any]:
    return source("base64", media_type="application/pdf", data="JVBERi0=", **more)


@pytest.mark.parametrize(
    ("block", "kind", "url", "filename"),
    [
        ({"type": "image_url", "image_url": PNG}, "image", PNG, None),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}, "image", PNG, None),
        ({"type": "input_image", "image_url": PNG, "detail": "low"}, "image", PNG, None),
        ({"type": "image_url", "image_url": {"url": "https://x.example/a"}}, "image", "https://x.example/a", None),
        ({"type": "image_url", "image_url": {"url": PDF}}, "file", PDF, None),
        (
            {"type": "image_url", "image_url": PDF.replace("data:", "DATA:")},
            "file",
            PDF.replace("data:", "DATA:"),
            None,
        ),
        (
            {"type": "image_url", "image_url": "https://x.example/A.PDF?x=1#y"},
            "file",
            "https://x.example/A.PDF?x=1#y",
            None,
        ),
        ({"type": "image_url", "image_url": "data:image/svg+xml,<svg/>"}, "file", "data:image/svg+xml,<svg/>", None),
        ({"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}, "file", PDF, "a.pdf"),
        ({"type": "file", "file": {"file_data": PNG, "filename": "a.png"}}, "image", PNG, "a.png"),
        ({"type": "file", "file": {"file_id": "https://x.example/a.pdf"}}, "file", "https://x.example/a.pdf", None),
        ({"type": "input_file", "file_data": PDF, "filename": "a.pdf"}, "file", PDF, "a.pdf"),
        ({"type": "input_file", "file_url": "http://x.example/b"}, "file", "http://x.example/b", None),
        (base64_document(title="Q3 report"), "file", "data:;base64,JVBERi0=", "Q3 report.pdf"),
        (base64_document(title="a.PDF"), "file", "data:;base64,JVBERi0=", "a.PDF"),
        (source("url", url="https://x.example/d", title="D"), "file", "https://x.example/d", "D.pdf"),
        (source("url", "image", url="https://x.example/i"), "image", "https://x.example/i", None),
        (source("base64", "image", media_type="image/png", data="AAAA"), "image", "data:;base64,AAAA", None),
        (source("base64", "image", media_type="image/png", data=PNG), "image", PNG, None),
    ],
)
def test_each_kind_of_file(block: Any, kind: str, url: str, filename: str | None) -> None:
    part = one(block)
    assert (part.kind, part.source, part.filename, part.place) == (kind, url, filename, "Message 2, part 1")


def test_a_long_base64_source_is_the_callers_own_text_with_its_type() -> None:
    data = "iVBORw0KGgo" + "A" * 5000
    part = one(source("base64", "image", media_type="image/png", data=data))
    assert part.source is data
    assert (part.kind, part.media_type) == ("image", "image/png")


def test_text_and_files_keep_their_order() -> None:
    texts_and_files = parts({"type": "text", "text": "one"}, {"type": "image_url", "image_url": PNG}, "two")
    assert [part.text if isinstance(part, TextPart) else part.place for part in texts_and_files] == [
        "one",
        "Message 2, part 2",
        "two",
    ]


def test_a_text_document_is_text_with_title_and_context() -> None:
    block = source("text", media_type="text/plain", data="Sales\nrose.", title="Q3\nreport", context="Draft.")
    assert parts(block) == [
        TextPart(text="[Document: Q3 report]\n(Draft.)"),
        TextPart(text="Sales\nrose."),
        TextPart(text="[End of document]"),
    ]


def test_a_long_text_document_is_a_file() -> None:
    text = "100% ünïcode, " * (MAX_PROMPT_DOCUMENT_CHARS // 10)
    heading, file = parts(source("text", media_type="text/plain", data=text, title="T", context="C"))
    assert heading == TextPart(text="[Document: T]\n(C)")
    assert isinstance(file, FilePart)
    assert (file.kind, file.filename) == ("file", "T.txt")
    assert file.source == "data:text/plain;charset=utf-8," + text.replace("%", "%25")


def test_a_document_of_blocks_and_search_results() -> None:
    inner = [{"type": "text", "text": "See"}, source("base64", "image", media_type="image/png", data="AAAA")]
    heading, text, image, end = parts(source("content", content=inner, title="Album"))
    assert (heading, text, end) == (
        TextPart(text="[Document: Album]"),
        TextPart(text="See"),
        TextPart(text="[End of document]"),
    )
    assert isinstance(image, FilePart)
    assert image.place == "Message 2, part 1"
    result = {
        "type": "search_result",
        "title": "T",
        "source": "https://x.example",
        "content": [{"type": "text", "text": "F"}],
    }
    assert "\n".join(part.text for part in parts(result) if isinstance(part, TextPart)) == (
        "[Search result: T]\n(https://x.example)\nF\n[End of search result]"
    )


def test_the_context_of_a_file_comes_before_it() -> None:
    heading, file = parts(base64_document(title="T", context="Who wrote it"))
    assert heading == TextPart(text="[Document: T]\n(Who wrote it)")
    assert isinstance(file, FilePart)


def test_what_has_no_effect_is_named() -> None:
    ignored: set[str] = set()
    read([base64_document(citations={"enabled": True})], 1, ignored)
    read([base64_document(citations={"enabled": False})], 1, ignored)
    assert ignored == {"citations"}
    read([{"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}}], 1, ignored)
    assert ignored == {"citations"}
    read([{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}], 1, ignored)
    assert ignored == {"citations", "detail"}


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            "Message 2, part 1: Kimi does not take audio",
        ),
        ({"type": "wizard"}, "Message 2, part 1: Kimi does not take parts of type 'wizard'"),
        ({"type": "video_url", "video_url": {"url": "https://x.example"}}, "type 'video_url'"),
        (7, "Message 2, part 1: Kimi does not take parts of type None"),
        (
            {"type": "file", "file": {"file_id": "file-abc"}},
            "Message 2, part 1: the file id 'file-abc' is not known here",
        ),
        ({"type": "input_image", "file_id": "file-abc"}, "Message 2, part 1: the file id 'file-abc' is not known here"),
        (source("file", file_id="file_011"), "Message 2, part 1: the file id 'file_011' is not known here"),
        (source("wizard"), "Message 2, part 1: its source has the unknown type 'wizard'"),
        ({"type": "image"}, "Message 2, part 1: its source has the unknown type None"),
        (
            source("content", content=[{"type": "wizard"}]),
            "Message 2, part 1: Kimi does not take parts of type 'wizard'",
        ),
    ],
)
def test_what_can_not_be_sent_is_named_with_its_place(block: Any, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parts(block)
    assert words in caught.value.message


@pytest.mark.parametrize("block", [{"type": "file"}, {"type": "image_url"}, {"type": "input_file", "file_data": 7}])
def test_a_file_without_a_source_is_the_readers_to_refuse(block: Any) -> None:
    assert one(block).source == ""


# --- what LiteLLM's translations would drop ----------------------------------------------------------------


def through_litellm_anthropic(messages: list[Any], provider: str = "kimi") -> list[Any]:
    from litellm.llms.anthropic.pass_through.adapters.transformation import LiteLLMAnthropicMessagesAdapter

    import kimi_provider.litellm_bridge  # noqa: F401  # installs the shim

    translated: list[Any] = LiteLLMAnthropicMessagesAdapter().translate_anthropic_messages_to_openai(
        messages, "kimi", custom_llm_provider=provider
    )
    return translated


def through_litellm_responses(items: Any, provider: str = "kimi") -> list[Any]:
    from litellm.responses.litellm_completion_transformation.transformation import LiteLLMCompletionResponsesConfig

    import kimi_provider.litellm_bridge  # noqa: F401  # installs the shim

    translated = LiteLLMCompletionResponsesConfig.transform_responses_api_request_to_chat_completion_request(
        "kimi", items, {"instructions": "Be brief."}, custom_llm_provider=provider
    )
    messages: list[Any] = translated["messages"]
    return messages


def chat_request(messages: list[Any]) -> Any:
    return inbound.read(
        model="kimi", messages=messages, optional_params={}, litellm_params=None, timeout=None, api_key=None
    ).request


def described(messages: list[Any]) -> list[tuple[str, list[str]]]:
    """Role and parts of each message: texts, and files as `place kind name`."""
    return [
        (
            message.role,
            [p.text if isinstance(p, TextPart) else f"{p.place} {p.kind} {p.filename}" for p in message.parts],
        )
        for message in chat_request(messages).messages
    ]


IMAGE_BLOCK = source("base64", "image", media_type="image/png", data="AAAA")
TEXT_BLOCK = {"type": "text", "text": "Compare."}
HISTORY = [
    {"role": "user", "content": [source("text", media_type="text/plain", data="Alone", title="Note")]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "Seen:"}, IMAGE_BLOCK, base64_document(title="R")],
            },
            TEXT_BLOCK,
            IMAGE_BLOCK,
        ],
    },
    {"role": "system", "content": "Operator note"},
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "t2", "content": [base64_document(title="S")]}],
    },
]


def test_anthropic_blocks_pass_litellm_whole_and_in_place() -> None:
    document = "[Document: Note]", "Alone", "[End of document]"
    translated = through_litellm_anthropic(HISTORY)
    seen = described([message for message in translated if message["role"] != "system"])
    wanted = [
        ("user", list(document)),
        ("assistant", []),
        ("tool", ["Seen:", "Message 3, part 1.2 image None", "Message 3, part 1.3 file R.pdf"]),
        ("user", ["Compare.", "Message 3, part 3 image None"]),
        ("tool", ["Message 5, part 1.1 file S.pdf"]),
    ]
    assert [row for row in seen if row in wanted] == wanted
    assert sum("Operator note" in "".join(texts) for _, texts in described(translated)) == 1


@pytest.mark.parametrize(
    ("result", "parts"),
    [
        ({}, []),
        ({"content": "boom"}, ["boom"]),
        ({"content": [TEXT_BLOCK]}, ["Compare."]),
        ({"content": [TEXT_BLOCK, base64_document(title="R")]}, ["Compare.", "Message 1, part 1.2 file R.pdf"]),
    ],
)
def test_a_result_that_is_an_error_stays_one(result: dict[str, Any], parts: list[str]) -> None:
    block = {"type": "tool_result", "tool_use_id": "t1", **result}
    others = [{**block, "tool_use_id": "t2"}, {**block, "tool_use_id": "t3", "is_error": False}]
    translated = through_litellm_anthropic([{"role": "user", "content": [{**block, "is_error": True}, *others]}])
    tools = [message for message in chat_request(translated).messages if message.role == "tool"]
    assert [message.is_error for message in tools] == [True, False, False]
    assert [part for part in described(translated)[0][1] if part] == parts


def test_responses_items_pass_litellm_whole_and_in_place() -> None:
    translated = through_litellm_responses(
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": PNG},
                    {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
                    {"type": "input_file", "file_url": "https://x.example/b.pdf"},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [
                    {"type": "input_text", "text": "Result"},
                    {"type": "input_file", "file_data": PDF, "filename": "r.pdf"},
                    {"type": "input_text", "text": "end"},
                ],
            },
        ]
    )
    assert described(translated) == [
        ("system", ["Be brief."]),
        (
            "user",
            [
                "Look",
                "Message 1, part 2 image None",
                "Message 1, part 3 file a.pdf",
                "Message 1, part 4 file None",
            ],
        ),
        ("assistant", []),
        ("tool", ["Result", "Message 3, part 2 file r.pdf", "end"]),
    ]


@pytest.mark.parametrize("type_", ["input_audio", "wizard"])
def test_what_litellm_would_drop_is_refused(type_: str) -> None:
    translated = through_litellm_responses(
        [{"role": "user", "content": [{"type": "input_text", "text": "?"}, {"type": type_}]}]
    )
    with pytest.raises(BadRequest, match="Message 1, part 2: Kimi does not take"):
        chat_request(translated)
    translated = through_litellm_anthropic([{"role": "user", "content": [{"type": type_}, TEXT_BLOCK]}])
    with pytest.raises(BadRequest, match="Message 1, part 1: Kimi does not take"):
        chat_request(translated)


def test_litellm_still_drops_what_is_carried() -> None:
    """Fails when LiteLLM's own translations keep these: then the shim can go."""
    message = {
        "role": "user",
        "content": [TEXT_BLOCK, source("text", media_type="text/plain", data="Lost"), IMAGE_BLOCK],
    }
    (translated,) = through_litellm_anthropic([message], provider="other")
    assert [part["type"] for part in translated["content"]] == ["text", "image_url"]
    failed = {"type": "tool_result", "tool_use_id": "t1", "content": "boom", "is_error": True}
    (translated,) = through_litellm_anthropic([{"role": "user", "content": [failed]}], provider="other")
    assert "error" not in str(translated)
    audio = {
        "role": "user",
        "content": [{"type": "input_text", "text": "?"}, {"type": "input_audio", "input_audio": {}}],
    }
    *_, translated = through_litellm_responses([audio], provider="other")
    assert [part["type"] for part in translated["content"]] == ["text"]


def test_plain_requests_and_strings_are_translated_as_ever() -> None:
    plain = [{"role": "user", "content": "Hi"}, {"role": "user", "content": [TEXT_BLOCK]}]
    assert through_litellm_anthropic(plain) == through_litellm_anthropic(plain, provider="other")
    assert through_litellm_responses("Hi") == through_litellm_responses("Hi", provider="other")


def test_the_callers_own_request_is_not_changed() -> None:
    before = repr(HISTORY)
    through_litellm_anthropic(HISTORY)
    assert repr(HISTORY) == before


def test_gemini_files_keep_the_place_in_contents() -> None:
    inline = {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0=", "displayName": "a.pdf"}}
    kept = {"fileData": {"fileUri": "https://x.example/b"}}
    answer = {"functionResponse": {"name": "f", "response": {"y": 2}, "parts": [{"inlineData": inline["inlineData"]}]}}
    chat = to_chat(
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "one"}, inline, {"text": "two"}, kept]},
                {
                    "role": "model",
                    "parts": [{"text": "Here:"}, {"inline_data": {"mime_type": "image/png", "data": "AAAA"}}],
                },
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
                {"role": "user", "parts": [{"text": "and"}, answer]},
            ],
        }
    )
    assert described(chat.body["messages"]) == [
        ("system", ["Be brief."]),
        ("user", ["one", "Message 1, part 2 file a.pdf", "two", "Message 1, part 4 file None"]),
        ("assistant", ["Here:", "Message 2, part 2 image None"]),
        ("assistant", [""]),
        ("tool", ['{"y":2}', "Message 4, part 2.1 file a.pdf"]),
        ("user", ["and"]),
    ]


@pytest.mark.parametrize(
    "uri", ["files/abc-1", "https://generativelanguage.googleapis.com/v1beta/files/abc-1"], ids=["id", "address"]
)
def test_files_kept_by_google_are_refused(uri: str) -> None:
    part = {"fileData": {"fileUri": uri, "mimeType": "image/png"}}
    with pytest.raises(BadRequest, match="Message 1, part 2: files kept by Google"):
        to_chat({"contents": [{"parts": [{"text": "?"}, part]}]})


def test_a_place_is_not_part_of_the_json() -> None:
    import orjson

    assert orjson.dumps(PlacedPart({"type": "text"}, "Message 1, part 1")) == b'{"type":"text"}'


def test_no_file_is_copied_on_its_way() -> None:
    data = base64.b64encode(bytes(6_000_000)).decode()
    url = "data:application/pdf;base64," + data
    block = source("base64", media_type="application/pdf", data=data, title="Large")
    chat = [{"role": "user", "content": [{"type": "file", "file": {"file_data": url}}]}]
    item = {"role": "user", "content": [{"type": "input_file", "file_data": url}]}
    tracemalloc.start()
    try:
        carrier = Carrier()
        hidden = carrier.anthropic([{"role": "user", "content": [block]}])
        carrier.put_back(hidden)
        requests = [chat_request(chat), chat_request(hidden)]
        hidden = carrier.responses([item])
        carrier.put_back(hidden)
        requests.append(chat_request(hidden))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sources = [request.messages[0].parts[-1].source for request in requests]
    assert [source is given for source, given in zip(sources, (url, data, url), strict=True)] == [True] * 3
    assert peak_bytes < 1_000_000


def test_a_translation_that_is_not_as_known_is_left_alone_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm.responses.litellm_completion_transformation.transformation import LiteLLMCompletionResponsesConfig

    from kimi_provider.litellm_bridge import PROVIDER, compat, handler

    name = "transform_responses_api_request_to_chat_completion_request"
    monkeypatch.setattr(LiteLLMCompletionResponsesConfig, name, staticmethod(lambda model, messages: None))
    (line,) = compat.install(handler, PROVIDER)
    assert "lost on /v1/responses" in line
    assert not hasattr(getattr(LiteLLMCompletionResponsesConfig, name), "kimi_provider")


def test_files_and_documents_as_a_library(simulator: Simulator, tmp_path: Path) -> None:
    """Without a proxy there is no body to look into; nothing of ours needs it."""
    out = run(
        simulator,
        tmp_path,
        """
        import base64, hashlib
        warnings.filterwarnings("ignore", "unclosed scandir", ResourceWarning)  # LiteLLM's, on its first message
        pdf = b"%PDF-1.7 as a library" * 30
        data = base64.b64encode(pdf).decode()
        file = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + data, "filename": "a.pdf"}}
        ask = [{"role": "user", "content": [{"type": "text", "text": "What?"}, file]}]
        print(litellm.completion(model=MODEL, messages=ask).choices[0].message.content)
        text = {"type": "text", "media_type": "text/plain", "data": "D"}
        document = {"type": "document", "title": "T", "source": text}
        paper = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
        turn = [{"role": "user", "content": [document, paper, {"type": "text", "text": "What?"}]}]
        async def messages():
            return await litellm.anthropic.messages.acreate(model=MODEL, max_tokens=4000, messages=turn)
        print(asyncio.run(messages())["content"][0]["text"])
        print(hashlib.sha256(pdf).hexdigest())
        """,
    )
    chat, messages, digest = out.splitlines()
    assert "I see a.pdf (document)" in chat
    assert "[Document: T] D [End of document]" in messages
    assert {file["sha256"] for file in simulator.state()["files"]} == {digest}
