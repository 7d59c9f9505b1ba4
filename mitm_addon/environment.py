"""The environment of a tool that runs behind the proxy: every runtime's way to name a proxy and a CA.

Pure, except for reading the machine's root certificates. Some runtimes add the CA they are given to their own, others
replace them by it: the latter get a bundle. Java, Electron and iOS apps read no environment and are set up by hand.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import certifi

from .routes import Routes

#: Given the CA alone, which they add to their own roots.
_ADDING = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
#: Given roots and CA, for it replaces their own.
_REPLACING = (
    "SSL_CERT_FILE",  # OpenSSL: Python's ssl, httpx, Go on Linux, Codex, Claude Code
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "CODEX_CA_CERTIFICATE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
#: Where a user has already named roots, they stay trusted: companies have their own.
_NAMED_ROOTS = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY")
_LOCAL = ("localhost", "127.0.0.1", "::1")

#: Keys for a tool that has none: it starts, and one that goes round the proxy has nothing to lose. Each with the
#: variables that make it unnecessary.
_DUMMY_KEYS = {
    "OPENAI_API_KEY": ("sk-kimi-mitm-dummy", ()),
    "CODEX_API_KEY": ("sk-kimi-mitm-dummy", ("OPENAI_API_KEY",)),
    "ANTHROPIC_API_KEY": ("sk-ant-kimi-mitm-dummy", ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")),
    "GEMINI_API_KEY": ("kimi-mitm-dummy", ("GOOGLE_API_KEY",)),
    "AZURE_OPENAI_API_KEY": ("kimi-mitm-dummy", ()),
    "OPENROUTER_API_KEY": ("sk-or-kimi-mitm-dummy", ()),
    "GROQ_API_KEY": ("gsk_kimi-mitm-dummy", ()),
    "MISTRAL_API_KEY": ("kimi-mitm-dummy", ()),
    "XAI_API_KEY": ("xai-kimi-mitm-dummy", ()),
    "DEEPSEEK_API_KEY": ("sk-kimi-mitm-dummy", ()),
}
#: The gateway's key is the proxy's to use, not the tool's.
_WITHHELD = ("KIMI_GATEWAY_KEY", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """Files: the proxy's CA with what the user adds to Node's, roots with the CA, and roots alone."""

    added: Path
    bundle: Path
    roots: Path


def write_trust(folder: Path, ca: Path, environment: Mapping[str, str]) -> Trust:
    """Write the files of `Trust` into `folder`, from the proxy's CA certificate and the machine's roots."""
    own = ca.read_text("ascii")
    roots = _roots(environment)
    extra = _read(environment.get("NODE_EXTRA_CA_CERTS"))
    trust = Trust(added=folder / "ca.pem", bundle=folder / "bundle.pem", roots=folder / "roots.pem")
    trust.added.write_text(own + extra, "utf-8")
    trust.bundle.write_text(f"{roots}\n{extra}\n{own}", "utf-8")
    trust.roots.write_text(f"{roots}\n{extra}", "utf-8")
    return trust


def changes(environment: Mapping[str, str], *, proxy_url: str, trust: Trust, routes: Routes) -> dict[str, str | None]:
    """What differs in a tool's environment; None for variables it must not have. `proxy_url` holds the password."""
    found: dict[str, str | None] = dict.fromkeys(_WITHHELD)
    for name in _PROXIES:
        found[name] = found[name.lower()] = proxy_url
    found["NO_PROXY"] = found["no_proxy"] = no_proxy(environment, routes)
    found["NODE_USE_ENV_PROXY"] = "1"
    found |= dict.fromkeys(_ADDING, str(trust.added)) | dict.fromkeys(_REPLACING, str(trust.bundle))
    for name, (value, others) in _DUMMY_KEYS.items():
        if not any(environment.get(other) for other in (name, *others)):
            found[name] = value
    return found


def applied(environment: Mapping[str, str], changed: Mapping[str, str | None]) -> dict[str, str]:
    """The whole environment of the tool."""
    merged: dict[str, str | None] = {**environment, **changed}
    return {name: value for name, value in merged.items() if value is not None}


def no_proxy(environment: Mapping[str, str], routes: Routes) -> str:
    """The user's exceptions without those that would take a listed host past the proxy; this machine always."""
    named = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    entries = [entry.strip() for entry in named.split(",") if entry.strip()]
    kept = [entry for entry in entries if not covers_listed(entry, routes)]
    return ",".join(dict.fromkeys((*_LOCAL, *kept)))


def covers_listed(entry: str, routes: Routes) -> bool:
    """Whether an entry of NO_PROXY lets a listed host go past the proxy."""
    if entry == "*":
        return True
    domain = entry.lower().split(":")[0].lstrip("*").strip(".")
    for host in routes.hosts:
        name = host.name.removeprefix("*.")
        if name == domain or name.endswith(f".{domain}"):
            return True
        # Something below a pattern, such as mine.openai.azure.com.
        if host.name.startswith("*.") and domain.endswith(f".{name}"):
            return True
    return False


def as_shell(changed: Mapping[str, str | None], shell: str) -> str:
    """The changes as lines of `sh`, `fish` or `powershell`."""
    lines = []
    for name, value in changed.items():
        match shell:
            case "fish":
                quoted = "'" + (value or "").replace("\\", "\\\\").replace("'", "\\'") + "'"
                lines.append(f"set -e {name}" if value is None else f"set -gx {name} {quoted}")
            case "powershell":
                quoted = "'" + (value or "").replace("'", "''") + "'"
                lines.append(
                    f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
                    if value is None
                    else f"$env:{name}={quoted}"
                )
            case _:
                quoted = "'" + (value or "").replace("'", "'\\''") + "'"
                lines.append(f"unset {name}" if value is None else f"export {name}={quoted}")
    return "\n".join(lines) + "\n"


def _roots(environment: Mapping[str, str]) -> str:
    named = [text for name in _NAMED_ROOTS if (text := _read(environment.get(name)))]
    if named:
        return "\n".join(dict.fromkeys(named))
    system = _read(ssl.get_default_verify_paths().cafile)
    return f"{system}\n{Path(certifi.where()).read_text('utf-8')}"


def _read(path: str | None) -> str:
    try:
        return Path(path).read_text("utf-8", "replace") if path else ""
    except OSError:
        return ""
