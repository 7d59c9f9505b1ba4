"""Rows as lines of text: what the account page says of each, in one language.

Templates only arrange what comes from here; nothing here knows requests or the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from ..accounts.understanding import duration
from ..observe import redact
from ..wording import HEADLINES_ID, Language
from .rows import AccountRow, Added, Counts, FailureRow
from .words import FAILURE_EVENTS, PAGE, STATES, TONES

_DAY_S: Final = 86_400


class Lines:
    """Writes lines. `now` is Unix seconds."""

    def __init__(self, language: Language) -> None:
        self._lang = language
        self._t = PAGE[language]

    def account(self, row: AccountRow, now: float, *, durable: bool) -> dict[str, Any]:
        """One account, with the buttons it has; without a `durable` store it can't be paused or removed."""
        known, t = row.understood, self._t
        left_s = None if known.expires_at is None else known.expires_at - now
        if left_s is None:
            expiry, tone = t["unknown"], "off"
        elif left_s <= 0:
            expiry, tone = STATES["expired"][self._lang], "bad"
        else:
            expiry = t["in"].format(time=duration(left_s, self._lang))
            tone = "bad" if left_s < _DAY_S else "warn" if left_s < 7 * _DAY_S else "good"
        facts = (known.plan, known.region, None if row.shared else t["own"])
        return {
            "id": row.id,
            "key": hashlib.sha256(row.id.encode()).hexdigest()[:12],
            "name": known.short_id,
            "facts": [fact for fact in facts if fact],
            "state": STATES[row.state][self._lang],
            "tone": TONES[row.state],
            "cooling": [
                f"{_concerned(one.scope)} {t['until'].format(time=duration(one.until - now, self._lang))}".strip()
                for one in row.cooldowns
            ],
            "expiry": expiry,
            "expiry_tone": tone,
            "missing": "" if known.renewable else t["no_refresh"],
            "streams": row.streams,
            "waiting": t["waiting"].format(count=row.waiting) if row.waiting else "",
            "today": self._usage(row.today),
            "month": self._usage(row.month),
            "error": self._what(row.last_error) if row.last_error else "",
            "actions": self._actions(row, durable=durable),
        }

    def _actions(self, row: AccountRow, *, durable: bool) -> list[dict[str, str]]:
        held = row.enabled and row.state != "stopped"
        names = ["check", *(["refresh"] if row.understood.renewable else [])]
        if durable:
            names += ["pause" if held else "resume", "remove"]
        sure = self._t["sure"].format(account=row.short_id)
        return [{"name": name, "label": self._t[name], "sure": sure if name == "remove" else ""} for name in names]

    def _usage(self, counts: Counts) -> dict[str, Any]:
        total = counts.prompt_tokens + counts.completion_tokens
        return {
            "answers": counts.answers,
            "failed": self._t["failed"].format(count=counts.failures) if counts.failures else "",
            "tokens": self._t["tokens"].format(count=f"{total:,}".replace(",", "\u00a0")) if total else "",
        }

    def failure(self, one: FailureRow, now: float) -> dict[str, str]:
        """One failure: when, whose, what."""
        when = "" if one.at is None else self._t["ago"].format(time=duration(now - one.at, self._lang))
        return {"when": when, "name": one.short_id, "what": self._what(one)}

    def _what(self, one: FailureRow) -> str:
        headline = HEADLINES_ID.get(one.code, "") if self._lang == "id" else ""
        if not one.event:  # it still goes on: the service's own words
            return ": ".join(filter(None, (headline, redact(one.message))))
        words = [FAILURE_EVENTS[one.event][self._lang]]
        if one.pause_s is not None:
            words.append(self._t["for"].format(time=duration(one.pause_s, self._lang)))
        if one.scope:
            words.append(f"({_concerned(one.scope)})")
        why = headline or (one.code.replace("_", " ") if one.code else redact(one.message))
        return ": ".join(filter(None, (" ".join(words), why)))

    def added(self, added: Sequence[Added], now: float) -> str:
        """What was understood of each credential that was given."""
        t, said = self._t, []
        for one in added:
            known = one.understood
            facts = [t["kind"].format(kind=known.kind)]
            if known.region:
                facts.append(t["region"].format(region=known.region))
            if known.plan:
                facts.append(t["plan"].format(plan=known.plan))
            if known.expires_at is not None and known.expires_at > now:
                facts.append(
                    f"{t['expires'].lower()} {t['in'].format(time=duration(known.expires_at - now, self._lang))}"
                )
            if missing := known.missing(now, self._lang):
                facts.append(missing)
            said.append(t[f"was_{one.outcome}"].format(account=known.short_id, facts=", ".join(facts)))
        return " ".join(said)


def _concerned(scope: str) -> str:
    """What of an account rests, in a word: a model, a scenario, or nothing for all of it."""
    scenario, *model = scope.split("/")
    return model[0] if model else scenario.removeprefix("SCENARIO_").lower()
