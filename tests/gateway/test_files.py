"""Files and images through a real proxy, with the official SDKs: each kind on each API, whole or refused by its place.

The proxy of these tests has LiteLLM's cache switched on, so that an answer which came from there would show.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.harness import MASTER_KEY, Gateway, Simulator, shipped_config_with_cache
from tests.listener import Listener, QuietHandler

TOO_LARGE_BYTES = 101 * 1024 * 1024
METADATA = "http://169.254.169.254/latest/meta-data/"


class Site(Listener):
    """A web server on loopback with the files that were put there, a redirect and a file that says it is large."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        site = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                if self.path == "/to-metadata":
                    self.send_response(302)
                    self.send_header("location", METADATA)
                    self.end_headers()
                elif self.path == "/too-large.pdf":
                    self.send_response(200)
                    self.send_header("content-length", str(TOO_LARGE_BYTES))
                    self.end_headers()
                else:
                    media_type, data = site.files[self.path]
                    self.send_response(200)
                    self.send_header("content-type", media_type)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

        super().__init__(Handler)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="module")
def file_gateway(tmp_path_factory: pytest.TempPathFactory, simulator_process: Simulator) -> Iterator[Gateway]:
    tmp = tmp_path_factory.mktemp("files")
    config = shipped_config_with_cache(tmp)
    token = simulator_process.login("files")["refresh_token"]
    with Gateway(tmp, simulator_process.url, token, config, KIMI_FILE_HOSTS_ALLOWED="127.0.0.1") as gateway:
        yield gateway


@pytest.fixture
def world(file_gateway: Gateway, simulator: Simulator, site: Site) -> Iterator[World]:
    simulator.control("settings", parse_delay_s=0)
    world = World(gateway=file_gateway, simulator=simulator, site=site)
    yield world
    world.close()


@dataclass(kw_only=True)
class World:
    """The SDKs, and what the simulated service has seen."""

    gateway: Gateway
    simulator: Simulator
    site: Site
    oai: openai.OpenAI = field(init=False)
    claude: anthropic.Anthropic = field(init=False)
    google: genai.Client = field(init=False)

    def __post_init__(self) -> None:
        self.oai = openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=MASTER_KEY, max_retries=0)
        self.claude = anthropic.Anthropic(base_url=self.gateway.url, api_key=MASTER_KEY, max_retries=0)
        self.google = genai.Client(api_key=MASTER_KEY, http_options=types.HttpOptions(base_url=self.gateway.url))

    def close(self) -> None:
        for client in (self.oai, self.claude, self.google):
            client.close()

    def files(self) -> list[tuple[str, str]]:
        """Digest and kind of each file, in order of arrival."""
        return [(file["sha256"], file["type"]) for file in self.simulator.state()["files"]]

    def names(self) -> list[str]:
        return [file["name"] for file in self.simulator.state()["files"]]

    def requests(self, path_end: str) -> list[dict[str, Any]]:
        return [r for r in self.simulator.state()["requests"] if r["path"].endswith(path_end)]

    def uploads(self) -> int:
        return len(self.requests("/file/upload"))

    def prompt(self) -> str:
        """The text of the last call."""
        blocks = self.requests("ChatService/Chat")[-1]["body"]["message"]["blocks"]
        return "".join(block["text"]["content"] for block in blocks if "text" in block)

    def sent_files(self) -> int:
        """Files named by the last call."""
        blocks = self.requests("ChatService/Chat")[-1]["body"]["message"]["blocks"]
        return sum("file" in block for block in blocks)

    def ask(self, surface: str, content: list[Any], *, stream: bool = False) -> str:
        """The answer's text to one user message, through the surface's own SDK."""
        turn: Any = [{"role": "user", "content": content}]
        match surface, stream:
            case "chat", False:
                return self.oai.chat.completions.create(model="kimi", messages=turn).choices[0].message.content or ""
            case "chat", True:
                chunks = self.oai.chat.completions.create(model="kimi", messages=turn, stream=True)
                return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            case "messages", False:
                message = self.claude.messages.create(model="kimi", max_tokens=4000, messages=turn)
                return "".join(block.text for block in message.content if block.type == "text")
            case "messages", True:
                with self.claude.messages.stream(model="kimi", max_tokens=4000, messages=turn) as events:
                    return "".join(events.text_stream)
            case "responses", False:
                return self.oai.responses.create(model="kimi", input=turn).output_text
            case "responses", True:
                parts = self.oai.responses.create(model="kimi", input=turn, stream=True)
                return "".join(part.delta for part in parts if part.type == "response.output_text.delta")
            case "gemini", False:
                return self.google.models.generate_content(model="kimi", contents=content).text or ""
            case _:
                pieces = self.google.models.generate_content_stream(model="kimi", contents=content)
                return "".join(piece.text or "" for piece in pieces)


