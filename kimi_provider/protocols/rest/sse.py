"""Server-sent events: the data of each, as bytes (protocol B.5).

Law: bytes in, cut anywhere, the data of whole events out. Lines are cut as bytes, so no character is ever split; they
end in any of the three ways the standard knows. Comments and fields other than `data` are left out. Never holds more
than one event of `max_event_bytes` plus one chunk. What is no field at all is kept, a little of it: an answer that is
no stream says there what it is. Knows neither JSON nor sockets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ...errors import ProtocolError

#: As much as is kept of what is no stream.
MAX_STRAY_BYTES: Final = 64 * 1024

_LINE_END: Final = re.compile(rb"\r\n?|\n")
_FIELDS: Final = frozenset((b"data", b"event", b"id", b"retry"))
_BOM: Final = b"\xef\xbb\xbf"


class EventStream:
    """Cuts a byte stream into events. `stray` holds lines that are no field of any."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._begun = False
        self.stray = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of events that `chunk` completes; exhaust it before the next call.

        Raises ProtocolError at the event that is too large, after those before it were handed out.
        """
        if not chunk:
            return
        at = 1 if self._after_cr and chunk[0] == 0x0A else 0
        # A line feed at the beginning of the next chunk would belong to this line's end.
        self._after_cr = chunk[-1] == 0x0D
        for end in _LINE_END.finditer(chunk, at):
            line = chunk[at : end.start()]
            at = end.end()
            if self._line:
                line = bytes(self._line) + line
                self._line.clear()
            if line:
                self._take(line)
            elif self._data:
                yield self._whole()
        self._line += chunk[at:]
        self._check(len(self._line))

    def close(self) -> Iterator[bytes]:
        """The stream ended: what it left unfinished may still be whole."""
        if self._line:
            line = bytes(self._line)
            self._line.clear()
            self._take(line)
        if self._data:
            yield self._whole()

    def _take(self, line: bytes) -> None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            # The line break counts, too: empty lines of data need room as well.
            self._data_bytes += len(value) + 1
            self._check(0)
            self._data.append(value)
        elif name and name not in _FIELDS and len(self.stray) < MAX_STRAY_BYTES:
            self.stray += line[:MAX_STRAY_BYTES] + b"\n"

    def _whole(self) -> bytes:
        data = b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        return data

    def _check(self, more_bytes: int) -> None:
        if self._data_bytes + more_bytes > self._max_event_bytes:
            raise ProtocolError(f"A frame of the answer is above the limit of {self._max_event_bytes} bytes")
