"""What a user can have got wrong before the gateway starts: the configuration, the credentials, the port, the key.

Everything here raises `ServeError`, one sentence with the cure, or returns what `serve` needs. Starts nothing; the only
thing it writes is the gateway's own key.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from .accounts import parse
from .accounts.account import hosts_of, real_hosts
from .settings import Settings, state_dir
from .upstream import Upstream


class ServeError(Exception):
    """The gateway can't start; the text is one sentence with the cure."""


def packaged_config() -> Path:
    """The shipped litellm_config.yaml: inside the installed package, or beside it in a checkout."""
    inside = Path(str(resources.files(__package__).joinpath("litellm_config.yaml")))
    return inside if inside.is_file() else inside.parent.parent / "litellm_config.yaml"


def read_config(path: Path) -> dict[str, Any]:
    """A LiteLLM configuration as a mapping. Raises ServeError."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as exc:
        raise ServeError(f"{path} can't be read ({exc.strerror}). Name another file with --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(exc, "problem", None) or "not valid UTF-8"
        raise ServeError(
            f"{path}{where} is not valid YAML: {problem}. Correct it or name another with --config."
        ) from None
    if not isinstance(data, dict) or not isinstance(data.get("model_list", []), list):
        raise ServeError(
            f"{path} is no LiteLLM configuration: it needs a mapping with model_list. See {packaged_config()}."
        )
    return data


def kimi_rows(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The litellm_params of deployments that lead to Kimi, by model name."""
    rows = {
        str(row.get("model_name")): params
        for row in config.get("model_list") or ()
        if isinstance(row, dict) and isinstance(params := row.get("litellm_params"), dict)
    }
    return {name: row for name, row in rows.items() if str(row.get("model", "")).startswith("kimi/")}


def check_handler(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ServeError when a configuration has Kimi's models but not the line that serves them."""
    settings = config.get("litellm_settings")
    handlers = settings.get("custom_provider_map") if isinstance(settings, dict) else None
    if kimi_rows(config) and not handlers and "include" not in config:
        raise ServeError(
            f"{path} has kimi/ models but nothing that serves them. Add to litellm_settings: custom_provider_map: "
            "[{provider: kimi, custom_handler: kimi_provider.litellm_bridge.handler}]"
        )


def has_own_credential(row: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether a deployment names an api_key that exists."""
    key = row.get("api_key")
    if not isinstance(key, str):
        return False
    return bool(environment.get(key.removeprefix("os.environ/"))) if key.startswith("os.environ/") else bool(key)


def check_credentials(settings: Settings, upstream: Upstream) -> tuple[str, ...]:
    """Short ids of the accounts behind KIMI_TOKEN. Raises CredentialMissing (nothing usable) and ServeError (from the
    simulator, but meant for the real service).
    """
    credentials = parse(settings.token) if settings.token else []
    real = real_hosts(upstream)
    for credential in credentials:
        if credential.simulated and (wrong := real.intersection(hosts_of(credential.claims, settings, upstream))):
            raise ServeError(
                f"KIMI_TOKEN holds a credential of the built-in simulator, which is not sent to {min(wrong)}. Unset it "
                "for demo mode, point KIMI_BASE_URL and KIMI_AUTH_URL at the simulator, or give a credential of your "
                "own account."
            )
    return tuple(credential.short_id for credential in credentials)


def check_port(host: str, port: int) -> None:
    """Raise ServeError when `port` can't be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise ServeError(f"Port {port} on {host} is in use. Choose another with --port.") from None
            raise ServeError(f"{host}:{port} can't be bound ({exc.strerror}). Check --host and --port.") from None


def master_key(environment: Mapping[str, str], config: Mapping[str, Any]) -> tuple[str | None, Path | None, str]:
    """The gateway's key (None: it stands in the configuration), its file and its source.

    From the environment, else made once and kept in a file only its owner can read.
    """
    general = config.get("general_settings")
    named = general.get("master_key") if isinstance(general, dict) else None
    if isinstance(named, str) and named != "os.environ/LITELLM_MASTER_KEY":
        return None, None, f"master_key of the configuration ({named if named.startswith('os.environ/') else 'hidden'})"
    if given := environment.get("LITELLM_MASTER_KEY"):
        return given, None, "LITELLM_MASTER_KEY from the environment"
    path = state_dir() / "gateway.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            path.chmod(0o600)
            if kept := path.read_text("utf-8").strip():
                return kept, path, str(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        key = "sk-" + secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
    except OSError as exc:
        raise ServeError(f"{path} can't be used ({exc.strerror}). Set LITELLM_MASTER_KEY instead.") from None
    return key, path, str(path)
