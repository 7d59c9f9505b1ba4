"""The names of client tools, as the model writes them.

Law: `written` and `client` are inverse to each other for every tool. A name is kept when it is safe in every spelling
of a call and not the name of one of the service's own tools (protocol C.6), which would compete with it.
`resolve` is for what a model makes of a name: prefixes, another case, dashes for underscores (protocol E.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..dialects import Tools

_SAFE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
#: The position that Kimi's own tokens add: `functions.read:0` (protocol E.5).
_POSITION = re.compile(r":\d+$")
_MAX_CHARS = 64


class Names:
    """A mapping both ways, for the tools of one request."""

    def __init__(self, names: Iterable[str], data: Tools) -> None:
        self._prefixes = (*data.families.name_prefixes, data.rename_prefix)
        self._written: dict[str, str] = {}
        self._client: dict[str, str] = {}
        for name in sorted(dict.fromkeys(names), key=lambda n: (self._changed(n, data) != n, n)):
            wanted = self._changed(name, data)
            unique, number = wanted, 2
            while unique in self._client:
                tail = f"_{number}"
                unique, number = wanted[: _MAX_CHARS - len(tail)] + tail, number + 1
            self._written[name] = unique
            self._client[unique] = name
        self._loose: dict[str, str | None] = {}
        for client, written in self._written.items():
            for spelling in {_loose(client), _loose(written)}:
                known = self._loose.setdefault(spelling, client)
                if known != client:
                    self._loose[spelling] = None

    @staticmethod
    def _changed(name: str, data: Tools) -> str:
        if name.casefold() in data.native_names:
            return data.rename_prefix + name
        if _SAFE.fullmatch(name):
            return name
        safe = _UNSAFE_CHARACTER.sub("_", name)
        return (safe if _SAFE.match(safe) else f"{data.rename_prefix}{safe}")[:_MAX_CHARS]

    def written(self, client: str) -> str:
        """What the model reads and writes; a tool of the history that is no longer offered keeps its safe form."""
        return self._written.get(client) or _UNSAFE_CHARACTER.sub("_", client)[:_MAX_CHARS] or "unknown"

    def client(self, written: str) -> str | None:
        """The tool's own name, by the exact written form."""
        return self._client.get(written)

    def resolve(self, name: str) -> str | None:
        """The tool that a model means by `name`, or None when it is none or not clear which."""
        name = _POSITION.sub("", name.strip())
        if (found := self.client(name)) is not None:
            return found
        if name in self._written:
            return name
        bare = name
        for _ in range(2):
            for prefix in self._prefixes:
                if bare.startswith(prefix) and len(bare) > len(prefix):
                    bare = bare[len(prefix) :]
                    break
        for spelling in (name, bare):
            if (found := self._loose.get(_loose(spelling))) is not None:
                return found
        return None


def _loose(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
