"""Pasted text -> credentials, in every form seen in the wild (protocol A.3, A.4). Sans-I/O.

`parse` reads what fits into a box, `capture` reads files, which may be recordings of many megabytes.

A JWT says what it is wherever it stands, so it is searched for everywhere: headers, cookies, JSON, a copied cURL line.
An opaque token says nothing: it counts only where its place does (a key, a header, an array, an item of its own).
No input may crash this or cost more than its length; no message ever repeats the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from ..errors import CredentialMissing
from .credential import Credential, claims_of
from .finds import KNOWN_KEYS, REFRESH_KEYS, STRONG_KEYS, WEAK_KEYS, Finds, key_of

#: More than any list of accounts or dump of a browser's storage.
MAX_PASTE_CHARS = 256 * 1024
_MAX_DEPTH = 12
_MAX_JSON_PIECES = 1000

_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
#: The name a value stands after: `kimi-auth=`, `"refresh_token": "`, `authorization: Bearer `.
_NAME_BEFORE = re.compile(
    r"([A-Za-z][A-Za-z0-9_-]{0,63})[\"'\\]{0,4}[ \t]*[=:,\t][ \t]*[\"'\\]{0,4}(?:bearer[ \t]+)?$", re.I
)
_OPAQUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/-]{14,4094}={0,2}")
_PIECE = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}")
_NAMED_OPAQUE = re.compile(
    r"(?<![A-Za-z0-9_-])(kimi-refresh-token|refresh_?token|kimi-auth|authorization|token|value)"
    r"[\"'\\]{0,4}[ \t]{0,8}[=:\t][ \t]{0,8}[\"'\\]{0,4}(?:bearer[ \t]{1,8})?"
    r"([A-Za-z0-9][A-Za-z0-9._~+/-]{5,4094}={0,2})(?![A-Za-z0-9._~+/=-])",
    re.I,
)
_PREFIX = re.compile(r"\A(?:authorization[\"']?[ \t]*[:=][ \t]*[\"']?)?(?:bearer[ \t]+)?", re.I)
_API_KEY = re.compile(r"(?<![A-Za-z0-9_-])sk-[A-Za-z0-9_-]{8,}")
_COMMAND = re.compile(r"(?:\A|\n)[ \t]*(?:curl(?:\.exe)?|fetch\(|Invoke-WebRequest|\$session)\b|-Headers\s+@\{", re.I)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")


def parse(text: str) -> list[Credential]:
    """Credentials in order of appearance, one per account; duplicates and partners of one user are merged.

    Raises CredentialMissing when nothing usable is there.
    """
    finds = Finds()
    if len(text) <= MAX_PASTE_CHARS:
        _read(_INVISIBLE.sub("", text), finds, depth=0)
    credentials = finds.credentials()
    if credentials:
        return credentials
    if len(text) > MAX_PASTE_CHARS:
        raise CredentialMissing(f"The pasted text is longer than {MAX_PASTE_CHARS} characters and was not read")
    if _API_KEY.search(text):
        raise CredentialMissing(
            "This is an API key of the official platform (sk-...), which Kimi's web chat does not accept",
            cure="Use it with the provider 'moonshot/' (MOONSHOT_API_KEY), or give KIMI_TOKEN a refresh_token or "
            "kimi-auth value from kimi.com.",
        )
    raise CredentialMissing(
        "No Kimi credential was found in the text; looked for a JWT (eyJ...), kimi-auth=, Authorization: Bearer, "
        "refresh_token / access_token in JSON, a JSON array of strings, a copied cURL command, or an opaque token"
    )


def collect(values: Iterable[tuple[str, Any]]) -> list[Credential]:
    """Credentials in values that stand under a name: a header's, a cookie's, JSON's. May be none."""
    finds = Finds()
    for name, value in values:
        _read_json(value, finds, 0, name)
    return finds.credentials()


def _read(text: str, finds: Finds, depth: int, name: str | None = None) -> None:
    """One text: JSON as a whole, or free text with JSON in it."""
    stripped = text.strip()
    if stripped[:1] in ("{", "[", '"'):
        try:
            value = json.loads(stripped)
        except (ValueError, RecursionError):
            pass
        else:
            _read_json(value, finds, depth + 1, name)
            return
    _read_text(stripped, finds, depth, name)


def _read_json(value: Any, finds: Finds, depth: int, name: str | None = None, partner: int = 0) -> None:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        _read_string(value, finds, depth, name, partner)
    elif isinstance(value, list):
        _read_array(value, finds, depth, name, partner)
    elif isinstance(value, dict):
        finds.objects += 1
        # `{"refresh_token": {"value": ...}}`: the inner object belongs to the same storage.
        partner = partner or finds.objects
        # `{"name": "refresh_token", "value": ...}`: a row of a cookie or storage table.
        row = next((value[k] for k in ("name", "key") if isinstance(value.get(k), str)), None)
        for key, inner in value.items():
            named = row or name if key_of(key) == "value" else key
            _read_json(inner, finds, depth + 1, named or key, partner)