@dataclass(frozen=True, kw_only=True)
class Given:
    """A file of a caller's, never sent before."""

    data: bytes
    media_type: str
    kind: str
    site: Site
    name: str = field(default_factory=lambda: f"{uuid.uuid4().hex[:8]}")

    @classmethod
    def png(cls, site: Site) -> Given:
        data = b"\x89PNG\r\n\x1a\n" + uuid.uuid4().bytes * 40
        return cls(data=data, media_type="image/png", kind="image", site=site)

    @classmethod
    def pdf(cls, site: Site) -> Given:
        data = b"%PDF-1.7\n" + uuid.uuid4().bytes * 9000  # about 144 KB, not a multiple of three
        return cls(data=data, media_type="application/pdf", kind="document", site=site)

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode()

    @property
    def data_url(self) -> str:
        return f"data:{self.media_type};base64,{self.base64}"

    @property
    def address(self) -> str:
        path = f"/{self.name}.{self.media_type.partition('/')[2]}"
        self.site.files[path] = (self.media_type, self.data)
        return self.site.url + path

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def source(given: Given, block: str, **more: Any) -> dict[str, Any]:
    inline = {"type": "base64", "media_type": given.media_type, "data": given.base64}
    return {"type": block, "source": inline, **more}


Make = Callable[[Given], Any]
#: API, what the case is called, which file, the part that holds it, the name it must have got.
KINDS: list[tuple[str, str, Callable[[Site], Given], Make, Callable[[Given], str] | None]] = [
    ("chat", "image-data", Given.png, lambda g: {"type": "image_url", "image_url": {"url": g.data_url}}, None),
    ("chat", "image-address", Given.png, lambda g: {"type": "image_url", "image_url": {"url": g.address}}, None),
    ("chat", "pdf-as-image", Given.pdf, lambda g: {"type": "image_url", "image_url": {"url": g.data_url}}, None),
    (
        "chat",
        "file-data",
        Given.pdf,
        lambda g: {"type": "file", "file": {"file_data": g.data_url, "filename": f"{g.name}.pdf"}},
        lambda g: f"{g.name}.pdf",
    ),
    (
        "chat",
        "file-base64",
        Given.pdf,
        lambda g: {"type": "file", "file": {"file_data": g.base64, "filename": f"{g.name}.pdf"}},
        lambda g: f"{g.name}.pdf",
    ),
    ("messages", "image-base64", Given.png, lambda g: source(g, "image"), None),
    (
        "messages",
        "image-url",
        Given.png,
        lambda g: {"type": "image", "source": {"type": "url", "url": g.address}},
        lambda g: f"{g.name}.png",
    ),
    (
        "messages",
        "document-base64",
        Given.pdf,
        lambda g: source(g, "document", title=f"{g.name} report"),
        lambda g: f"{g.name} report.pdf",
    ),
    (
        "messages",
        "document-url",
        Given.pdf,
        lambda g: {"type": "document", "title": f"{g.name} d", "source": {"type": "url", "url": g.address}},
        lambda g: f"{g.name} d.pdf",
    ),
    (
        "messages",
        "document-of-blocks",
        Given.png,
        lambda g: {"type": "document", "source": {"type": "content", "content": [source(g, "image")]}},
        None,
    ),
    ("responses", "image", Given.png, lambda g: {"type": "input_image", "image_url": g.data_url}, None),
    ("responses", "image-address", Given.png, lambda g: {"type": "input_image", "image_url": g.address}, None),
    (
        "responses",
        "file-data",
        Given.pdf,
        lambda g: {"type": "input_file", "file_data": g.data_url, "filename": f"{g.name}.pdf"},
        lambda g: f"{g.name}.pdf",
    ),
    (
        "responses",
        "file-url",
        Given.pdf,
        lambda g: {"type": "input_file", "file_url": g.address},
        lambda g: f"{g.name}.pdf",
    ),
    ("gemini", "image", Given.png, lambda g: types.Part.from_bytes(data=g.data, mime_type=g.media_type), None),
    (
        "gemini",
        "pdf-with-name",
        Given.pdf,
        lambda g: types.Part(inline_data=types.Blob(data=g.data, mime_type=g.media_type, display_name=f"{g.name}.pdf")),
        lambda g: f"{g.name}.pdf",
    ),
    ("gemini", "file-uri", Given.pdf, lambda g: types.Part.from_uri(file_uri=g.address, mime_type=g.media_type), None),
]
TEXT: dict[str, Any] = {
    "chat": {"type": "text", "text": "What is this?"},
    "messages": {"type": "text", "text": "What is this?"},
    "responses": {"type": "input_text", "text": "What is this?"},
    "gemini": "What is this?",
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("surface", "name", "make", "part", "filename"), KINDS, ids=[f"{c[0]}-{c[1]}" for c in KINDS])
def test_each_kind_arrives_whole(
    world: World,
    surface: str,
    name: str,
    make: Callable[[Site], Given],
    part: Make,
    filename: Callable[[Given], str] | None,
    stream: bool,
) -> None:
    given = make(world.site)
    answer = world.ask(surface, [TEXT[surface], part(given)], stream=stream)
    assert world.files() == [(given.digest, given.kind)]
    if filename is not None:
        assert world.names() == [filename(given)]
    assert "What is this?" in world.prompt()
    assert world.sent_files() == 1
    assert f"({given.kind})" in answer
    assert given.base64[:40] not in world.prompt()


