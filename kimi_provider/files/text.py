"""Bytes that come as text: `data:` URLs and bare base64.

The text is part of a request that is in memory already. It is read in slices and never copied or decoded whole, so
that a 100 MB file costs its text and a few hundred kilobytes.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, unquote_to_bytes

from .refusal import Refused, shown, too_large

_SLICE_CHARS = 64 * 1024
_MAX_HEADER_CHARS = 1024

_URLSAFE = bytes.maketrans(b"-_", b"+/")
_SPACE = b" \t\r\n\f\v"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

ACCEPTED = "Give the file as a data: URL, as base64 text, or as an http(s) address that anyone can fetch."

#: Ids of files kept by a provider: OpenAI's and Anthropic's, Gemini's, UUIDs, and LiteLLM's, which are base64.
_ID = re.compile(
    r"file[-_][\w-]+|files/[\w.-]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|bGl0ZWxsbV9wcm94eT.*", re.IGNORECASE
)
#: Text this short must be base64 beyond doubt, or it is taken for a name or id.
_DOUBTFUL_CHARS = 128
_PLAIN_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """The part of `text` behind `start` holds the file. `percent` and `base64` say how."""

    text: str = field(repr=False)
    start: int
    base64: bool
    percent: bool
    media_type: str | None = None

    @property
    def least_bytes(self) -> int:
        """The file has at least so many bytes; exact for base64 that is whole and holds no escapes."""
        count = len(self.text) - self.start
        if self.percent:
            # In base64 an escape may stand for white space or padding, which are no part of the file.
            count -= (3 if self.base64 else 2) * self.text.count("%", self.start)
        if self.base64:
            count -= sum(self.text.count(sign, self.start) for sign in " \t\r\n\f\v=")
            count = count * 3 // 4
        return max(count, 0)

    def decoded(self, max_bytes: int) -> Iterator[bytes]:
        """The file in pieces of at most 64 KiB. Raises Refused, for a size beyond `max_bytes` at once."""
        if self.least_bytes > max_bytes:
            raise too_large(self.least_bytes, max_bytes)
        pieces = _percent_decoded(self.text, self.start) if self.percent else _sliced(self.text, self.start)
        return _base64_decoded(pieces) if self.base64 else pieces


def is_url(source: str) -> bool:
    """Whether `source` is to be fetched."""
    return _head(source)[:8].lower().startswith(("http:", "https:"))


def encoded(source: str) -> Encoded:
    """What a source that is no http(s) URL holds. Raises Refused for everything that holds no file, such as ids."""
    head = _head(source)
    start = source.find(head[0]) if head else 0
    if not head:
        raise Refused("it names no file", cure=ACCEPTED)
    scheme = _SCHEME.match(head)
    if scheme and scheme[1].lower() == "data":
        return _data_url(source, start + len("data:"))
    if scheme:
        raise Refused(f"addresses with {shown(scheme[0])} can't be read", cure=ACCEPTED)
    if len(source) <= _DOUBTFUL_CHARS:
        short = source.strip()
        if _ID.fullmatch(short) or not _PLAIN_BASE64.fullmatch("".join(short.split())):
            raise Refused(f"{shown(short)} is no file that can be read here; ids of files are not known", cure=ACCEPTED)
    elif _ID.fullmatch(head[:256]) and len(source) <= 4096:
        raise Refused(f"{shown(head)} is an id of a file, which is not known here", cure=ACCEPTED)
    return Encoded(text=source, start=start, base64=True, percent=False)


def _head(source: str) -> str:
    return source[:4096].lstrip()


def _data_url(source: str, start: int) -> Encoded:
    comma = source.find(",", start, start + _MAX_HEADER_CHARS)
    if comma < 0:
        raise Refused("the data: URL has no comma between its type and its data", cure=ACCEPTED)
    media_type, *parameters = source[start:comma].split(";")
    return Encoded(
        text=source,
        start=comma + 1,
        base64=any(parameter.strip().lower() == "base64" for parameter in parameters),
        percent=source.find("%", comma) >= 0,
        media_type=unquote(media_type).strip().lower() or None,
    )


def _sliced(text: str, start: int) -> Iterator[bytes]:
    for at in range(start, len(text), _SLICE_CHARS // 4):  # a character has up to four bytes
        yield _bytes(text[at : at + _SLICE_CHARS // 4])


def _percent_decoded(text: str, start: int) -> Iterator[bytes]:
    left = ""
    for at in range(start, len(text), _SLICE_CHARS // 4):
        piece = left + text[at : at + _SLICE_CHARS // 4]
        # An escape that the cut parted waits for its rest.
        cut = piece.rfind("%", max(len(piece) - 2, 0))
        left, piece = (piece[cut:], piece[:cut]) if cut >= 0 else ("", piece)
        yield unquote_to_bytes(_bytes(piece))
    yield unquote_to_bytes(_bytes(left))


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refused("its data holds half a character (a lone surrogate)") from None


def _base64_decoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Both alphabets, white space anywhere, padding optional: only damage is refused."""
    left, padded = b"", False
    for piece in pieces:
        signs = left + piece.translate(_URLSAFE, _SPACE)
        if padded and signs:
            raise Refused("its base64 is damaged: data follows the padding ('=')")
        whole = len(signs) & ~3
        block, left = signs[:whole], signs[whole:]
        if block:
            yield _decoded_block(block)
            padded = block.endswith(b"=")
    if left:
        if padded:
            raise Refused("its base64 is damaged: data follows the padding ('=')")
        yield _decoded_block(left.ljust(4, b"="))


def _decoded_block(block: bytes) -> bytes:
    try:
        return binascii.a2b_base64(block, strict_mode=True)
    except binascii.Error:
        if stray := block.translate(None, _ALPHABET):
            raise Refused(f"its base64 is damaged: it holds {shown(chr(stray[0]))}, which is no base64 sign") from None
        raise Refused("its base64 is damaged: it is cut off, or its padding ('=') is in the wrong place") from None
