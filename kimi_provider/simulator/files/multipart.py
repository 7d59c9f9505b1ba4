"""Reads the multipart body of an upload piece by piece: exactly one part, named `file` (protocol C.9).

Sans-I/O and of constant memory: `feed` returns the file's bytes as far as they are certain. What is no such body
raises MultipartError; `finish` says whether the closing boundary came.
"""

from __future__ import annotations

import re
from email.message import Message

MAX_HEAD_BYTES = 8192


class MultipartError(ValueError):
    """The body isn't one part `file` with a name and a content type."""


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart/form-data header. MultipartError for anything else."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise MultipartError("expected multipart/form-data with a boundary")
    return boundary.encode("latin-1")


class FilePart:
    """The one part, in the making."""

    def __init__(self, boundary: bytes) -> None:
        self._opening = b"--" + boundary + b"\r\n"
        self._delimiter = b"\r\n--" + boundary
        self._held = b""
        self._state = "head"
        self.name = ""
        self.content_type = ""

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk of the body, give bytes of the file."""
        if self._state == "end":
            return b""
        self._held += chunk
        if self._state == "head" and not self._read_head():
            return b""
        content = self._read_content() if self._state == "content" else b""
        if self._state == "after":
            self._read_after()
        return content

    def finish(self) -> None:
        """The body is over. MultipartError when it was cut."""
        if self._state != "end":
            raise MultipartError("incomplete multipart body")

    def _read_head(self) -> bool:
        head, blank, rest = self._held.partition(b"\r\n\r\n")
        if not self._opening.startswith(self._held[: len(self._opening)]):
            raise MultipartError("the body doesn't begin with the boundary")
        if not blank:
            if len(self._held) > MAX_HEAD_BYTES:
                raise MultipartError("part headers are too long")
            return False
        self._read_headers(head[len(self._opening) :])
        self._state, self._held = "content", rest
        return True

    def _read_headers(self, head: bytes) -> None:
        lines = [line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n")]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        disposition = headers.get("content-disposition", "")
        words = dict(re.findall(r'\b(name|filename)="((?:[^"\\]|\\.)*)"', disposition))
        if not disposition.startswith("form-data") or words.get("name") != "file":
            raise MultipartError("the one part must be named file")
        if not words.get("filename"):
            raise MultipartError("the file has no name")
        if not headers.get("content-type"):
            raise MultipartError("the file has no content type")
        self.name, self.content_type = words["filename"], headers["content-type"]

    def _read_content(self) -> bytes:
        at = self._held.find(self._delimiter)
        if at >= 0:
            content, self._held = self._held[:at], self._held[at + len(self._delimiter) :]
            self._state = "after"
            return content
        certain = max(0, len(self._held) - len(self._delimiter) + 1)
        content, self._held = self._held[:certain], self._held[certain:]
        return content

    def _read_after(self) -> None:
        if len(self._held) < 2:
            return
        if not self._held.startswith(b"--"):
            raise MultipartError("expected exactly one part")
        self._state, self._held = "end", b""
