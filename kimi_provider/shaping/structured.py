"""`response_format`: JSON out of a model that was only asked for it.

Law: what comes out is the beginning of one valid JSON value and nothing else, neither introduction nor fence; small
slips are mended and values get the schema's types while they stream. Whether the value as a whole is valid is known at
the end: `problem` says why it is not. A `collected` answer is shown only when it is valid, so the model can be asked
once more; what has streamed can't be taken back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from string import Template
from typing import Any

import jsonschema
import regex
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from ..dialects import Tools
from ..errors import BadRequest
from ..request import JsonFormat
from ..tools.json_reader import JsonReader
from ..tools.json_writer import JsonWriter
from ..tools.markup import Source, Status, markup
from ..tools.mending import mended
from ..tools.schemas import View, standard

#: Where JSON begins: a bracket in prose is not enough.
_OBJECT = r"""\{\s{0,40}(?:\{\s{0,40})?(?:["']?[^"'\n{}:\[\]]{1,120}["']?\s{0,40}:|\})"""
_ARRAY = r"\[\s{0,40}(?:[\[{\"\-\d\]]|true|false|null)"
_PIECE_CHARS = 8192
_PATTERN_TIMEOUT_S = 0.2


def json_format(value: Any) -> JsonFormat | None:
    """OpenAI's `response_format`, or the flat form of Responses and Anthropic; None for text. Raises BadRequest."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise BadRequest("response_format must be an object with a type")
    match value.get("type"):
        case "text":
            return None
        case "json_object":
            schema = value.get("schema") or value.get("response_schema")
            return JsonFormat(schema=schema if isinstance(schema, Mapping) else None)
        case "json_schema":
            inner = value.get("json_schema")
            schema = (inner if isinstance(inner, Mapping) else value).get("schema")
            if not isinstance(schema, Mapping):
                raise BadRequest("response_format of type json_schema needs a schema")
            return JsonFormat(schema=schema)
    raise BadRequest("response_format must be of type text, json_object or json_schema")


class JsonAnswer:
    """Feed it the text of one answer. Raises BadRequest for a schema that is none."""

    def __init__(self, wanted: JsonFormat, data: Tools, *, collected: bool = False) -> None:
        self._texts = data.structured
        self._schema = standard(wanted.schema) if wanted.schema is not None else None
        self._validator = _validator(self._schema if self._schema is not None else {"type": "object"})
        self._view = View(self._schema if self._schema is not None else {"type": "object"})
        self._collected = collected
        self._markup = markup(data.families)
        self.begin()

    def begin(self) -> None:
        """Start over with another answer: the one after `repair_text`."""
        self._source = Source()
        self._writer = JsonWriter(self._view)
        self._reader: JsonReader | None = None
        self._over = False
        self._shown: list[str] = []
        #: Why the answer is not what was asked for, after `close`.
        self.problem: str | None = None
        starts = [_OBJECT] if self._view.allows("object") else []
        starts += [_ARRAY] if self._view.allows("array") else []
        self._start = regex.compile("|".join(starts)) if starts else None

    @property
    def instructions(self) -> str:
        """What to tell the model."""
        if self._schema is None:
            return self._texts.any_object
        schema = json.dumps(self._schema, ensure_ascii=False)
        return Template(self._texts.by_schema).substitute(schema=schema)

    @property
    def repair_text(self) -> str:
        """What to tell it when there is a `problem`."""
        return Template(self._texts.repair).substitute(problem=self.problem or "")

    @property
    def shown(self) -> bool:
        """Something has gone out: it is too late to ask again."""
        return bool(self._shown) and not self._collected

    def feed(self, text: str) -> str:
        """JSON that is sure now."""
        for at in range(0, len(text), _PIECE_CHARS):
            self._source.add(text[at : at + _PIECE_CHARS])
            self._advance()
        return self._take()

    def close(self) -> str:
        """The rest; sets `problem`."""
        self._source.final = True
        self._advance()
        if self._reader is None and self._start is None:
            self._scalar()
        text = self._take()
        self.problem = self._check()
        if not self._collected:
            return text
        return "" if self.problem is not None else "".join(self._shown)

    def _take(self) -> str:
        if text := self._writer.take():
            self._shown.append(text)
        return "" if self._collected else text

    def _advance(self) -> None:
        source = self._source
        if self._reader is None and not self._find_start(source):
            return
        assert self._reader is not None
        if not self._over:
            status = self._reader.read(source)
            if status is Status.MORE:
                return
            self._over = True
            if status is not Status.DONE:
                self._writer.finish(mended(self._reader.raw))
        source.at = len(source.text)

    def _find_start(self, source: Source) -> bool:
        if self._start is None:
            return False
        while source.at < len(source.text):
            if source.text[source.at] in "{[":
                found = source.attempt(self._start)
                if found == "wait":
                    return False
                if found is not None:
                    self._reader = JsonReader(self._writer, self._markup, self._markup.fenced_end, several=False)
                    return True
            source.at += 1
        return False

    def _scalar(self) -> None:
        """A schema that wants neither object nor list: the whole answer is the value."""
        text = self._source.text.strip().removeprefix("```json").strip("`").strip()
        try:
            self._writer.scalar(json.loads(text))
        except ValueError:
            self._writer.scalar(text)

    def _check(self) -> str | None:
        text = "".join(self._shown)
        if not text:
            return "there is no JSON in it."
        try:
            error = jsonschema.exceptions.best_match(self._validator.iter_errors(json.loads(text)))
        except (TimeoutError, RecursionError):
            return None  # a pattern or a reference without end proves nothing
        if error is None:
            return None
        return f"{error.json_path}: {error.message[:300]}."


def _validator(schema: dict[str, Any]) -> Validator:
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        cls.check_schema(schema)
        bounded = jsonschema.validators.extend(cls, {"pattern": _bounded_pattern})  # type: ignore[no-untyped-call]  # theirs
        # An empty registry: nothing is ever fetched.
        validator: Validator = bounded(schema, registry=Registry())
        _prove(schema, validator)
    except jsonschema.exceptions.SchemaError as exc:
        raise BadRequest(f"response_format: the schema is not valid at {exc.json_path}: {exc.message[:200]}") from None
    except (regex.error, re.error) as exc:
        raise BadRequest(f"response_format: a pattern is not a regular expression: {exc}") from None
    except Unresolvable as exc:
        raise BadRequest(f"response_format: '{str(exc.ref)[:120]}' is not a place inside the schema") from None
    return validator


def _prove(schema: Any, validator: Validator) -> None:
    """Raises Unresolvable for a reference that leads out of the schema or nowhere, `error` for a broken pattern."""
    left, resolver = [schema], validator._resolver  # type: ignore[attr-defined]  # no public way to it
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            if isinstance(one.get("$ref"), str):
                resolver.lookup(one["$ref"])
            if isinstance(one.get("pattern"), str):
                regex.compile(one["pattern"])
            if isinstance(patterns := one.get("patternProperties"), Mapping):
                for pattern in patterns:
                    re.compile(pattern)
            left += one.values()
        elif isinstance(one, list):
            left += one


def _bounded_pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    """The keyword `pattern`, without the power to stop the process."""
    if validator.is_type(instance, "string") and not regex.search(pattern, instance, timeout=_PATTERN_TIMEOUT_S):
        yield jsonschema.ValidationError(f"{instance[:80]!r} does not match {pattern[:80]!r}")
