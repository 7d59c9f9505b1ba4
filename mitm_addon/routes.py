"""Which calls are redirected, and under which names: the table of `routes.toml` as values.

Pure: knows hosts, paths and model names, not mitmproxy, headers or bodies. Paths are compared decoded, without empty
and dot segments and without regard to case, because providers serve such spellings, too: a call must not slip past the
table by a second slash.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote, unquote

Dialect = Literal["openai", "anthropic", "gemini"]
Policy = Literal["redirect", "pass", "refuse"]

PACKAGED = Path(__file__).with_name("routes.toml")


class RoutesError(Exception):
    """A table can't be used; the text says which entry and what it should be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What happens to a call. `dialect` is that of its errors, None for the host's. `path` is the gateway's, with
    `{model}` in it when `model`, the name that the caller's path holds, is not None.
    """

    policy: Policy
    dialect: Dialect | None
    path: str = ""
    model: str | None = None

    def target(self, model: str | None) -> str:
        """The gateway's path, with `model` as the name in it."""
        return self.path if model is None else self.path.replace("{model}", quote(model, safe=""))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    prefix: str
    pattern: re.Pattern[str]
    policy: Policy
    dialect: Dialect | None
    to: str

    def match(self, path: str) -> Match | None:
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        groups = found.groupdict()
        return Match(
            policy=self.policy,
            dialect=self.dialect,
            path=self.to.replace("**", groups.get("rest") or ""),
            model=unquote(groups["model"]) if groups.get("model") else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A listed host: `name` is exact or `*.` and a domain; `dialect` is that of its errors where no rule says more."""

    name: str
    dialect: Dialect
    rules: tuple[_Rule, ...]

    def serves(self, host: str) -> bool:
        """Whether a host name, in lower case, is this one."""
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name

    def match(self, path: str) -> Match | None:
        """The first rule that fits a raw path without query; None for paths the table does not name."""
        path = canonical(path)
        return next((found for rule in self.rules if (found := rule.match(path))), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """The names of tools -> the names of the gateway."""

    keep: tuple[str, ...]
    names: Mapping[str, str]
    default: str

    def find(self, name: str) -> str | None:
        """The gateway's name for `name`; None when it is refused."""
        if any(fnmatchcase(name, pattern) for pattern in self.keep):
            return name
        if name in self.names:
            return self.names[name]
        fits = (target for pattern, target in self.names.items() if fnmatchcase(name, pattern))
        return next(fits, self.default) or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Routes:
    """The whole table."""

    hosts: tuple[Host, ...]
    models: Models

    def host(self, name: str | None) -> Host | None:
        """The listed host that a name (any case, a final dot or none) belongs to."""
        if not name:
            return None
        name = name.lower().rstrip(".")
        return next((host for host in self.hosts if host.serves(name)), None)

    @classmethod
    def load(cls, own: Path | None = None) -> Routes:
        """The packaged table, with a file of the user's laid over it. Raises RoutesError."""
        table = _read(PACKAGED)
        if own is not None:
            table = _laid_over(table, _read(own), own)
        try:
            return cls(hosts=_hosts(table), models=_models(table.get("models", {})))
        except RoutesError as exc:
            raise RoutesError(f"{own or PACKAGED}: {exc}") from None


@lru_cache(maxsize=512)
def canonical(path: str) -> str:
    """One spelling for every path that servers take for the same."""
    segments: list[str] = []
    for raw in path.split("/"):
        segment = unquote(raw)
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(quote(segment, safe=":@!$&'()*+,;=~"))
    return "/" + "/".join(segments)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise RoutesError(f"{path} can't be read ({exc.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise RoutesError(f"{path} is not valid TOML: {exc}") from None


def _laid_over(table: dict[str, Any], own: dict[str, Any], path: Path) -> dict[str, Any]:
    if unknown := own.keys() - {"unlist", "surface", "host", "models"}:
        raise RoutesError(f"{path}: unknown entry '{min(unknown)}'; there are unlist, surface, host and models.")
    for name in ("surface", "host", "models"):
        if not isinstance(own.get(name, {}), dict):
            raise RoutesError(f"{path}: '{name}' must be a table.")
    hosts = dict(table["host"])
    for name, rules in own.get("host", {}).items():
        if not isinstance(rules, dict):
            raise RoutesError(f"{path}: host '{name}' must be a table of prefixes.")
        hosts[name] = {**hosts.get(name, {}), **rules}
    models = own.get("models", {})
    theirs = table["models"]
    names = models.get("map", {})
    if not isinstance(names, dict) or not _are_words(models.get("keep", [])):
        raise RoutesError(f"{path}: models.map must be a table of names, models.keep a list of them.")
    return {
        "unlist": own.get("unlist", []),
        "surface": {**table["surface"], **own.get("surface", {})},
        "host": hosts,
        "models": {
            "keep": [*models.get("keep", []), *theirs["keep"]],
            "default": models.get("default", theirs["default"]),
            # The user's patterns come first, so that they win.
            "map": {**names, **{k: v for k, v in theirs["map"].items() if k not in names}},
        },
    }


def _hosts(table: dict[str, Any]) -> tuple[Host, ...]:
    if not _are_words(unlist := table.get("unlist", [])):
        raise RoutesError("unlist must be a list of host names.")
    surfaces = table["surface"]
    hosts = []
    for name, prefixes in table["host"].items():
        if name in unlist:
            continue
        if not re.fullmatch(r"(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)+", name):
            raise RoutesError(f"'{name}' is no host: a name in lower case such as api.openai.com or *.example.com.")
        rules = [rule for prefix, what in prefixes.items() for rule in _rules(name, prefix, what, surfaces)]
        if not rules:
            raise RoutesError(f"host '{name}' has no prefixes.")
        # What a host speaks is what its table names first.
        dialect: Dialect = next((rule.dialect for rule in rules if rule.dialect is not None), "openai")
        rules.sort(key=lambda rule: rule.prefix.rstrip("/").count("/"), reverse=True)
        hosts.append(Host(name=name, dialect=dialect, rules=tuple(rules)))
    # A name of its own is more than a pattern that fits it.
    return tuple(sorted(hosts, key=lambda host: host.name.startswith("*.")))


def _rules(host: str, prefix: str, what: Any, surfaces: dict[str, Any]) -> Iterable[_Rule]:
    if not prefix.startswith("/"):
        raise RoutesError(f"prefix '{prefix}' of {host} must begin with a slash.")
    policies: tuple[Policy, ...] = ("pass", "refuse")
    for name in [what] if isinstance(what, str) else what if _are_words(what) else ["?"]:
        if policy := next((known for known in policies if known == name), None):
            pattern = _pattern(f"{prefix.rstrip('/')}/**")
            yield _Rule(prefix=prefix, pattern=pattern, policy=policy, dialect=None, to="")
            continue
        if name not in surfaces:
            raise RoutesError(f"prefix '{prefix}' of {host} names no surface: {', '.join(surfaces)}, pass or refuse.")
        surface = surfaces[name]
        if not isinstance(surface, dict) or not _are_words(surface.get("paths")):
            raise RoutesError(f"surface '{name}' needs errors, to, and a list of paths.")
        dialect, to = surface.get("errors"), surface.get("to")
        if dialect not in get_args(Dialect) or not isinstance(to, str) or not to.startswith("/"):
            raise RoutesError(f"surface '{name}': errors is one of {', '.join(get_args(Dialect))}, to is a path.")
        for path in surface["paths"]:
            yield _Rule(
                prefix=prefix,
                pattern=_pattern(prefix.rstrip("/") + path),
                policy="redirect",
                dialect=dialect,
                to=to + path,
            )


def _pattern(path: str) -> re.Pattern[str]:
    text = re.escape(path).replace(r"\{model\}", r"(?P<model>[^/]+?)")
    text = text.removesuffix(r"/\*\*") + r"(?:/(?P<rest>.*))?" if text.endswith(r"/\*\*") else text
    return re.compile(text or "/", re.IGNORECASE)


def _models(models: dict[str, Any]) -> Models:
    names, default = models["map"], models["default"]
    if not all(isinstance(target, str) and target for target in names.values()):
        raise RoutesError("models.map must hold names of the gateway's models.")
    if not isinstance(default, str):
        raise RoutesError("models.default must be a model's name, or empty to refuse unknown names.")
    return Models(keep=tuple(models["keep"]), names=names, default=default)


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
