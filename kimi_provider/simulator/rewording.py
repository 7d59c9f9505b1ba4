"""A service that has changed its words: an ASGI layer that spells the protocol as the setting `renamed` says.

Outgoing JSON gets the new words for those of the protocol document; incoming JSON may only use the new ones, an old one
becomes a word that nothing knows. Works on whole payloads and counts envelopes anew, so every scenario can drift. Does
nothing while nothing is renamed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .envelopes import HEAD_BYTES, envelope
from .recording import CONTROL_PREFIX
from .refusals import STREAM_TYPE
from .state import Simulator

_GONE = "RETIRED_WORD"


class Rewording:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, simulator: Simulator) -> None:
        self._app = app
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        renamed = self._simulator.settings.renamed
        if not renamed or scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        theirs = {**dict.fromkeys(renamed, _GONE), **{new: old for old, new in renamed.items()}}
        headers = dict(scope["headers"])
        asked = _Words(theirs, enveloped=headers.get(b"content-type", b"").startswith(STREAM_TYPE.encode()))
        told = _Words(renamed)

        async def reworded_request() -> Message:
            message = await receive()
            body = bytearray(message.get("body", b""))
            while message["type"] == "http.request" and message.get("more_body"):
                message = await receive()
                body += message.get("body", b"")
            return {**message, "body": asked.reword(bytes(body))} if body else message

        async def reworded_answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0] != b"content-length"]
                told.enveloped = (b"content-type", STREAM_TYPE.encode()) in kept
                message = {**message, "headers": kept}
            elif message["type"] == "http.response.body":
                message = {**message, "body": told.reword(message.get("body", b""))}
            await send(message)

        await self._app(scope, reworded_request, reworded_answer)


class _Words:
    """Replaces words in one direction of one call; holds back an envelope until it is whole."""

    def __init__(self, words: Mapping[str, str], *, enveloped: bool = False) -> None:
        self.enveloped = enveloped
        self._words = {old.encode(): new.encode() for old, new in words.items()}
        # A word inside a longer one is another word: SCENARIO_K2 is not part of SCENARIO_K2D5.
        longest_first = sorted(self._words, key=len, reverse=True)
        self._pattern = re.compile(
            b"|".join(rb"(?<![A-Za-z0-9_])%b(?![A-Za-z0-9_])" % re.escape(word) if word.isascii() else re.escape(word)
                      for word in longest_first)
        )  # fmt: skip
        self._held = b""

    def reword(self, piece: bytes) -> bytes:
        """The next piece of a body."""
        if not self.enveloped:
            return self._replaced(piece)
        self._held += piece
        out = []
        while len(self._held) >= HEAD_BYTES:
            flag, size = struct.unpack_from(">BI", self._held)
            if len(self._held) < HEAD_BYTES + size:
                break
            payload, self._held = self._held[HEAD_BYTES : HEAD_BYTES + size], self._held[HEAD_BYTES + size :]
            out.append(envelope(flag, payload if flag & 1 else self._replaced(payload)))
        return b"".join(out)

    def _replaced(self, payload: bytes) -> bytes:
        return self._pattern.sub(lambda found: self._words[found[0]], payload)
