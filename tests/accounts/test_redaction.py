from __future__ import annotations

import base64
import io
import json
import logging
import urllib.parse
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.observe import MASK, RedactingFilter, redact, redact_logs
from tests.costs import linear

from .fakes import SUB, access, b64

TOKEN = access(jti="canary-0123456789")
HEAD, PAYLOAD, SIGNATURE = TOKEN.split(".")
OPAQUE = "cpmt_Kanarienvogel0123456789"
BASIC = base64.b64encode(f"Bearer {TOKEN}".encode()).decode()

FORMS = {
    "raw": TOKEN,
    "bearer": f"Authorization: Bearer {TOKEN}",
    "cookie": f"a=b; kimi-auth={TOKEN}; c=d",
    "cut off": TOKEN[: len(HEAD) + 40],
    "cut to 30 characters": TOKEN[:30],
    "url-encoded": urllib.parse.quote(f"kimi-auth={TOKEN}", safe=""),
    "dots encoded": TOKEN.replace(".", "%2E"),
    "query": f"GET https://h/x?access_token={TOKEN}&x=1",
    "base64": base64.b64encode(TOKEN.encode()).decode(),
    "base64, off by one": base64.b64encode(f"x{TOKEN}".encode()).decode(),
    "base64, off by two": base64.b64encode(f"xy{TOKEN}".encode()).decode(),
    "base64url": b64(TOKEN.encode()),
    "base64 of bearer": BASIC,
    "header part": HEAD,
    "payload part": PAYLOAD,
    "signature part": SIGNATURE,
    "json": json.dumps({"refresh_token": TOKEN}),
    "json in json": json.dumps(json.dumps({"refresh_token": TOKEN})),
    "repr": repr({"accessToken": TOKEN}),
    "opaque": OPAQUE,
    "opaque in json": '{"refreshToken": "a1b2c3.d4e5"}',
    "opaque bearer": "bearer a1b2c3.d4e5",
    "api key": "api_key=sk-kimi-a1b2c3d4e5f6",
}
NEEDLES = [
    *(TOKEN[at : at + 16] for at in range(0, len(TOKEN) - 16, 8)),
    *(BASIC[at : at + 24] for at in range(0, 200, 24)),
    *(base64.b64encode(TOKEN.encode()).decode()[at : at + 24] for at in range(0, 200, 24)),
    *(SUB, "Kanarienvogel", "a1b2c3"),
]


def leaks(text: str) -> list[str]:
    return [needle for needle in NEEDLES if needle in text]


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A child of our logger as modules make them, with a handler that knows nothing of redaction."""
    factory = logging.getLogRecordFactory()
    redact_logs()
    redact_logs()
    logger, out = logging.getLogger("kimi_provider.accounts.canary"), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger, out
    logger.removeHandler(handler)
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_token_reaches_a_log(form: str, log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = log
    secret = FORMS[form]
    logger.info(secret)
    logger.info("got %s and %r", secret, {"k": secret})
    logger.info("named %(what)s", {"what": secret})
    logger.info("arguments that do not fit %s %s", secret)
    logger.info("stack", stack_info=True)
    try:
        try:
            raise ValueError(secret)
        except ValueError as inner:
            raise RuntimeError(f"outer {secret}") from inner
    except RuntimeError:
        logger.exception("failed with %s", secret)
    assert leaks(out.getvalue()) == []
    assert MASK in out.getvalue()
    assert "RuntimeError: outer" in out.getvalue()


def test_handlers_of_a_host_can_be_covered() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s %(extra)s"))
    factory = logging.getLogRecordFactory()
    redact_logs([handler])
    redact_logs([handler])
    logging.setLogRecordFactory(factory)
    assert len(handler.filters) == 1
    host = logging.Logger("host")
    host.addHandler(handler)
    host.warning("token %s", TOKEN, extra={"extra": TOKEN})
    assert leaks(out.getvalue()) == []


def test_a_formatter_that_makes_its_own_traceback_finds_none() -> None:
    record = logging.makeLogRecord({"msg": "x"})
    try:
        raise ValueError(TOKEN)
    except ValueError as exc:
        record.exc_info = (ValueError, exc, exc.__traceback__)
    assert RedactingFilter().filter(record)
    assert record.exc_info is None
    assert leaks(record.exc_text or "") == []


@pytest.mark.parametrize(
    "text",
    [
        "account cuser000: overloaded; trying again in 0.5 s",
        "www.kimi.com redirects to elsewhere.test, which is not followed",
        "chat 0198a000-0000-7000-8000-000000000001 deleted",
        'File "/usr/lib/python3.13/site-packages/kimi_provider/accounts/tokens.py", line 120, in session',
        "-" * 100,
        "KIMI_TOKEN is empty and the deployment has no api_key",
        "refresh_token and kimi-auth are looked for",
    ],
)
def test_plain_text_stays_readable(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_masking_is_stable(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@linear
@pytest.mark.parametrize("text", ["eyJ", "bearer ", "a", "%2E", "refresh_token="])
def test_masking_costs_no_more_than_the_length(text: str) -> None:
    text *= 2_000_000 // len(text)
    assert redact(text)[:1] == redact(text[:20_000])[:1]