@pytest.mark.parametrize("surface", TEXT)
def test_a_file_without_a_word_is_a_message(world: World, surface: str) -> None:
    given = Given.png(world.site)
    part = next(make for api, _, made, make, _ in KINDS if api == surface and made == Given.png)
    world.ask(surface, [part(given)])
    assert world.files() == [(given.digest, "image")]


@pytest.mark.parametrize("surface", TEXT)
def test_several_files_keep_their_order(world: World, surface: str) -> None:
    given = [Given.png(world.site) for _ in range(3)]
    part = next(make for api, _, made, make, _ in KINDS if api == surface and made == Given.png)
    world.ask(surface, [part(given[0]), TEXT[surface], part(given[1]), part(given[2])])
    assert [digest for digest, _ in world.files()] == [one.digest for one in given]
    assert world.sent_files() == 3


# --- Anthropic's documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_documents_that_are_text_are_read_without_an_upload(world: World, stream: bool) -> None:
    content = [
        {
            "type": "document",
            "title": "Q3 report",
            "context": "A draft",
            "source": {"type": "text", "media_type": "text/plain", "data": "Sales rose by 7%."},
        },
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "Blocks too."}]}},
        {
            "type": "search_result",
            "title": "Found",
            "source": "https://x.example/a",
            "content": [{"type": "text", "text": "A finding."}],
        },
        TEXT["messages"],
    ]
    world.ask("messages", content, stream=stream)
    prompt = world.prompt()
    said = ["Q3 report", "A draft", "Sales rose by 7%.", "Blocks too.", "Found", "https://x.example/a", "A finding."]
    places = [prompt.index(word) for word in [*said, "What is this?"]]
    assert places == sorted(places)
    assert world.uploads() == 0


