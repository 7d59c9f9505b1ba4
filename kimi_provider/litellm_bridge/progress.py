"""What the service does before it answers, told as thinking: the words it searches for, the tools it runs.

Each step is a paragraph of its own between the model's thoughts. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import events as ev
from ..wording import Language

_TEXTS: dict[Language, dict[str, str]] = {
    "en": {"search": "Searching the web", "tool": "Running {name}", "failed": "{name} has failed"},
    "id": {"search": "Mencari di web", "tool": "Menjalankan {name}", "failed": "{name} gagal"},
}


class Progress:
    """Steps of one answer among its thoughts. Tools that `searches` names are told by their words alone."""

    def __init__(self, language: Language, searches: Callable[[str], bool]) -> None:
        self._texts = _TEXTS[language]
        self._searches = searches
        self._thought = self._stepped = self._searched = False
        self._running: set[str] = set()

    def thought(self, text: str) -> str:
        """A piece of thinking, set off from a step before it."""
        joint = "\n\n" if self._stepped and not text.startswith("\n") else ""
        self._thought, self._stepped = True, False
        return joint + text

    def step(self, event: ev.SearchResults | ev.NativeTool) -> str:
        """What to tell of `event`, often nothing."""
        line = self._search(event) if isinstance(event, ev.SearchResults) else self._tool(event)
        if not line:
            return ""
        joint = "\n\n" if self._thought or self._stepped else ""
        self._stepped = True
        return joint + line

    def _search(self, event: ev.SearchResults) -> str:
        if not event.queries and self._searched:
            return ""
        self._searched = True
        words = "; ".join(event.queries)
        return f"{self._texts['search']}: {words}" if words else self._texts["search"]

    def _tool(self, event: ev.NativeTool) -> str:
        if event.name and event.state == "failed":
            return self._texts["failed"].format(name=event.name)
        if not event.name or self._searches(event.name) or event.call_id in self._running:
            return ""
        self._running.add(event.call_id)
        return self._texts["tool"].format(name=event.name)
