"""Answers that break off, or never were what they should be: what a CDN, a proxy or a dying server does to bytes."""

from __future__ import annotations

import struct

from .. import envelopes, refusals
from ..playing import Abort, HttpAnswer, Script
from ..turn import Turn
from .row import Params, Scenario

_HTML = b"<html><head><title>%d</title></head><body><h1>%d</h1><hr>cdn</body></html>"


def _end(params: Params) -> Script:
    if params.count("abort"):
        yield Abort()


def _close_after_done(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.completed()
    yield turn.done()
    yield from _end(params)


def _close_after_completed(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("All there.")
    yield turn.completed()
    yield from _end(params)


def _close_mid_text(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Only the first ")
    yield turn.text("half of")
    yield from _end(params)


def _close_before_text(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield from _end(params)


def _close_before_anything(turn: Turn, params: Params) -> Script:
    yield from _end(params)


def _done_then_error(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Almost ")
    yield turn.done()
    yield envelopes.trailer(refusals.connect_error("internal", "internal error"))


def _truncated_frame(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Whole. ")
    yield turn.text("Cut in the middle of this frame")[: -params.count("missing")]
    yield from _end(params)


def _garbage(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield envelopes.envelope(envelopes.MESSAGE, b'{"op":"set","mask":')
    yield turn.text("After garbage.")
    if params.count("in_trailer"):
        yield envelopes.envelope(envelopes.END, b"\xff\xfe not json")
    else:
        yield from turn.closing()


def _oversized_header(turn: Turn, params: Params) -> Script:
    yield from turn.opening()
    yield turn.text("Before. ")
    yield struct.pack(">BI", envelopes.MESSAGE, params.count("length")) + b'{"heartbeat":{}}'
    yield from _end(params)


def _no_envelopes(turn: Turn, params: Params) -> Script:
    yield b"this body was never enveloped; " * 20


def _html_page(turn: object, params: Params) -> Script:
    status = params.count("status")
    yield HttpAnswer(status=status, body=_HTML % (status, status), media_type="text/html")


def _html_200(turn: object, params: Params) -> Script:
    yield HttpAnswer(status=200, body=_HTML % (200, 200), media_type="text/html")


def _redirect(turn: object, params: Params) -> Script:
    yield HttpAnswer(status=params.count("status"), headers={"location": params.text("to")}, media_type="text/html")


def _empty_200(turn: Turn, params: Params) -> Script:
    yield HttpAnswer(status=200, media_type=refusals.STREAM_TYPE)


_ABORT = {"abort": 0}

# Answers of something in front of the service: the same on either protocol.
HTTP_TABLE: tuple[Scenario[object], ...] = (
    Scenario(name="html_page", description="HTML error page of a proxy", play=_html_page, params={"status": 502}),
    Scenario(name="html_200", description="an HTML page with status 200", play=_html_200),
    Scenario(
        name="redirect",
        description="redirect to another host",
        play=_redirect,
        params={"status": 302, "to": "https://moved.invalid/"},
    ),
)

TABLE: tuple[Scenario[Turn], ...] = (
    Scenario(
        name="close_after_done",
        description="no trailer after done; abort=1 breaks the connection",
        play=_close_after_done,
        params=_ABORT,
    ),
    Scenario(
        name="close_after_completed",
        description="no done, no trailer after COMPLETED",
        play=_close_after_completed,
        params=_ABORT,
    ),
    Scenario(name="close_mid_text", description="ends in the answer", play=_close_mid_text, params=_ABORT),
    Scenario(name="close_before_text", description="ends after the opening", play=_close_before_text, params=_ABORT),
    Scenario(name="close_before_anything", description="headers only", play=_close_before_anything, params=_ABORT),
    Scenario(name="done_then_error", description="done, then an error trailer", play=_done_then_error),
    Scenario(
        name="truncated_frame",
        description="the last frame lacks bytes",
        play=_truncated_frame,
        params={"missing": 12, "abort": 0},
    ),
    Scenario(
        name="garbage",
        description="unparseable JSON in a 0x00 frame, or in the trailer",
        play=_garbage,
        params={"in_trailer": 0},
    ),
    Scenario(
        name="oversized_header",
        description="a frame that claims to be huge",
        play=_oversized_header,
        params={"length": 0x7FFFFFFF, "abort": 0},
    ),
    Scenario(name="no_envelopes", description="plain bytes in place of envelopes", play=_no_envelopes),
    *HTTP_TABLE,
    Scenario(name="empty_200", description="status 200 with an empty body", play=_empty_200),
)