def test_a_long_text_document_is_uploaded_whole(world: World) -> None:
    text = f"{uuid.uuid4()} 100% wörds\n" * 5000
    block = {"type": "document", "title": "Long", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    world.ask("messages", [block, TEXT["messages"]])
    assert world.files() == [(hashlib.sha256(text.encode()).hexdigest(), "document")]
    assert world.names() == ["Long.txt"]


# --- files from anywhere in the history -------------------------------------------------------------------


def test_files_of_an_anthropic_tool_result(world: World) -> None:
    image, pdf = Given.png(world.site), Given.pdf(world.site)
    tool: Any = [{"name": "look", "input_schema": {"type": "object"}}]
    result = [{"type": "text", "text": "Seen:"}, source(image, "image"), source(pdf, "document", title="R")]
    world.claude.messages.create(
        model="kimi",
        max_tokens=4000,
        tools=tool,
        messages=[
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": result}]},
        ],
    )
    assert world.files() == [(image.digest, "image"), (pdf.digest, "document")]
    assert world.prompt().index("Seen:") > world.prompt().index("Look.")


def test_files_of_a_responses_function_output(world: World) -> None:
    image, pdf = Given.png(world.site), Given.pdf(world.site)
    output = [
        {"type": "input_text", "text": "Seen:"},
        {"type": "input_image", "image_url": image.data_url},
        {"type": "input_file", "file_data": pdf.data_url, "filename": "r.pdf"},
    ]
    items: Any = [
        {"role": "user", "content": "Look."},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": output},
    ]
    world.oai.responses.create(model="kimi", input=items)
    assert world.files() == [(image.digest, "image"), (pdf.digest, "document")]
    assert "Seen:" in world.prompt()


def test_files_of_a_gemini_function_response(world: World) -> None:
    image = Given.png(world.site)
    inline = {"inlineData": {"mimeType": "image/png", "data": image.base64}}
    body = {
        "contents": [
            {"role": "user", "parts": [{"text": "Look."}]},
            {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "look", "response": {"seen": 1}, "parts": [inline]}}],
            },
        ]
    }
    answer = world.gateway.http.post("/v1beta/models/kimi:generateContent", json=body)
    assert answer.status_code == 200, answer.text
    assert world.files() == [(image.digest, "image")]


def test_both_spellings_of_gemini(world: World) -> None:
    camel, snake = Given.png(world.site), Given.png(world.site)
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": camel.base64}},
        {"inline_data": {"mime_type": "image/png", "data": snake.base64}},
    ]
    answer = world.gateway.http.post("/v1beta/models/kimi:generateContent", json={"contents": [{"parts": parts}]})
    assert answer.status_code == 200, answer.text
    assert [digest for digest, _ in world.files()] == [camel.digest, snake.digest]


def test_an_earlier_messages_file_is_there_and_uploaded_once(world: World) -> None:
    given = Given.pdf(world.site)
    history: Any = [
        {"role": "user", "content": [TEXT["chat"], {"type": "file", "file": {"file_data": given.data_url}}]},
        {"role": "assistant", "content": "A report."},
        {"role": "user", "content": "And who wrote it?"},
    ]
    for length in (1, 3):
        world.oai.chat.completions.create(model="kimi", messages=history[:length])
        assert world.sent_files() == 1
    assert world.files() == [(given.digest, "document")]
    assert world.uploads() == 1


# --- beside the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", TEXT)
def test_calls_with_files_are_not_cached(world: World, surface: str, stream: bool) -> None:
    given = Given.png(world.site)
    part = next(make for api, _, made, make, _ in KINDS if api == surface and made == Given.png)
    for _ in range(2):
        world.ask(surface, [TEXT[surface], part(given)], stream=stream)
    assert world.simulator.state()["total_streams"] == 2


@pytest.mark.parametrize("kind", ["function_call_output", "text document"])
def test_files_and_documents_out_of_sight_are_not_cached(world: World, kind: str) -> None:
    def ask() -> None:
        if kind == "text document":
            block = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Same."}}
            world.ask("messages", [block, TEXT["messages"]])
            return
        output = [{"type": "input_image", "image_url": given.data_url}]
        items: Any = [
            {"role": "user", "content": "Look."},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": output},
        ]
        world.oai.responses.create(model="kimi", input=items)

    given = Given.png(world.site)
    ask()
    ask()
    assert world.simulator.state()["total_streams"] == 2


