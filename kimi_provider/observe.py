"""Nothing secret in a log: what looks like a credential is masked before any handler sees it.

Masked by shape, not by knowledge: JWTs (whole, cut off, in pieces, URL-encoded or in base64), bearer values, cookies
and keys that hold tokens, API keys, and any run of letters and digits too long to be a word. A traceback is masked as
text and then dropped from the record, because a handler that formats it again would bring the secret back.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

MASK: Final = "[redacted]"

#: One character of a token, also where `.`, `-`, `_`, `+`, `/` or `=` is URL-encoded, once or twice.
_C: Final = r"(?:[A-Za-z0-9_.+/=~-]|%(?:25)?(?:2[EeDdBbFf]|3[Dd]|5[Ff]))"

_SECRETS: Final = (
    # `Authorization: Bearer x`, and its Basic form.
    (re.compile(rf"\b(bearer|basic)((?:\s|%20|\+)+){_C}+", re.I), rf"\1\2{MASK}"),
    # Keys that hold tokens, in headers, cookies, JSON, `repr`s and queries.
    (
        re.compile(
            rf"(kimi-auth|(?:kimi-)?(?:refresh|access)[_-]?token|api[_-]?key|client[_-]?secret)"
            rf"((?:\\?[\"'])?\s{{0,8}}(?:[=:]|%3[Dd]|%3[Aa])\s{{0,8}}(?:\\?[\"']|%22)?)(?!\[redacted\]|bearer\b){_C}+",
            re.I,
        ),
        rf"\1\2{MASK}",
    ),
    # A JWT or one of its JSON parts: base64url of `{"`, and base64 of that again at its three offsets.
    (re.compile(rf"(?:eyJ|ZXlK|V5S|leU){_C}{{6,}}"), MASK),
    (re.compile(rf"cpmt_{_C}+"), MASK),
    (re.compile(rf"(?<![A-Za-z0-9])sk-{_C}{{8,}}"), MASK),
)
#: A signature, or anything else that random.
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9_+=-]{65,}")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def redact(text: str) -> str:
    """`text` with everything that looks like a credential replaced by `[redacted]`."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return _LONG_RUN.sub(_masked_run, text)


def _masked_run(match: re.Match[str]) -> str:
    run = match[0]
    # A ruler of dashes is no secret.
    return MASK if len(set(run)) > 8 else run


def _settle(record: logging.LogRecord) -> None:
    """Put the arguments into the message, mask it, and drop them."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that don't fit: say so without them
        message = f"{record.msg} (log arguments don't fit)"
    coloured = getattr(record, "color_message", None)
    if isinstance(coloured, str) and record.args:  # uvicorn's second text for the same arguments
        with suppress(TypeError, ValueError, KeyError):
            record.color_message = coloured % record.args
    record.msg, record.args = redact(message), None


class RedactingFilter(logging.Filter):
    """Masks a record in place. A logger's filter does not see records of its children: put it on handlers, or use
    `redact_logs`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask message, arguments, traceback, stack and extra fields; never drops a record."""
        if record.name == "uvicorn.access" and isinstance(record.args, tuple):
            # Its formatter takes the arguments apart again.
            record.args = tuple(redact(one) if isinstance(one, str) else one for one in record.args)
        else:
            _settle(record)
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = record.exc_text or "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            record.exc_info = None
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD and isinstance(value, str):
                setattr(record, name, redact(value))
        return True


class _RedactingFactory:
    """Makes log records as before, ours masked: the one place that all loggers below `kimi_provider` pass."""

    def __init__(self, before: Any) -> None:
        self._before = before
        self._filter = RedactingFilter()

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._before(name, *args, **kwargs)
        if name == "kimi_provider" or name.startswith("kimi_provider."):
            self._filter.filter(record)
        return record


def redact_logs(places: Iterable[logging.Filterer] = ()) -> None:
    """Mask every record of our loggers, and all that passes `places`: handlers or loggers of a host. May be called
    again.
    """
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(factory))
    for place in places:
        if not any(isinstance(one, RedactingFilter) for one in place.filters):
            place.addFilter(RedactingFilter())
