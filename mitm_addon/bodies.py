"""Compressed request bodies, decoded up to a size.

The gateway reads no content-encoding, so that it always gets plain bytes. Pure and bounded: a few kilobytes can't
become more than the cap in memory. brotli and zstandard come with mitmproxy.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import brotli
import zstandard

#: Output of one step, except zstd's.
_STEP_BYTES = 1024 * 1024
#: zstd has no limit of output; 256 bytes become at most 8 MiB, since four of them can stand for 128 KiB.
_ZSTD_INPUT_BYTES = 256
#: The window that every receiver must accept, and none need go beyond (RFC 9659).
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024


class EncodingUnknown(Exception):
    """A content-encoding nobody here can read."""


class BodyBroken(Exception):
    """The bytes are not what their content-encoding says."""


class BodyTooLarge(Exception):
    """More than the cap, compressed or not."""


def plain(body: bytes, encodings: str, max_bytes: int) -> bytes:
    """`body` without the encodings of a content-encoding header, last applied first. Raises EncodingUnknown,
    BodyBroken, BodyTooLarge.
    """
    if len(body) > max_bytes:
        raise BodyTooLarge
    for name in reversed([part.strip().lower() for part in encodings.split(",")]):
        if name in ("", "identity"):
            continue
        if name not in _DECODERS:
            raise EncodingUnknown(name)
        body = _collected(_DECODERS[name](body), max_bytes)
    return body


def _collected(pieces: Iterator[bytes], max_bytes: int) -> bytes:
    size = 0
    found = []
    try:
        for piece in pieces:
            size += len(piece)
            if size > max_bytes:
                raise BodyTooLarge
            found.append(piece)
    except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as exc:
        raise BodyBroken(str(exc)) from None
    return b"".join(found)


def _gzip(body: bytes) -> Iterator[bytes]:
    """One or more members, each complete."""
    while body:
        decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        yield from _steps(decoder, body)
        body = decoder.unused_data


def _deflate(body: bytes) -> Iterator[bytes]:
    """zlib's format; some senders leave its frame off."""
    framed = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    yield from _steps(zlib.decompressobj(zlib.MAX_WBITS if framed else -zlib.MAX_WBITS), body)


def _steps(decoder: zlib._Decompress, body: bytes) -> Iterator[bytes]:
    while not decoder.eof:
        piece = decoder.decompress(body, _STEP_BYTES)
        if not piece and not decoder.unconsumed_tail:
            break
        yield piece
        body = decoder.unconsumed_tail
    if not decoder.eof:
        raise EOFError("it ends too early")


def _brotli(body: bytes) -> Iterator[bytes]:
    decoder = brotli.Decompressor()
    yield decoder.process(body, output_buffer_limit=_STEP_BYTES)
    while not decoder.is_finished():
        piece = decoder.process(b"", output_buffer_limit=_STEP_BYTES)
        if not piece and decoder.can_accept_more_data():
            raise EOFError("it ends too early")
        yield piece


def _zstd(body: bytes) -> Iterator[bytes]:
    """One or more frames, each complete."""
    while body:
        decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
        at = 0
        while not decoder.eof:
            if at >= len(body):
                raise EOFError("it ends too early")
            yield decoder.decompress(body[at : at + _ZSTD_INPUT_BYTES])
            at += _ZSTD_INPUT_BYTES
        body = decoder.unused_data + body[at:]


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