def test_files_do_not_count_by_their_length(world: World) -> None:
    pdf = Given.pdf(world.site)
    file = {"type": "file", "file": {"file_data": pdf.data_url}}
    chat = world.oai.chat.completions.create(model="kimi", messages=[{"role": "user", "content": [TEXT["chat"], file]}])
    turn: Any = [{"role": "user", "content": [TEXT["messages"], source(pdf, "document")]}]
    message = world.claude.messages.create(model="kimi", max_tokens=4000, messages=turn)
    counted = world.claude.messages.count_tokens(model="kimi", messages=turn)
    part = types.Part.from_bytes(data=pdf.data, mime_type=pdf.media_type)
    gemini = world.google.models.count_tokens(model="kimi", contents=["What is this?", part])
    assert chat.usage is not None
    for tokens in (chat.usage.prompt_tokens, message.usage.input_tokens, counted.input_tokens, gemini.total_tokens):
        assert 0 < (tokens or 0) < 1000


def test_what_has_no_effect_is_named(world: World) -> None:
    image = {"type": "image_url", "image_url": {"url": Given.png(world.site).data_url, "detail": "high"}}
    body = {"model": "kimi", "messages": [{"role": "user", "content": [image]}]}
    answer = world.gateway.http.post("/v1/chat/completions", json=body)
    assert "detail" in answer.headers["llm_provider-x-kimi-ignored"].split(",")


# --- what is refused --------------------------------------------------------------------------------------


def chat(part: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": [TEXT["chat"], part]}]}


def messages(part: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {
        "max_tokens": 4000,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [TEXT["messages"], part]}],
    }


def responses(part: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {
        "instructions": "Be brief.",
        "input": [{"role": "user", "content": [TEXT["responses"], part]}],
    }


def gemini(part: Any) -> tuple[str, dict[str, Any]]:
    return "/v1beta/models/kimi:generateContent", {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "What is this?"}, part]}],
    }


