"""JSON schemas as tools bring them: made standard, shown in few words, and used to set a value's type right.

Knows JSON and schemas only. Schemas are the caller's and may be odd or recursive: nothing here raises for their
shape, and nothing follows a reference deeper than `_MAX_DEPTH`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .mending import parsed

Schema = Mapping[str, Any]

_MAX_DEPTH = 24
_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
#: Google writes 64-bit counts as text.
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


def standard(schema: Any) -> dict[str, Any]:
    """`schema` in JSON schema's own words: Google's upper-case types, `nullable` and counts as text are rewritten."""
    out = _standard(schema)
    return out if isinstance(out, dict) else {}


def _standard(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return [_standard(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    out = dict(schema)
    types = out.get("type")
    if types is not None:
        named = [str(t).lower() for t in (types if isinstance(types, list | tuple) else [types])]
        known = [t for t in named if t in _TYPES]
        if out.pop("nullable", False) is True and "null" not in known:
            known.append("null")
        out["type"] = known[0] if len(known) == 1 else known
        if not known:
            del out["type"]
    for key in _COUNTS:
        if isinstance(value := out.get(key), str) and value.isdecimal():
            out[key] = int(value)
    out.pop("propertyOrdering", None)
    for key in _SCHEMA_MAPS:
        if isinstance(below := out.get(key), Mapping):
            out[key] = {name: _standard(one) for name, one in below.items()}
    for key in (*_SCHEMA_LISTS, *_SCHEMAS):
        if key in out:
            out[key] = _standard(out[key])
    return out


class View:
    """A place in a schema: what a value there may be, and the places below it. Immutable."""

    __slots__ = ("_root", "kinds", "schema")

    def __init__(self, schema: Any, root: Schema | None = None) -> None:
        self.schema: Schema = schema if isinstance(schema, Mapping) else {}
        self._root = self.schema if root is None else root
        self.schema = self._resolved(self.schema)
        #: JSON types allowed here; None when anything is.
        self.kinds = self._kinds(self.schema, 0)

    def member(self, name: str) -> View:
        """Where the value of the key `name` is described."""
        for schema in self._branches("object"):
            properties = schema.get("properties")
            if isinstance(properties, Mapping) and name in properties:
                return View(properties[name], self._root)
        for schema in self._branches("object"):
            if isinstance(below := schema.get("additionalProperties"), Mapping):
                return View(below, self._root)
        return View({}, self._root)

    def item(self) -> View:
        """Where an element is described."""
        for schema in self._branches("array"):
            if isinstance(below := schema.get("items"), Mapping):
                return View(below, self._root)
        return View({}, self._root)

    @property
    def properties(self) -> tuple[str, ...]:
        """Keys that are described, in their order."""
        found: dict[str, None] = {}
        for schema in self._branches("object"):
            if isinstance(below := schema.get("properties"), Mapping):
                found.update(dict.fromkeys(map(str, below)))
        return tuple(found)

    @property
    def required(self) -> tuple[str, ...]:
        """Keys that must be there."""
        found: dict[str, None] = {}
        for schema in (self.schema, *self._listed(self.schema, "allOf")):
            names = schema.get("required")
            if isinstance(names, list | tuple):
                found.update(dict.fromkeys(name for name in names if isinstance(name, str)))
        return tuple(found)

    def allows(self, kind: str) -> bool:
        """Whether a value of the JSON type `kind` may stand here."""
        return self.kinds is None or kind in self.kinds or (kind == "integer" and "number" in self.kinds)

    @property
    def fixed(self) -> tuple[Any, ...]:
        """The only values allowed, if they are listed."""
        if "const" in self.schema:
            return (self.schema["const"],)
        values = self.schema.get("enum")
        return tuple(values) if isinstance(values, list | tuple) else ()

    def _branches(self, kind: str) -> list[Schema]:
        found = [self.schema]
        for key in ("allOf", "anyOf", "oneOf"):
            for schema in self._listed(self.schema, key):
                kinds = self._kinds(schema, 0)
                if kinds is None or kind in kinds:
                    found.append(schema)
        return found

    def _listed(self, schema: Schema, key: str) -> list[Schema]:
        below = schema.get(key)
        if not isinstance(below, list | tuple):
            return []
        return [self._resolved(one) for one in below if isinstance(one, Mapping)]

    def _resolved(self, schema: Schema) -> Schema:
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#"):
                return schema
            found: Any = self._root
            for step in reference[1:].split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                found = found.get(step) if isinstance(found, Mapping) else None
            if not isinstance(found, Mapping):
                return {}
            schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
        return {}

    def _kinds(self, schema: Schema, depth: int) -> frozenset[str] | None:
        types = schema.get("type")
        if isinstance(types, str):
            return frozenset({types})
        if isinstance(types, list | tuple) and types:
            return frozenset(map(str, types))
        if "const" in schema:
            return frozenset({kind_of(schema["const"])})
        if isinstance(values := schema.get("enum"), list | tuple) and values:
            return frozenset(map(kind_of, values))
        for key in ("anyOf", "oneOf"):
            branches = self._listed(schema, key)
            if branches and depth < _MAX_DEPTH:
                kinds = [self._kinds(one, depth + 1) for one in branches]
                return None if None in kinds else frozenset().union(*(k for k in kinds if k))
        for one in self._listed(schema, "allOf"):
            if depth < _MAX_DEPTH and (found := self._kinds(one, depth + 1)) is not None:
                return found
        if "properties" in schema:
            return frozenset({"object"})
        return frozenset({"array"}) if "items" in schema else None


def kind_of(value: Any) -> str:
    """The JSON type of a Python value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case Mapping():
            return "object"
        case _:
            return "array"


