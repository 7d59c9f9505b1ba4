"""Reading Gemini's JSON: a field has two spellings (`inlineData`, `inline_data`), and any shape may come."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...errors import BadRequest

Json = dict[str, Any]


def mapping(value: Any, place: str) -> Mapping[str, Any]:
    """`value` as an object; None is an empty one. Raises BadRequest that names `place`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRequest(f"{place or 'A field'} must be an object, not {type(value).__name__}")
    return value


def items(value: Any, place: str) -> list[Any]:
    """`value` as a list; None is an empty one. Raises BadRequest that names `place`."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [value]  # Google's own parser takes a single object for a repeated field
    if not isinstance(value, list):
        raise BadRequest(f"{place} must be a list, not {type(value).__name__}")
    return value


def snake(value: Mapping[str, Any]) -> Json:
    """The same object with `snake_case` names."""
    return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): item for key, item in value.items()}


def camel(name: str) -> str:
    """A name as Gemini's documentation spells it."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
