"""Connect envelopes: 1 flag byte, 4 bytes of big-endian length, payload (protocol C.4).

Law: bytes in, `(flags, payload)` out, for any chunking. Knows neither JSON nor sockets. Never holds more than one
frame plus one chunk, and never copies a pending frame more than twice, however small the chunks are. What it hands
out is decompressed; a frame above the limit, before or after decompression, is a ProtocolError.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from ...errors import ProtocolError

MESSAGE: Final = 0x00
COMPRESSED: Final = 0x01
END_STREAM: Final = 0x02
#: The trailer bit of gRPC-web; never seen live (protocol C.4).
WEB_TRAILER: Final = 0x80

_KNOWN_FLAGS: Final = COMPRESSED | END_STREAM | WEB_TRAILER
_HEAD: Final = struct.Struct(">BI")
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS


def encode(payload: bytes) -> bytes:
    """One uncompressed message envelope, as the service wants its requests (protocol C.1)."""
    return _HEAD.pack(MESSAGE, len(payload)) + payload


class EnvelopeDecoder:
    """Cuts a byte stream into frames of at most `max_frame_bytes`."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._pending = bytearray()
        self._needed_bytes = _HEAD.size

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete; above zero on close means a truncated stream."""
        return len(self._pending)

    def feed(self, chunk: bytes) -> Iterable[tuple[int, bytes]]:
        """Frames that `chunk` completes; exhaust it before the next call. The compression bit is gone from the flags.

        Raises ProtocolError at the frame that breaks the rules, after those before it were handed out.
        """
        # One whole message in a chunk is the rule while an answer is being written: worth not starting a generator.
        if not self._pending and _HEAD.size < len(chunk) <= self._max_frame_bytes:
            flags, size = _HEAD.unpack_from(chunk)
            if flags == MESSAGE and size == len(chunk) - _HEAD.size:
                return ((MESSAGE, chunk[_HEAD.size :]),)
        return self._cut(chunk)

    def _cut(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        if self._pending:
            # Wait until the frame is whole: joining on every chunk would be quadratic.
            self._pending += chunk
            if len(self._pending) < self._needed_bytes:
                return
            chunk = bytes(self._pending)
            self._pending.clear()
        self._needed_bytes = _HEAD.size
        unpack, head_size, limit = _HEAD.unpack_from, _HEAD.size, self._max_frame_bytes
        at, end = 0, len(chunk)
        while end - at >= head_size:
            flags, size = unpack(chunk, at)
            start = at + head_size
            if flags & ~_KNOWN_FLAGS:
                raise ProtocolError(f"The answer is not in envelopes (flag byte 0x{flags:02x})")
            if size > limit:
                raise ProtocolError(f"A frame of {size} bytes is above the limit of {limit}")
            at = start + size
            if at > end:
                at = start - head_size
                self._needed_bytes = head_size + size
                break
            payload = chunk[start:at]
            if flags & COMPRESSED:
                yield flags & ~COMPRESSED, self._decompressed(payload)
            else:
                yield flags, payload
        if at < end:
            self._pending += chunk[at:]

    def _decompressed(self, payload: bytes) -> bytes:
        if not payload:
            return payload
        inflate = zlib.decompressobj(_GZIP_WBITS)
        try:
            plain = inflate.decompress(payload, self._max_frame_bytes + 1)
        except zlib.error:
            raise ProtocolError("A compressed frame can't be decompressed") from None
        if len(plain) > self._max_frame_bytes:
            raise ProtocolError(f"A frame is above the limit of {self._max_frame_bytes} bytes when decompressed")
        if not inflate.eof or inflate.unused_data:
            raise ProtocolError("A compressed frame is cut short or carries more than its own data")
        return plain