def coerced(value: Any, view: View, depth: int = 0) -> Any:
    """`value`, or the nearest value of an allowed type when it says the same: "5" for 5, a list's text for the list."""
    kind = kind_of(value)
    if depth < _MAX_DEPTH:
        if kind == "object" and view.allows("object"):
            return {key: coerced(below, view.member(key), depth + 1) for key, below in value.items()}
        if kind == "array" and view.allows("array"):
            return [coerced(below, view.item(), depth + 1) for below in value]
    if view.allows(kind):
        return _listed_spelling(value, view) if kind == "string" else value
    if kind == "string":
        return _from_text(value, view, depth)
    if kind == "number" and view.allows("integer") and float(value).is_integer():
        return int(value)
    if view.allows("array") and value is not None:
        return [coerced(value, view.item(), depth + 1)]
    if view.allows("string") and value is not None:
        return json.dumps(value, ensure_ascii=False)
    return value


def _listed_spelling(text: str, view: View) -> str:
    """The listed value that differs from `text` in case and outer blanks only."""
    if not view.fixed or text in view.fixed:
        return text
    near = [one for one in view.fixed if isinstance(one, str) and one.casefold() == text.strip().casefold()]
    return near[0] if len(near) == 1 else text


def _from_text(text: str, view: View, depth: int) -> Any:
    bare = text.strip()
    if view.allows("boolean") and bare.casefold() in ("true", "false"):
        return bare.casefold() == "true"
    if view.allows("null") and bare.casefold() in ("null", "none", ""):
        return None
    if view.allows("integer") or view.allows("number"):
        try:
            number = float(bare) if not bare.lstrip("+-").isdecimal() else int(bare)
        except ValueError:
            pass
        else:
            if isinstance(number, int) or view.allows("number"):
                return number if number == number and abs(number) != float("inf") else text
            return int(number) if number.is_integer() else text
    if bare[:1] in ("{", "[") and (view.allows("object") or view.allows("array")):
        found = parsed(bare)
        if kind_of(found) in ("object", "array"):
            return coerced(found, view, depth + 1) if depth < _MAX_DEPTH else found
    if view.allows("array") and bare:
        return [coerced(text, view.item(), depth + 1)] if depth < _MAX_DEPTH else [text]
    return {} if view.allows("object") and not bare else text


def from_markup(text: str, view: View) -> Any:
    """The value of an argument that was written as text between tags."""
    bare = text.strip()
    if view.allows("string"):
        if view.kinds is not None and "null" in view.kinds and bare == "null":
            return None
        containers = view.kinds is not None and (view.allows("object") or view.allows("array"))
        if containers and bare[:1] in ("{", "["):
            found = parsed(bare)
            if view.allows(kind_of(found)):
                return coerced(found, view)
        return _listed_spelling(text, view)
    return coerced(text, view)


# --- signatures -----------------------------------------------------------------------------------------------


def signature(view: View, depth: int = 0) -> str:
    """The type in a few characters: `{path: string, limit?: integer}`, `"a" | "b"`, `string[]`. Keys are never cut."""
    if view.fixed:
        return " | ".join(json.dumps(one, ensure_ascii=False) for one in view.fixed)
    if view.kinds is None or depth > 5:
        return "any" if view.kinds is None else " | ".join(sorted(view.kinds))
    words = []
    for kind in sorted(view.kinds):
        if kind == "object" and view.properties:
            required = view.required
            fields = (
                f"{key}{'' if key in required else '?'}: {signature(view.member(key), depth + 1)}"
                for key in dict.fromkeys((*required, *view.properties))
            )
            words.append("{" + ", ".join(fields) + "}")
        elif kind == "array":
            below = signature(view.item(), depth + 1)
            words.append(f"({below})[]" if " | " in below else f"{below}[]")
        else:
            words.append(kind)
    return " | ".join(words)