def _read_array(values: list[Any], finds: Finds, depth: int, name: str | None, partner: int) -> None:
    words = [value.strip() for value in values if isinstance(value, str)]
    joinable = len(words) == len(values) > 0 and (name is None or key_of(name) in KNOWN_KEYS)
    whole = joinable and any(
        _JWT.search(word) or word.startswith("cpmt_") or not _PIECE.fullmatch(word) for word in words
    )
    if joinable and not whole:
        # Old localStorage: one token in pieces (protocol A.4).
        joined = ".".join(words)
        if claims_of(joined):
            finds.add(joined, name, partner)
        elif len(joined) > 2:
            finds.opaque.append((joined, partner))
        return
    for value in values:
        _read_json(value, finds, depth + 1, name)


def _read_string(value: str, finds: Finds, depth: int, name: str | None, partner: int) -> None:
    stripped = value.strip()
    if stripped[:1] in ("{", "[", '"'):
        try:
            inner = json.loads(stripped)
        except (ValueError, RecursionError):
            pass
        else:
            _read_json(inner, finds, depth + 1, name, partner)
            return
    if "eyJ" in stripped:
        for match in _JWT.finditer(stripped):
            before = _NAME_BEFORE.search(stripped[max(0, match.start() - 96) : match.start()])
            finds.add(match[0], before[1] if before else name, partner)
        return
    if name is None:
        _read_text(stripped, finds, depth, None)
        return
    key = key_of(name)
    token = _bare(stripped)
    if (key in REFRESH_KEYS and _PIECE.fullmatch(token)) or (key in STRONG_KEYS and _opaque(token)):
        finds.opaque.append((token, partner))
    elif key in WEAK_KEYS and _opaque(token):
        finds.weak.append(token)
    elif key == "cookie":
        _read_named(stripped, finds, weak=False)


def _read_text(text: str, finds: Finds, depth: int, name: str | None) -> None:
    command = _COMMAND.search(text) is not None
    text = _unescaped(text) if command else text
    if "%" in text:
        text = unquote(text, errors="replace")
    if depth < _MAX_DEPTH and not command:
        text = _without_json(text, finds, depth)
    left: list[str] = []
    end = 0
    for match in _JWT.finditer(text):
        before = _NAME_BEFORE.search(text[max(0, match.start() - 96) : match.start()])
        finds.add(match[0], before[1] if before else name, 0)
        left.append(text[end : match.start()])
        end = match.end()
    rest = " ".join((*left, text[end:]))
    _read_named(rest, finds, weak=not command)
    if not command:
        for item in re.split(r"[,\r\n]", rest):
            token = _bare(item)
            if _opaque(token):
                finds.opaque.append((token, 0))


def _read_named(text: str, finds: Finds, *, weak: bool) -> None:
    for match in _NAMED_OPAQUE.finditer(text):
        name, token = key_of(match[1]), match[2]
        if name in STRONG_KEYS:
            if _opaque(token) or token.startswith("cpmt_"):
                finds.opaque.append((token, 0))
        elif weak and _opaque(token):
            finds.weak.append(token)


def _bare(item: str) -> str:
    """Without quotes, `Authorization:` and `Bearer` around it."""
    item = item.strip().strip("\"'`").strip()
    return _PREFIX.sub("", item).strip().strip("\"'`;").strip()


def _opaque(token: str) -> bool:
    """Long enough and mixed enough to be no word, no placeholder and no address; no API key, no cut-off JWT."""
    if token.startswith("cpmt_"):
        return len(token) > len("cpmt_") + 3 and _PIECE.fullmatch(token) is not None
    if token.startswith(("sk-", "eyJ", "os.environ/")) or "//" in token:
        return False
    mixed = any(c.isdigit() for c in token) and any(c.isalpha() for c in token)
    return mixed and _OPAQUE.fullmatch(token) is not None


def _unescaped(text: str) -> str:
    """A copied command in one line, without the shell's own signs (cmd: ^, bash: backslash, PowerShell: backtick)."""
    text = re.sub(r"[\^\\`]\r?\n", " ", text)
    text = re.sub(r"\^(.)", r"\1", text)
    return re.sub(r"[\\`](?=[\"'])", "", text)


def _without_json(text: str, finds: Finds, depth: int) -> str:
    """Read JSON values that begin an item of the text, and cut them out."""
    left: list[str] = []
    end = 0
    for position in _json_starts(text):
        if position < end:
            continue
        try:
            value, stop = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError):
            continue
        _read_json(value, finds, depth + 1)
        left.append(text[end:position])
        end = stop
    return " ".join((*left, text[end:]))


def _json_starts(text: str) -> Iterator[int]:
    for count, match in enumerate(re.finditer(r"(?:\A|[,\n])[ \t\r]*(?=[\[{])", text)):
        if count >= _MAX_JSON_PIECES:
            return
        yield match.end()
