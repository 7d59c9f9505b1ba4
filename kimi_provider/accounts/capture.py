"""Files -> credentials: a recording of the browser's traffic (HAR 1.2), or whatever else may be pasted. Sans-I/O.

A recording holds every site that the browser spoke to, so that only requests to the service's own hosts are looked
at, and of them only what can hold a credential: headers, cookies and JSON bodies. Bounded by the file's size; no
message repeats any of it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from ..errors import BadRequest, CredentialMissing
from ..settings import Settings
from ..upstream import Upstream
from .credential import Credential
from .importer import collect, parse

#: More than a long session in the browser records.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024


def capture_hosts(settings: Settings, upstream: Upstream) -> frozenset[str]:
    """Domains that are the service itself, and the hosts of the addresses that the owner has set."""
    own = (settings.kimi_base_url, settings.kimi_auth_url)
    return frozenset((*upstream.auth.capture_hosts, *(urlsplit(url).hostname or "" for url in own)))


def read(content: bytes, hosts: frozenset[str]) -> list[Credential]:
    """Credentials of a file or upload, one per account.

    Raises CredentialMissing when nothing usable is there, BadRequest when it is too large.
    """
    if len(content) > MAX_FILE_BYTES:
        raise BadRequest(
            f"The file is larger than {MAX_FILE_BYTES // 1024**2} MB and was not read",
            cure="Record again: open kimi.com, reload once, and export.",
        )
    entries = _entries(content)
    if entries is None:
        return parse(content.decode("utf-8", "replace"))
    ours = [entry for entry in entries if _is_ours(entry, hosts)]
    found = collect(value for entry in ours for value in _values(entry))
    if found:
        return found
    if not ours:
        raise CredentialMissing(
            f"The recording has {len(entries)} requests, none of them to Kimi",
            cure="Open the browser's developer tools on kimi.com, reload, and export again.",
        )
    raise CredentialMissing(
        f"The recording has {len(ours)} requests to Kimi, but no credential in them",
        cure="Browsers leave headers and cookies out unless told otherwise: choose 'Export HAR (with sensitive data)'.",
    )


def _entries(content: bytes) -> list[dict[str, Any]] | None:
    """Those of a HAR; None when it is none."""
    if b'"log"' not in content:
        return None
    try:
        document = orjson.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        return None
    log = document.get("log") if isinstance(document, dict) else None
    entries = log.get("entries") if isinstance(log, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else None


def _is_ours(entry: dict[str, Any], hosts: frozenset[str]) -> bool:
    url = _mapping(entry, "request").get("url")
    try:
        host = (urlsplit(url).hostname or "") if isinstance(url, str) else ""
    except ValueError:
        return False
    return any(host == one or host.endswith(f".{one}") for one in hosts)


def _values(entry: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for side in (_mapping(entry, "request"), _mapping(entry, "response")):
        for part in ("headers", "cookies"):
            rows = side.get(part)
            for row in rows if isinstance(rows, list) else ():
                if isinstance(row, dict) and isinstance(name := row.get("name"), str):
                    yield "cookie" if name.lower() == "set-cookie" else name, row.get("value")
        for part in ("postData", "content"):
            body = _mapping(side, part)
            if (value := _json(body.get("text"), body.get("encoding"))) is not None:
                yield "body", value


def _json(text: Any, encoding: Any) -> Any:
    """A body that is JSON as a whole: what people wrote in a chat is none of our business."""
    if not isinstance(text, str):
        return None
    try:
        content = base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
        value = orjson.loads(content)
    except (binascii.Error, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _mapping(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}
