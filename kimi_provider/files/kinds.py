"""What a file is by its first bytes, and a name that fits. The tables are `files` of upstream.yaml.

Names and types that come with a file are hints: they choose between types that share the same first bytes (a .docx is
a zip), never against them.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass
from email.message import Message
from pathlib import PurePosixPath
from urllib.parse import unquote

from ..upstream import Files

#: Bytes needed to tell what a file is.
HEAD_BYTES = 4096

_MAX_STEM_BYTES = 120
_EXTENSION = re.compile(r"[a-z0-9][a-z0-9_+-]{0,15}")
#: Bytes that text does not hold: control characters besides white space, backspace and escape.
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\v\f\r\x1b"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """`types` maps the extensions a file with these bytes may have to media types, the usual one first."""

    types: dict[str, str]
    image: bool = False
    text: bool = False

    @property
    def word(self) -> str:
        """For people: "text", "image/png", "data of an unknown type"."""
        return "text" if self.text else next(iter(self.types.values()), "data of an unknown type")


def sniff(head: bytes, files: Files) -> Kind:
    """The kind of a file that begins with `head` (its first `HEAD_BYTES`, or all of it)."""
    for signature in files.signatures:
        if signature.regex.match(head):
            return Kind(types=dict(signature.types), image=signature.image)
    if _is_text(head):
        return Kind(types=dict(files.texts), text=True)
    return Kind(types={})


def _is_text(head: bytes) -> bool:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    if head.translate(None, _CONTROLS) != head:
        return False
    try:
        # Not final: the head may end inside a character.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def named(kind: Kind, files: Files, *, names: tuple[str | None, ...], media_type: str | None) -> tuple[str, str]:
    """(file name, media type): the first usable one of `names`, with an extension that its bytes allow."""
    name = next((clean for given in names if given and (clean := sanitised(given))), "")
    path = PurePosixPath(name)
    extension = path.suffix.removeprefix(".").lower()
    if not _EXTENSION.fullmatch(extension):
        extension = ""
    stem = (path.stem if extension else name) or ("image" if kind.image else "file")
    declared = (media_type or "").partition(";")[0].strip().lower()
    if extension in kind.types:
        return f"{stem}.{extension}", kind.types[extension]
    if kind.text or not kind.types:
        # Any other ending is as good for text (.rs, .tex) and for what nobody knows, unless it promises another type.
        promised = extension in files.texts or any(extension in known.types for known in files.signatures)
        if extension and not promised:
            return f"{stem}.{extension}", "text/plain" if kind.text else "application/octet-stream"
    for fitting, known in kind.types.items():
        if known == declared:
            return f"{stem}.{fitting}", known
    fitting, known = next(iter(kind.types.items()), ("bin", "application/octet-stream"))
    return f"{stem}.{fitting}", known


def sanitised(name: str) -> str:
    """The last part of a path without what file systems, headers or readers might take for something else.

    May be empty. Control, format (bidirectional) and private characters, lone surrogates and signs with a meaning in
    a path or header are dropped; at most about 120 bytes stay.
    """
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name[:4096]))[-1]
    kept = "".join(
        " " if sign.isspace() else sign
        for sign in base
        if sign not in '<>:"|?*;%' and (sign.isspace() or unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Co"))
    )
    kept = " ".join(kept.split()).strip(". ")
    stem, dot, extension = kept.rpartition(".")
    if not dot or len(extension) > 16:
        stem, dot, extension = kept, "", ""
    stem = stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore").rstrip(". ")
    return stem + dot + extension if stem else ""


def disposition_name(header: str | None) -> str | None:
    """The file name of a Content-Disposition header (RFC 6266), if it holds one."""
    if not header:
        return None
    message = Message()
    try:
        message["content-disposition"] = header[:4096]
        return message.get_filename()
    except (ValueError, LookupError, TypeError):  # nonsense in the header; its name is a hint only
        return None


def path_name(url_path: str) -> str | None:
    """The last part of a URL's path, decoded."""
    return unquote(url_path.rpartition("/")[2]) or None
