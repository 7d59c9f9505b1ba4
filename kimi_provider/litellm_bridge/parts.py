"""The content of a message -> parts, whichever API the caller speaks.

Law: text stays text, files stay files, in the caller's order. A file is never looked into here: its text is handed on
by reference, because it may have 140 million characters. Documents that are text become text with their title, unless
they are so long that the service should read them as a file. What can't be sent is BadRequest and names its place in
the caller's own request. `carrying` brings the blocks here that LiteLLM's translations would change or drop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..errors import BadRequest
from ..request import FilePart, Part, TextPart

#: A text document of up to so many characters (about 25,000 tokens) is part of the prompt; a longer one is a file.
MAX_PROMPT_DOCUMENT_CHARS = 100_000
#: Shorter base64 might be mistaken for a name or id, so it is marked as what it is.
_SURELY_BASE64_CHARS = 4096

_ADDRESS = re.compile(r"data:|\w+://", re.IGNORECASE)
_SEND_THE_FILE = "Send the file itself: as a data: URL, as base64, or as an http(s) address that anyone can fetch."


class PlacedPart(dict[str, Any]):
    """A part of a chat message that remembers its place in the caller's own request; its JSON does not show it."""

    def __init__(self, part: Mapping[str, Any], place: str) -> None:
        super().__init__(part)
        self.place = place


def place_of(message: int, *parts: int) -> str:
    """How errors name a part, counted from one: `Message 3, part 2`, or `part 2.1` inside a tool's result."""
    return f"Message {message}, part {'.'.join(map(str, parts))}"


