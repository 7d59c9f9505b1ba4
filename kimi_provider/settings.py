"""The environment, read once at an edge.

`Settings.load()` is the only reader of environment variables and `.env`; everything below receives the values.
A wrong value raises `SettingsError`, whose text names the variable and what it accepts, never a credential.
"""

from __future__ import annotations

import json
import os
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


def _origin(value: str) -> str:
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://www.kimi.com")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ValueError("must be scheme, host and port only, such as https://www.kimi.com")
    return f"{parts.scheme}://{parts.netloc}"


_NOT_YOURS = {"authorization", "cookie", "host", "content-length", "content-type", "transfer-encoding", "connection"}


def _headers(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except json.JSONDecodeError as exc:
            raise ValueError('must be a JSON object such as {"x-msh-version": "2.2.0"}') from exc
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("must be a JSON object of strings")
    headers = {str(name).lower(): text for name, text in value.items()}
    if wrong := headers.keys() & _NOT_YOURS:
        raise ValueError(f"must not set {', '.join(sorted(wrong))}; it is for version and language headers")
    return headers


Origin = Annotated[str, AfterValidator(_origin)]
Headers = Annotated[dict[str, str], NoDecode, BeforeValidator(_headers)]


class Settings(BaseSettings):
    """All settings of kimi_provider; times in seconds. Field names are the variables in lower case."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    kimi_token: SecretStr | None = None
    kimi_base_url: Origin = "https://www.kimi.com"
    kimi_auth_url: Origin = "https://auth.kimi.com"
    kimi_protocol: Literal["auto", "connect", "rest"] = "auto"
    kimi_state_url: str | None = None
    kimi_upstream_file: Path | None = None
    kimi_headers: Headers = Field(default_factory=dict)
    kimi_max_streams: int = Field(2, ge=1, le=100)
    kimi_queue_timeout_s: float = Field(30, ge=0)
    kimi_keep_chats: bool = False
    kimi_timeout_s: float = Field(600, gt=0)
    kimi_idle_timeout_s: float = Field(90, gt=0)
    kimi_lang: Literal["en", "id"] = "en"
    #: Set by `serve` for its own children when it starts the simulator; never by hand.
    kimi_demo: bool = False

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read the environment and `.env`. Raises SettingsError."""
        try:
            return cls(**overrides)
        except ValidationError as exc:
            raise SettingsError(_explain(exc, os.environ)) from None

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
