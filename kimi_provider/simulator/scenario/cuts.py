"""Answers that break off, or never were what they should be: what a CDN, a proxy or a dying server does to bytes.

Those of `SHARED` are the same on either protocol.
"""

from __future__ import annotations

import struct

from .. import envelopes
from ..playing import Abort, HttpAnswer, Script
from ..refusals import Refusal
from ..turn import Turn
from .row import Params, Scenario
from .speaker import Speaker

_HTML = b"<html><head><title>%d</title></head><body><h1>%d</h1><hr>cdn</body></html>"


def end(params: Params) -> Script:
    """Where the answer breaks off: closed, or aborted."""
    if params.count("abort"):
        yield Abort()


def _close_after_done(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.completed()
    yield turn.done()
    yield from end(params)


def _close_after_completed(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.completed()
    yield from end(params)


def _close_mid_text(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Only the first ")
    yield turn.text("half of")
    yield from end(params)


def _close_before_text(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    yield from end(params)


def _close_before_anything(turn: Speaker, params: Params) -> Script:
    yield from end(params)


def _done_then_error(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Almost ")
    yield turn.done()
    yield turn.failed(Refusal("internal", "internal error"))


def _truncated_frame(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Whole. ")
    yield turn.text("Cut in the middle of this frame")[: -params.count("missing")]
    yield from end(params)


def _garbage(turn: Speaker, params: Params) -> Script:
    yield from turn.opening()
    yield turn.raw(b'{"text":')
    yield turn.text("After garbage.")
    if params.count("in_trailer"):
        yield turn.raw(b"\xff\xfe not json", last=True)
    else:
        yield from turn.closing()


def _oversized_header(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Before. ")
    yield struct.pack(">BI", envelopes.MESSAGE, params.count("length")) + b'{"heartbeat":{}}'
    yield from end(params)


def _no_envelopes(turn: Speaker, params: Params) -> Script:
    yield b"this body was never framed; " * 20


def _html_page(turn: object, params: Params) -> Script:
    status = params.count("status")
    yield HttpAnswer(status=status, body=_HTML % (status, status), media_type="text/html")


def _html_200(turn: object, params: Params) -> Script:
    yield HttpAnswer(status=200, body=_HTML % (200, 200), media_type="text/html")


def _redirect(turn: object, params: Params) -> Script:
    yield HttpAnswer(status=params.count("status"), headers={"location": params.text("to")}, media_type="text/html")


def _empty_200(turn: Speaker, params: Params) -> Script:
    yield HttpAnswer(status=200, media_type=turn.media_type)


ABORT = {"abort": 0}

SHARED: tuple[Scenario[Speaker], ...] = (
    Scenario(name="close_mid_text", description="ends in the answer", play=_close_mid_text, params=ABORT),
    Scenario(name="close_before_text", description="ends after the opening", play=_close_before_text, params=ABORT),
    Scenario(name="close_before_anything", description="headers only", play=_close_before_anything, params=ABORT),
    Scenario(name="done_then_error", description="done, then an error in the stream", play=_done_then_error),
    Scenario(
        name="truncated_frame",
        description="the last frame lacks bytes",
        play=_truncated_frame,
        params={"missing": 12, "abort": 0},
    ),
    Scenario(
        name="garbage",
        description="unparseable JSON in a frame, or also in the last one",
        play=_garbage,
        params={"in_trailer": 0},
    ),
    Scenario(name="no_envelopes", description="plain bytes in place of frames", play=_no_envelopes),
    Scenario(name="html_page", description="HTML error page of a proxy", play=_html_page, params={"status": 502}),
    Scenario(name="html_200", description="an HTML page with status 200", play=_html_200),
    Scenario(
        name="redirect",
        description="redirect to another host",
        play=_redirect,
        params={"status": 302, "to": "https://moved.invalid/"},
    ),
    Scenario(name="empty_200", description="status 200 with an empty body", play=_empty_200),
)

TABLE: tuple[Scenario[Turn], ...] = (
    Scenario(
        name="close_after_done",
        description="no trailer after done; abort=1 breaks the connection",
        play=_close_after_done,
        params=ABORT,
    ),
    Scenario(
        name="close_after_completed",
        description="no done, no trailer after COMPLETED",
        play=_close_after_completed,
        params=ABORT,
    ),
    Scenario(
        name="oversized_header",
        description="a frame that claims to be huge",
        play=_oversized_header,
        params={"length": 0x7FFFFFFF, "abort": 0},
    ),
    *SHARED,
)
