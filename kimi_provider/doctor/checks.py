"""`kimi-provider doctor` without --live: the machine, the settings, the credentials.

Each check says what was tried, what the outcome means and the next step. Later checks run even when earlier ones
failed, as far as that makes sense. Prints nothing and changes nothing.
"""

from __future__ import annotations

import asyncio
import http.client
import platform
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..accounts.alert_text import Alert
from ..accounts.alerts import Alerts
from ..accounts.channels import apprise_channels
from ..engine import KimiEngine
from ..errors import KimiError
from ..settings import Settings, SettingsError
from ..store import StoreError
from ..upstream import Upstream
from ..wording import NOTHING_TO_DO, TEST_ALERT, Language

#: Versions of LiteLLM on which the whole test suite has run.
TESTED_LITELLM = ("1.106.2",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One finding; `action` is empty when nothing needs to be done."""

    ok: bool
    tried: str
    meaning: str
    action: str = ""


def run(*, test_alert: bool = False) -> Iterator[Check]:
    """All checks, in the order in which one would look. `test_alert`: send one to each of KIMI_ALERT_URLS."""
    yield Check(ok=True, tried="Python", meaning=f"{platform.python_version()} on {platform.system()}")
    yield _litellm()
    try:
        settings = Settings.load()
        upstream = Upstream.load(settings.kimi_upstream_file)
    except SettingsError as exc:
        yield Check(
            ok=False, tried="settings and data files", meaning=str(exc), action="Correct the value named above."
        )
        return
    yield Check(ok=True, tried="settings and data files", meaning=f"service at {settings.kimi_base_url}")
    try:
        engine = KimiEngine(settings, upstream)
    except KimiError as exc:
        yield _failure("reading the credentials", exc, settings.kimi_lang)
        return
    except StoreError as exc:
        yield Check(ok=False, tried="opening the account store", meaning=str(exc))
        return
    yield from _accounts(engine)
    yield from _alerts(engine, send=test_alert)
    yield _gateway()


def _litellm() -> Check:
    try:
        found = version("litellm")
    except PackageNotFoundError:
        return Check(ok=False, tried="LiteLLM", meaning="not installed", action="pip install 'kimi-provider[proxy]'")
    tested = found in TESTED_LITELLM
    meaning = found if tested else f"{found}; tested with {', '.join(TESTED_LITELLM)}"
    return Check(ok=True, tried="LiteLLM", meaning=meaning)


def _accounts(engine: KimiEngine) -> Iterator[Check]:
    if not engine.pool.accounts:
        yield Check(
            ok=False,
            tried="KIMI_TOKEN in the environment and in .env",
            meaning="no credential, so only demo mode works",
            action="Log in at kimi.com in a private window, copy refresh_token from localStorage, close the window "
            "without logging out, and set KIMI_TOKEN to it.",
        )
        return
    for account in engine.pool.accounts:
        credential = account.credential
        left = ""
        if credential.claims.exp is not None:
            hours = (credential.claims.exp - time.time()) / 3600
            left = f", expires in {hours / 24:.0f} days" if hours > 48 else f", expires in {hours:.1f} h"
        yield Check(ok=True, tried=f"credential {account.short_id}", meaning=f"{credential.kind} token{left}")
        try:
            asyncio.run(engine.check_account(account))
        except KimiError as exc:
            yield _failure(
                f"asking {engine.settings.kimi_base_url} who {account.short_id} is", exc, engine.settings.kimi_lang
            )
        else:
            yield Check(ok=True, tried=f"asking the service who {account.short_id} is", meaning="the token is alive")


def _alerts(engine: KimiEngine, *, send: bool) -> Iterator[Check]:
    settings = engine.settings
    if (hint := Alerts.from_settings(settings, engine.upstream).hint()) is not None:
        yield Check(ok=False, tried="alerts", meaning=hint)
        return
    language = settings.kimi_lang
    alert = Alert(title=TEST_ALERT[language], body=NOTHING_TO_DO[language], severity="success")
    for channel in apprise_channels(settings):
        if not send:
            yield Check(ok=True, tried=channel.label, meaning="not tried; doctor --test-alert sends something there")
            continue
        try:
            asyncio.run(channel.send(alert))
        except KimiError as exc:
            yield _failure(f"sending to {channel.label}", exc, language)
        else:
            yield Check(ok=True, tried=f"sending to {channel.label}", meaning="taken")
    if send and not settings.kimi_alert_urls:
        yield Check(ok=False, tried="sending an alert", meaning="KIMI_ALERT_URLS names nobody", action="Set it.")


def _gateway() -> Check:
    url = "http://127.0.0.1:4000/ping"
    # Never through a proxy of the environment: it is this machine that is asked.
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with local.open(url, timeout=3) as answer:
            alive = answer.read() == b"pong"
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        alive = False
    meaning = "a gateway runs there" if alive else "no gateway runs there now, which is fine before 'serve'"
    return Check(ok=True, tried=f"GET {url}", meaning=meaning)


def _failure(tried: str, error: KimiError, language: Language) -> Check:
    return Check(ok=False, tried=tried, meaning=error.message, action=error.cure(language))
