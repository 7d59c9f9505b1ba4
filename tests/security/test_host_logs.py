"""Masking on the loggers of the host: LiteLLM's records, and uvicorn's, whose formatters want their arguments."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from uvicorn.logging import AccessFormatter, DefaultFormatter

from kimi_provider.observe import MASK, redact_logs

from .needles import Needles, composed_token

TOKEN = composed_token()


@pytest.fixture
def needles() -> Needles:
    made = Needles()
    made.add("token", TOKEN)
    return made


@pytest.fixture
def restored() -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


def logger_with(name: str, formatter: logging.Formatter) -> tuple[logging.Logger, io.StringIO]:
    logger, out = logging.Logger(name), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    redact_logs([logger])
    redact_logs([logger])
    assert len(logger.filters) == 1
    return logger, out


def test_an_access_line_keeps_its_shape(needles: Needles, restored: None) -> None:
    formatter = AccessFormatter('%(client_addr)s "%(request_line)s" %(status_code)s', use_colors=False)
    logger, out = logger_with("uvicorn.access", formatter)
    line = '%s - "%s %s HTTP/%s" %d'
    logger.info(line, "127.0.0.1:9", "GET", f"/v1/models?key={TOKEN}&x=1", "1.1", 200)
    logger.info(line, "127.0.0.1:9", "GET", f"/x/{TOKEN.replace('.', '%2E')}", "1.1", 404)
    said = out.getvalue()
    assert needles.found_in(said) == []
    assert f'127.0.0.1:9 "GET /v1/models?key={MASK}' in said
    assert said.endswith("404 Not Found\n")


def test_a_coloured_line_keeps_its_arguments(needles: Needles, restored: None) -> None:
    logger, out = logger_with("uvicorn.error", DefaultFormatter("%(message)s", use_colors=True))
    colour = "running on \x1b[1m%s\x1b[0m"
    logger.info("running on %s", "http://127.0.0.1:4000", extra={"color_message": colour})
    logger.info("running on %s", TOKEN, extra={"color_message": colour})
    assert "running on \x1b[1mhttp://127.0.0.1:4000" in out.getvalue()
    assert needles.found_in(out.getvalue()) == []


def test_a_debug_line_of_litellm(needles: Needles, restored: None) -> None:
    logger, out = logger_with("LiteLLM Router", logging.Formatter("%(message)s"))
    logger.debug("deployments: %s", [{"litellm_params": {"api_key": TOKEN, "model": "kimi/kimi-latest"}}])
    try:
        raise ValueError(TOKEN)
    except ValueError:
        logger.exception("failed")
    assert needles.found_in(out.getvalue()) == []
    assert "kimi/kimi-latest" in out.getvalue()
    assert "ValueError" in out.getvalue()
