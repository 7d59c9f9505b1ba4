"""Pages for people, as HTML text: the guide now.

Renders what it is given and knows neither LiteLLM nor accounts. No inline script or style, so that the strict
content security policy in `HEADERS` holds; no secret is ever an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader(__package__),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def guide(*, base_url: str, models: Sequence[str], demo: bool, language: Literal["en", "id"]) -> str:
    """The `/kimi` page: surfaces, models of this gateway and ready curl lines."""
    return (
        _templates()
        .get_template("guide.html")
        .render(base_url=base_url.rstrip("/"), models=models, demo=demo, lang=language)
    )


@cache
def stylesheet() -> bytes:
    """The one style sheet of all pages."""
    return resources.files(__package__).joinpath("static/kimi.css").read_bytes()
