"""Pages the service found: by reference, by address, in order (protocol C.7).

Law: one `Source` per address, told to callers once. References come from several frames and spellings, and later ones
fill gaps: a card may arrive without its reference, a reference without its card. Cards of a wrong shape count as
absent; a card without a web address can't be cited and is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..events import Source

_FIELDS: Final = {"title": "title", "site_name": "siteName", "snippet": "snippet", "published": "publishTime"}

#: A card is known by its id, else by its reference or its place: ("id", "r1"), ("ref", "web_search:1#0").
_Key = tuple[str, str]


class Sources:
    """What one answer may cite."""

    def __init__(self) -> None:
        self._of_url: dict[str, Source] = {}
        self._key_of_ref: dict[str, _Key] = {}
        self._url_of_key: dict[_Key, str] = {}

    def find(self, ref: str) -> Source | None:
        """The source behind a reference such as `web_search:1#0` or `3`."""
        key = self._key_of_ref.get(ref)
        url = self._url_of_key.get(key) if key else None
        return self._of_url[url] if url else None

    def add_results(self, cards: object) -> Iterator[Source]:
        """Take `searchResult` objects or `searchChunks`: `{id, refIndex, base{title, url, ...}}`; yields new sources.

        `usedSearchChunks` may hold only `id` and `refIndex`.
        """
        for card in _objects(cards):
            ref = _ref(card, "refIndex") or _ref(card, "ref_index")
            card_id = _ref(card, "id")
            key = ("id", card_id) if card_id else ("ref", ref)
            if ref:
                self._key_of_ref[ref] = key
            base = card.get("base") or card.get("searchBase")
            yield from self._take(base if isinstance(base, dict) else card, key)

    def add_pages(self, pages: object, first_number: int) -> Iterator[Source]:
        """Take `webPages` of the older search block, cited by their place in the list: `[^1^]` is the first one."""
        for number, page in enumerate(_objects(pages), first_number):
            key = ("page", str(number))
            self._key_of_ref[_ref(page, "refIndex") or str(number)] = key
            yield from self._take(page, key)

    def _take(self, card: Mapping[str, Any], key: _Key) -> Iterator[Source]:
        url = card.get("url")
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            return
        self._url_of_key[key] = url
        found = {field: text for field, name in _FIELDS.items() if isinstance(text := card.get(name), str)}
        known = self._of_url.get(url)
        if known is None:
            self._of_url[url] = source = Source(url=url, **found)
            yield source
        elif gaps := {field: text for field, text in found.items() if text and not getattr(known, field)}:
            self._of_url[url] = dataclasses.replace(known, **gaps)


def _objects(values: object) -> Iterator[Mapping[str, Any]]:
    # A wrong value keeps its place: references of the older form are places.
    for value in values if isinstance(values, list) else ():
        yield value if isinstance(value, dict) else {}


def _ref(card: Mapping[str, Any], name: str) -> str:
    """A reference or id as text; numbers occur (agents, K3)."""
    value = card.get(name)
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else ""