def read(content: Any, number: int, ignored: set[str]) -> tuple[Part, ...]:
    """Parts of the content of message `number`. Adds to `ignored` what has no effect. Raises BadRequest."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    if not isinstance(content, list):
        raise BadRequest(f"Message {number}: content must be text or a list of parts, not {type(content).__name__}")
    parts: list[Part] = []
    for at, item in enumerate(content, start=1):
        parts += _read(item, getattr(item, "place", place_of(number, at)), ignored)
    return tuple(parts)


def _read(item: Any, place: str, ignored: set[str]) -> Iterator[Part]:
    if isinstance(item, str):
        yield TextPart(text=item)
        return
    block = _mapping(item)
    match block.get("type"):
        case "text" | "input_text" | "output_text":
            yield TextPart(text=str(block.get("text") or ""))
        case "image_url" | "input_image":
            image = _mapping(block.get("image_url")) or {"url": block.get("image_url"), "detail": block.get("detail")}
            if image.get("detail") not in (None, "auto"):
                ignored.add("detail")
            address = image.get("url") or _id(block.get("file_id"), place)
            yield _file(address, place, kind="image", media_type=image.get("format"))
        case "file" if "type" in _mapping(block.get("file")):  # carried
            yield from _read(block["file"], place, ignored)
        case "file" | "input_file":
            file = _mapping(block.get("file")) or block
            source = file.get("file_data") or file.get("file_url") or _id(file.get("file_id"), place)
            yield _file(source, place, filename=file.get("filename"), media_type=file.get("format"))
        case "image" | "document":
            if _mapping(block.get("citations")).get("enabled"):
                ignored.add("citations")
            yield from _sourced(block, place, ignored)
        case "search_result":
            yield from _framed(
                "Search result", block.get("title"), block.get("source"), block.get("content"), place, ignored
            )
        case "thinking" | "redacted_thinking" | "reasoning":
            pass  # the model's earlier reasoning is no part of a transcript
        case "input_audio" | "audio" | "audio_url":
            raise BadRequest(f"{place}: Kimi does not take audio", cure="Send what is said as text.")
        case kind:
            raise BadRequest(f"{place}: Kimi does not take parts of type {shown(kind)}")


# --- Anthropic's blocks -----------------------------------------------------------------------------------


def _sourced(block: Mapping[str, Any], place: str, ignored: set[str]) -> Iterator[Part]:
    """An `image` or `document` block: base64, url, text, content or file."""
    source = _mapping(block.get("source"))
    title, context = _line(block.get("title")), block.get("context")
    kind: Literal["image", "file"] = "image" if block["type"] == "image" else "file"
    text = source.get("data") if source.get("type") == "text" else source.get("content")
    match source.get("type"):
        case "text" if isinstance(text, str) and len(text) > MAX_PROMPT_DOCUMENT_CHARS:
            # Only the percent sign has a meaning in a data: URL that is not base64.
            address = "data:text/plain;charset=utf-8," + text.replace("%", "%25")
            file = _file(address, place, filename=_filename(title, ".txt"))
        case "text" | "content":
            yield from _framed("Document", title, context, text, place, ignored)
            return
        case "base64":
            name, media_type = _filename(title, ".pdf"), source.get("media_type")
            file = _file(_base64(source.get("data")), place, kind=kind, filename=name, media_type=media_type)
        case "url":
            file = _file(source.get("url"), place, kind=kind, filename=_filename(title, ".pdf"))
        case "file":
            file = _file(_id(source.get("file_id"), place), place, kind=kind)
        case other:
            raise BadRequest(f"{place}: its source has the unknown type {shown(other)}", cure=_SEND_THE_FILE)
    if context:
        yield TextPart(text=_heading("Document", title, context))
    yield file


def _filename(title: str, extension: str) -> str | None:
    return title if not title or title.lower().endswith(extension) else title + extension


def _framed(word: str, title: Any, context: Any, content: Any, place: str, ignored: set[str]) -> Iterator[Part]:
    """Text or blocks between a heading and an end."""
    yield TextPart(text=_heading(word, title, context))
    for item in content if isinstance(content, list) else [str(content or "")]:
        yield from _read(item, place, ignored)
    yield TextPart(text=f"[End of {word.lower()}]")


def _heading(word: str, title: Any, context: Any) -> str:
    titled = f"[{word}: {_line(title)}]" if _line(title) else f"[{word}]"
    return f"{titled}\n({context})" if context else titled


def _line(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


# --- files ------------------------------------------------------------------------------------------------


def _file(
    source: Any,
    place: str,
    *,
    kind: Literal["image", "file"] = "file",
    filename: Any = None,
    media_type: Any = None,
) -> FilePart:
    """A file of what its type says, where it has one: a PDF given as an image is no image."""
    source = source if isinstance(source, str) else ""
    media_type = media_type if isinstance(media_type, str) and media_type else None
    declared = media_type or _declared(source)
    if declared is not None:
        kind = "image" if declared.startswith("image/") and declared != "image/svg+xml" else "file"
    return FilePart(
        kind=kind,
        source=source,
        filename=filename if isinstance(filename, str) and filename else None,
        media_type=media_type,
        place=place,
    )


def _declared(source: str) -> str | None:
    """The media type that a data: URL names, or that the path of an address leaves no doubt of."""
    head = source[:2048].lstrip().lower()
    if head.startswith("data:"):
        return head[5:].partition(",")[0].partition(";")[0].strip() or None
    path = head.partition("?")[0].partition("#")[0]
    return "application/pdf" if path.startswith(("http:", "https:")) and path.endswith(".pdf") else None


def _base64(data: Any) -> Any:
    if not isinstance(data, str) or len(data) > _SURELY_BASE64_CHARS or data.lstrip().startswith("data:"):
        return data
    return f"data:;base64,{data}"


def _id(file_id: Any, place: str) -> Any:
    """LiteLLM gives addresses as ids, too; an id of a provider's storage means nothing here."""
    if isinstance(file_id, str) and file_id and not _ADDRESS.match(file_id):
        raise BadRequest(f"{place}: the file id {shown(file_id)} is not known here", cure=_SEND_THE_FILE)
    return file_id


# --- JSON shapes ------------------------------------------------------------------------------------------


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def shown(value: Any) -> str:
    """`value` as an error names it, cut short."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
