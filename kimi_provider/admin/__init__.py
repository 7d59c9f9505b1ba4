"""Pages for people, and the accounts behind them.

Here: templates and static files. `roster` is what an owner does with accounts, `rows` what is shown of them, `door` who
may come in, `api` and `page` are routes. Nothing knows LiteLLM. No inline script or style, so that the strict content
security policy in `HEADERS` holds; no secret is ever an argument of a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Not "no-referrer": browsers would then hide the origin of our own forms.
    "referrer-policy": "same-origin",
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
    return render("guide.html", base_url=base_url.rstrip("/"), models=models, demo=demo, lang=language)


def render(template: str, **values: object) -> str:
    """A template of ours as HTML."""
    return _templates().get_template(template).render(**values)


@cache
def static(name: str) -> bytes:
    """One of our static files."""
    return resources.files(__package__).joinpath("static", name).read_bytes()
