"""What a redirected call says, in the gateway's words: model names, and bodies decompressed and with such a name.

Knows no flow. What can't be said to the gateway raises `Refused`, with the failure and the text for the caller.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Final

from . import bodies, heap, rewrite
from .replies import Failure, Refused
from .routes import Dialect, Models

#: Bodies up to this size are rewritten on the event loop, in less than 5 ms.
_INLINE_BYTES: Final = 256 * 1024
#: A longer name is looked up each time: somebody's names must not fill the memory.
_REMEMBERED_CHARS: Final = 256


class Translator:
    """By the table of models; `max_body_bytes` bounds a body, decompressed."""

    def __init__(self, models: Models, *, max_body_bytes: int) -> None:
        self._models = models
        self._short_name = functools.lru_cache(maxsize=256)(models.find)
        self._max_body_bytes = max_body_bytes

    def check_length(self, announced: bytes) -> None:
        """By a Content-Length, before the body comes. Raises Refused; one that can't be read says nothing."""
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise self._too_large()

    def model(self, name: str) -> str:
        """The gateway's name. Raises Refused when the table has none."""
        found = self._short_name(name) if len(name) <= _REMEMBERED_CHARS else self._models.find(name)
        if found is None:
            message = f"No model of the gateway stands for '{name[:80]}'. Add it to models.map of your routes file."
            raise Refused(Failure.MODEL_UNKNOWN, message)
        return found

    async def body(self, body: bytes, encodings: str, dialect: Dialect) -> bytes:
        """The body as the gateway gets it; `encodings` is the Content-Encoding that it came with. Raises Refused."""
        try:
            if not body:
                return body
            if len(body) <= _INLINE_BYTES and not encodings:
                return self._rewritten(body, encodings, dialect)
            return await asyncio.to_thread(self._rewritten, body, encodings, dialect)
        except bodies.BodyTooLarge:
            raise self._too_large() from None
        except bodies.EncodingUnknown as exc:
            raise Refused(Failure.ENCODING_UNKNOWN, f"Content-Encoding {str(exc)[:40]} is unknown.") from None
        except bodies.BodyBroken as exc:
            raise Refused(Failure.BODY_BROKEN, f"The compressed body can't be read: {exc}.") from None
        except rewrite.BodyError as exc:
            raise Refused(Failure.BODY_BROKEN, str(exc)) from None

    def _rewritten(self, body: bytes, encodings: str, dialect: Dialect) -> bytes:
        if len(body) >= heap.LARGE_BYTES:
            heap.give_back()
        body = bodies.plain(body, encodings, self._max_body_bytes)
        # Gemini's name is in the path; its body has none of its own.
        return body if dialect == "gemini" else rewrite.model(body, self.model)

    def _too_large(self) -> Refused:
        limit = self._max_body_bytes // (1024 * 1024)
        return Refused(Failure.TOO_LARGE, f"The body is larger than {limit} MiB (kimi_max_body_mb).")