def inline(media_type: str, text: str, filename: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """The same data on every API; as an image where it says so."""
    url = f"data:{media_type};base64,{text}"
    image = media_type.startswith("image/")
    block = "image" if image else "document"
    file: dict[str, Any] = {"file_data": url, "filename": filename or "a.pdf"}
    return [
        chat({"type": "image_url", "image_url": {"url": url}} if image else {"type": "file", "file": file}),
        chat({"type": "file", "file": file}),
        messages({"type": block, "source": {"type": "base64", "media_type": media_type, "data": text}}),
        responses({"type": "input_image", "image_url": url} if image else {"type": "input_file", **file}),
        gemini({"inlineData": {"mimeType": media_type, "data": text}}),
    ]


def at(address: str) -> list[tuple[str, dict[str, Any]]]:
    """The same address on every API."""
    return [
        chat({"type": "image_url", "image_url": {"url": address}}),
        messages({"type": "image", "source": {"type": "url", "url": address}}),
        messages({"type": "document", "source": {"type": "url", "url": address}}),
        responses({"type": "input_file", "file_url": address}),
        gemini({"fileData": {"mimeType": "application/pdf", "fileUri": address}}),
    ]


def refused(world: World, path: str, body: dict[str, Any], *words: str) -> None:
    """Refused in the API's own format, streamed or not, with the part's place and `words`."""
    google = "/v1beta/" in path
    for stream in (False, True):
        sent = body if google else {"model": "kimi", "stream": stream, **body}
        target = path.replace(":generateContent", ":streamGenerateContent?alt=sse") if google and stream else path
        answer = world.gateway.http.post(target, json=sent)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        for word in ("Message 1, part 2: ", *words):
            assert word in error["message"]
        if google:
            assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
        elif path == "/v1/messages":
            assert answer.json()["type"] == "error"
            assert error["type"] == "invalid_request_error"
        else:
            assert error["code"] == "400"
        assert "Traceback" not in answer.text


def nothing_happened(world: World, uploads: int = 0) -> None:
    state = world.simulator.state()
    assert (state["total_streams"], state["chats"]) == (0, [])
    assert world.uploads() == uploads


TEXT_IN_BASE64 = base64.b64encode(b"I am no picture. " * 20).decode()


@pytest.mark.parametrize("number", range(5), ids=["chat", "chat-file", "messages", "responses", "gemini"])
@pytest.mark.parametrize(
    ("media_type", "text", "words"),
    [
        ("image/png", "iVBORw0KGgo" + "*" * 200, ("its base64 is damaged", "'*'")),
        ("application/pdf", "JVBERi0xLjcK" * 20 + "J", ("its base64 is damaged", "cut off")),
        ("image/png", TEXT_IN_BASE64, ("given as an image but holds text",)),
        ("image/png", "", ()),
    ],
    ids=["no-base64", "cut-off", "text-as-png", "empty"],
)
def test_damaged_data(world: World, media_type: str, text: str, words: tuple[str, ...], number: int) -> None:
    refused(world, *inline(media_type, text, "a.png" if media_type == "image/png" else None)[number], *words)
    nothing_happened(world)


@pytest.mark.parametrize("number", range(5), ids=["chat", "messages", "document", "responses", "gemini"])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        (METADATA, ("'169.254.169.254' is no host on the public internet",)),
        ("/to-metadata", ("'169.254.169.254' is no host on the public internet",)),
        ("http://localhost/a.pdf", ("no host on the public internet",)),
        ("/too-large.pdf", ("the file is too large", f"{TOO_LARGE_BYTES:,}")),
        ("ftp://x.example/a.pdf", ("'ftp:' can't be read",)),
    ],
    ids=["metadata", "redirect", "localhost", "101-MB", "ftp"],
)
def test_addresses_that_can_not_be_read(world: World, address: str, words: tuple[str, ...], number: int) -> None:
    url = world.site.url + address if address.startswith("/") else address
    refused(world, *at(url)[number], *words)
    nothing_happened(world)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        chat({"type": "file", "file": {"file_id": "file-abc123"}}),
        messages({"type": "document", "source": {"type": "file", "file_id": "file_011abc"}}),
        responses({"type": "input_file", "file_id": "file-abc123"}),
        responses({"type": "input_image", "file_id": "file-abc123"}),
        gemini({"fileData": {"fileUri": "files/abc-123"}}),
        gemini({"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc-123"}}),
    ],
    ids=["chat", "messages", "responses-file", "responses-image", "gemini", "gemini-address"],
)
def test_ids_of_files_kept_elsewhere(world: World, path: str, body: dict[str, Any]) -> None:
    refused(world, path, body, "end the file itself")
    nothing_happened(world)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        chat({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        chat({"type": "video_url", "video_url": {"url": "https://x.example/a.mp4"}}),
        messages({"type": "container_upload", "file_id": "file_011abc"}),
        responses({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        gemini({"executableCode": {"code": "1"}}),
    ],
    ids=["chat-audio", "chat-video", "messages", "responses-audio", "gemini"],
)
def test_parts_that_kimi_does_not_take(world: World, path: str, body: dict[str, Any]) -> None:
    refused(world, path, body, "Kimi does not take")
    nothing_happened(world)


@pytest.mark.parametrize("number", range(5), ids=["chat", "chat-file", "messages", "responses", "gemini"])
def test_a_file_that_the_service_can_not_read(world: World, number: int) -> None:
    world.simulator.control("settings", parse_result="fail")
    pdf = Given.pdf(world.site)
    refused(world, *inline("application/pdf", pdf.base64)[number])
    nothing_happened(world, uploads=2)  # one for each of the two calls


def test_the_place_counts_as_the_caller_does(world: World) -> None:
    """Not as the chat messages that LiteLLM makes of it: a system prompt, split tool results."""
    broken = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "*" * 200}}
    body = {
        "model": "kimi",
        "max_tokens": 4000,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Seen"}, broken]},
                    TEXT["messages"],
                ],
            },
        ],
    }
    answer = world.gateway.http.post("/v1/messages", json=body)
    assert answer.status_code == 400
    assert "Message 3, part 1.2: its base64 is damaged" in answer.json()["error"]["message"]
