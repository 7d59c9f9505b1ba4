"""The account page and its API on a LiteLLM proxy: the page's rooms, and the proxy's own master key.

The key is read at every request, because LiteLLM knows it only after its configuration was read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from litellm.proxy import proxy_server

from ..admin import api
from ..admin.door import Door
from ..admin.page import AccountPage
from ..admin.roster import Roster

if TYPE_CHECKING:
    from starlette.routing import Route

    from ..engine import KimiEngine


def routes(engine: KimiEngine, *, own_keys: bool) -> list[Route]:
    """Routes of page and API. `own_keys`: every deployment brings its own credential. Raises StoreError."""
    logging.getLogger("uvicorn.access").addFilter(_is_worth_a_line)
    roster = Roster(engine)
    door = Door(_master_key, roster.store)
    page = AccountPage(roster, door, engine.settings)
    return [*page.routes(), *api.routes(roster, door, language=engine.settings.kimi_lang, own_keys=own_keys)]


def _master_key() -> str | None:
    key = proxy_server.master_key
    return key if isinstance(key, str) and key else None


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """An open page asks every two seconds what is new."""
    return "/kimi/accounts/table" not in record.getMessage()
