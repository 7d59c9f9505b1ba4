"""/kimi/accounts: the accounts for people, kept up to date while one looks.

`lines` puts what is shown into words, templates only arrange it. The page asks every two seconds what is new and gets
204 while nothing is; what an action did comes back as a sentence, and the table follows by itself. All addresses are
relative, so that the page works below any prefix.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from markupsafe import Markup, escape
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from ..accounts.capture import MAX_FILE_BYTES
from ..accounts.understanding import duration
from ..errors import CredentialMissing, KimiError, Unavailable
from ..observe import redact
from ..settings import Settings
from . import HEADERS, render, static
from .door import CSRF_HEADER, Door, is_own_origin
from .lines import Lines
from .roster import Roster
from .words import ADVICE, PAGE

_FAILURES_SHOWN: Final = 10

_STATIC: Final = {"kimi.css": "text/css", "htmx.min.js": "text/javascript"}


class AccountPage:
    """The page and what it does. Texts in the language of the settings."""

    def __init__(self, roster: Roster, door: Door, settings: Settings) -> None:
        self._roster, self._door, self._settings = roster, door, settings
        self._lang = settings.kimi_lang
        self._t, self._lines = PAGE[self._lang], Lines(self._lang)

    def routes(self) -> list[Route]:
        """Those of the page, its session and its static files."""
        actions: dict[str, Callable[[Request], Awaitable[str]]] = {
            "add": self._add,
            "check": self._check,
            "refresh": self._refresh,
            "pause": self._pause,
            "resume": self._resume,
            "remove": self._remove,
        }
        return [
            Route("/kimi/accounts", self._show, methods=["GET"]),
            Route("/kimi/accounts/table", self._news, methods=["GET"]),
            Route("/kimi/session", self._enter, methods=["POST"]),
            Route("/kimi/leave", self._leave, methods=["POST"]),
            *(Route(f"/kimi/accounts/{name}", self._acting(act), methods=["POST"]) for name, act in actions.items()),
            *(Route(f"/kimi/static/{name}", _file(name, kind)) for name, kind in _STATIC.items()),
        ]

    # --- in and out ---

    async def _show(self, request: Request) -> Response:
        session = self._door.session(request)
        if session is None:
            return self._sign_in()
        return self._page(csrf=session.csrf, table=await self._table(), hint=self._roster.hint(os.environ))

    def _page(self, **values: Any) -> Response:
        more = {"demo": self._settings.kimi_demo, "durable": self._roster.durable, "advice": ADVICE[self._lang]}
        return HTMLResponse(render("accounts.html", t=self._t, lang=self._lang, **more, **values), headers=HEADERS)

    def _sign_in(self, wrong: str = "", status: int = 401, **headers: str) -> Response:
        page = render("sign_in.html", t=self._t, lang=self._lang, locked=self._door.locked, wrong=wrong)
        return HTMLResponse(page, status, headers=HEADERS | headers)

    async def _enter(self, request: Request) -> Response:
        if not is_own_origin(request):  # nor does it count: another site could use up the owner's guesses
            return self._sign_in(self._t["not_ours"], 403)
        form = await request.form(max_files=0, max_fields=4)
        wait_s = await self._door.sign_in(request, str(form.get("key") or ""))
        if wait_s is None:
            answer = RedirectResponse("accounts", 303, headers=HEADERS)
            self._door.give_session(request, answer)
            return answer
        if wait_s > 0:
            text = self._t["too_many"].format(wait=duration(wait_s, self._lang))
            return self._sign_in(text, 429, **{"retry-after": str(int(wait_s) + 1)})
        return self._sign_in(self._t["wrong_key"], 403)

    async def _leave(self, request: Request) -> Response:
        session = self._door.session(request)
        form = await request.form(max_files=0, max_fields=4)
        answer = RedirectResponse("accounts", 303, headers=HEADERS)
        if session is not None and self._door.may_change(session, str(form.get("csrf") or "")):
            self._door.end_session(request, answer)
        return answer

    # --- the table ---

    async def _news(self, request: Request) -> Response:
        if self._door.session(request) is None:
            return _reload()
        table = await self._table()
        seen = request.query_params.get("seen", "")
        if seen and f"seen={seen}&" in table:
            return Response(status_code=204, headers=HEADERS)
        return HTMLResponse(table, headers=HEADERS)

    async def _table(self) -> Markup:
        now = time.time()
        try:
            durable = self._roster.durable
            lines = [self._lines.account(row, now, durable=durable) for row in await self._roster.rows()]
            failures = [self._lines.failure(one, now) for one in await self._roster.failures(_FAILURES_SHOWN)]
        except Unavailable:  # the page says so, and goes on asking
            inner = Markup('<p class="note bad" role="alert">{}</p>').format(self._t["store_away"])
        else:
            inner = Markup(render("table.html", t=self._t, lines=lines, failures=failures))  # noqa: S704  # escaped there
        digest = hashlib.sha256(inner.encode()).hexdigest()[:16]
        return Markup(
            '<section id="table" hx-get="accounts/table?seen={}&amp;" hx-trigger="every 2s, changed from:body" '
            'hx-target="this" hx-swap="outerHTML">{}</section>'
        ).format(digest, inner)

    # --- actions ---

    def _acting(self, act: Callable[[Request], Awaitable[str]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            session = self._door.session(request)
            if session is None:
                # Another site's script learns nothing; our own page asks for the key again.
                return _reload() if is_own_origin(request) else _said(self._t["not_ours"], 403)
            if not self._door.may_change(session, request.headers.get(CSRF_HEADER)):
                return _said(self._t["not_ours"], 403)
            try:
                text = await act(request)
            except CredentialMissing as exc:
                text = self._t["no_credential"] if self._lang == "id" else exc.describe()
                return _said(text, exc.status)
            except KimiError as exc:
                away = isinstance(exc, Unavailable) and await self._store_is_away()
                return _said(self._t["store_away"] if away else redact(exc.describe(self._lang)), exc.status)
            # What was pasted goes from the page as soon as it is kept.
            return _said(text, more=render("paste.html", t=self._t, again=True) if act == self._add else "")

        return endpoint

    async def _store_is_away(self) -> bool:
        try:
            await self._roster.rows()
        except Unavailable:
            return True
        return False

    async def _add(self, request: Request) -> str:
        async with request.form(max_files=1, max_fields=4, max_part_size=MAX_FILE_BYTES) as form:
            file, pasted = form.get("file"), form.get("credential")
            content = await file.read(MAX_FILE_BYTES + 1) if isinstance(file, UploadFile) else b""
            content = content or (pasted.encode() if isinstance(pasted, str) else b"")
        if not content.strip():
            return self._t["nothing_pasted"]
        return self._lines.added(await self._roster.add(content), time.time())

    async def _check(self, request: Request) -> str:
        found = await self._roster.check(await _account(request))
        if found.live:
            return self._t["was_live"].format(account=found.short_id)
        why = redact(found.failure.describe(self._lang)) if found.failure else ""
        return self._t["was_not_live"].format(account=found.short_id, why=why)

    async def _refresh(self, request: Request) -> str:
        row = await self._roster.refresh(await _account(request))
        return self._t["was_renewed"].format(account=row.short_id)

    async def _pause(self, request: Request) -> str:
        row = await self._roster.pause(await _account(request), paused=True)
        return self._t["was_paused"].format(account=row.short_id)

    async def _resume(self, request: Request) -> str:
        row = await self._roster.pause(await _account(request), paused=False)
        return self._t["was_resumed"].format(account=row.short_id)

    async def _remove(self, request: Request) -> str:
        row = await self._roster.remove(await _account(request))
        text = self._t["was_removed"].format(account=row.short_id)
        return f"{text} {self._t['seeded']}" if self._roster.is_seeded(row.id) else text


async def _account(request: Request) -> str:
    async with request.form(max_files=0, max_fields=4) as form:
        return str(form.get("account") or "")


def _said(text: str, status: int = 200, *, more: str = "") -> Response:
    tone = "good" if status < 400 else "bad"
    html = Markup('<span class="tone {}">{}</span>').format(tone, escape(text))
    return HTMLResponse(f"{html}{more}", status, headers=HEADERS | {"hx-trigger": "changed"})


def _reload() -> Response:
    """The session has ended: the page itself asks for the key."""
    return Response(status_code=401, headers=HEADERS | {"hx-refresh": "true"})


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return Response(static(name), media_type=kind, headers={"cache-control": "max-age=3600"})

    return endpoint
