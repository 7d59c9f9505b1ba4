"""The environment, read once at an edge.

`Settings.load()` is the only reader of environment variables and `.env`; everything below receives the values.
A wrong value raises `SettingsError`, whose text names the variable and what it accepts, never a credential.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def state_dir() -> Path:
    """Where this user's state lives: keys and the account store. Not created here."""
    return platformdirs.user_state_path("kimi-provider", appauthor=False)


class SettingsError(Exception):
    """A setting or data file can't be used; the text says which and what to do."""


_PORTS = {"http": 80, "https": 443}


def _origin(value: str) -> str:
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://www.kimi.com")
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be scheme, host and port only, such as https://www.kimi.com")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("must have a port between 0 and 65535, or none") from None
    # One spelling for each origin: others are compared with it.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, _PORTS[parts.scheme]) else "")


#: What HTTP lets stand in a header (RFC 9110, 5.1 and 5.5), ASCII only.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?|")
_NOT_YOURS = (
    {"authorization", "cookie", "host", "content-length", "content-type", "transfer-encoding", "connection"}
    # We say who we are, and take answers as they are; a stream can't wait for a compressor.
    | {"user-agent", "accept-encoding"}
)


def _headers(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except json.JSONDecodeError as exc:
            raise ValueError('must be a JSON object such as {"x-msh-version": "2.2.0"}') from exc
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("must be a JSON object of strings")
    if not all(_HEADER_NAME.fullmatch(str(name)) and _HEADER_VALUE.fullmatch(text) for name, text in value.items()):
        raise ValueError("must hold names and values that fit into HTTP headers: plain ASCII, no line breaks")
    headers = {str(name).lower(): text for name, text in value.items()}
    if wrong := headers.keys() & _NOT_YOURS:
        raise ValueError(f"must not set {', '.join(sorted(wrong))}; it is for version and language headers")
    return headers


_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def _file_hosts(value: Any) -> Any:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("must be hosts and address ranges, separated by commas")
    return tuple(_file_host(entry.strip().lower()) for entry in entries if entry.strip())


def _file_host(entry: str) -> str:
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        # What ends in a number is an address that went wrong, not a name.
        if _HOST.fullmatch(entry) and not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", entry.rpartition(".")[2]):
            return entry
        raise ValueError("must list hosts such as files.example.lan or ranges such as 10.1.0.0/16, no URLs") from None
    if network.prefixlen == 0:
        raise ValueError("must not list a range of all addresses; name the intranet's own")
    return str(network)


#: An Apprise URL is `service://...`; one may hold commas, so that only one before the next service separates.
_NEXT_ALERT_URL = re.compile(r"[\s,]+(?=[A-Za-z0-9][A-Za-z0-9+.-]*://)")
_ALERT_URL = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*://\S+")


def _alert_urls(value: Any) -> Any:
    entries = _NEXT_ALERT_URL.split(value.strip(", \t\r\n")) if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("must be Apprise URLs, separated by commas")
    urls = tuple(entry for entry in entries if entry)
    for number, url in enumerate(urls, 1):
        if not _ALERT_URL.fullmatch(url):
            raise ValueError(f"must be Apprise URLs such as ntfy://topic, separated by commas; entry {number} is none")
    return urls


Origin = Annotated[str, AfterValidator(_origin)]
#: `NAME=` in a .env file means none, not the current folder.
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
Headers = Annotated[dict[str, str], NoDecode, BeforeValidator(_headers)]
#: Names in lower case, and ranges in CIDR form.
FileHosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_file_hosts)]

#: They hold the secrets of the services that they name.
AlertUrls = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_alert_urls)]


class Settings(BaseSettings):
    """All settings of kimi_provider; times in seconds. Field names are the variables in lower case."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8-sig", extra="ignore", frozen=True)

    kimi_token: SecretStr | None = None
    kimi_base_url: Origin = "https://www.kimi.com"
    kimi_auth_url: Origin = "https://auth.kimi.com"
    kimi_protocol: Literal["auto", "connect", "rest"] = "auto"
    #: May hold a password.
    kimi_state_url: Annotated[str | None, BeforeValidator(lambda value: value or None)] = Field(None, repr=False)
    kimi_secret_key: Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)] = None
    kimi_upstream_file: OptionalPath = None
    kimi_headers: Headers = Field(default_factory=dict)
    kimi_max_streams: int = Field(2, ge=1, le=100)
    kimi_queue_timeout_s: float = Field(30, ge=0, allow_inf_nan=False)
    kimi_keep_chats: bool = False
    kimi_continue: Literal["auto", "off"] = "auto"
    kimi_timeout_s: float = Field(600, gt=0, allow_inf_nan=False)
    kimi_idle_timeout_s: float = Field(90, gt=0, allow_inf_nan=False)
    kimi_lang: Literal["en", "id"] = "en"
    kimi_alert_urls: AlertUrls = ()
    kimi_file_hosts_allowed: FileHosts = ()
    #: Set by `serve` for its own children when it starts the simulator; never by hand.
    kimi_demo: bool = False
    #: Set by `serve` for its own children: the process is ours, not a host's.
    kimi_served: bool = False

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read the environment and `.env`. Raises SettingsError."""
        try:
            return cls(**overrides)
        except ValidationError as exc:
            raise SettingsError(_explain(exc, os.environ)) from None
        except UnicodeDecodeError:
            raise SettingsError(".env is not valid UTF-8. Save it as UTF-8 text.") from None
        except OSError as exc:
            raise SettingsError(f".env can't be read ({exc.strerror}). Mend or remove it.") from None

    @classmethod
    def without_file(cls, **given: Any) -> Settings:
        """From what is given and the environment, whatever `.env` says. Raises pydantic's ValidationError."""
        return cls(_env_file=None, **given)  # type: ignore[call-arg]  # pydantic-settings takes it, unseen by mypy

    @property
    def token(self) -> str | None:
        """The pasted credentials, or None."""
        text = self.kimi_token.get_secret_value().strip() if self.kimi_token else ""
        return text or None


def _explain(exc: ValidationError, environment: Mapping[str, str]) -> str:
    """One sentence per wrong variable; values of secret variables never appear."""
    lines = []
    for error in exc.errors(include_url=False, include_context=False):
        name = str(error["loc"][0]).upper() if error["loc"] else "settings"
        where = "" if name in environment else " (in .env)"
        lines.append(f"{name}{where}: {error['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)
