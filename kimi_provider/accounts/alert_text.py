"""What an alert says, to somebody who may have been told something else before. No secret: people pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ..observe import redact
from ..wording import NOTHING_TO_DO, RECOVERIES, TROUBLE_CURES, TROUBLES, Language
from .troubles import Finding, Trouble
from .understanding import duration

#: The worse a trouble, the later.
_SEVERITY: Final[tuple[Trouble, ...]] = ("ends_in_7_days", "ends_in_1_day", "failing", "ended", "stopped", "none_left")
_WARNINGS: Final[frozenset[Trouble]] = frozenset({"ends_in_7_days", "ends_in_1_day", "failing"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """Something for people to read; holds no secret."""

    title: str
    body: str
    severity: Literal["failure", "warning", "success"]


def worded(finding: Finding, before: str, language: Language) -> Alert:
    """What to say to somebody who believes in the trouble `before` ("" for none)."""
    trouble, facts = finding.trouble, {"account": finding.short_id, "left": duration(finding.left_s or 0, language)}
    over = RECOVERIES[before][language].format(**facts) if before in RECOVERIES else ""
    if trouble is None:
        return Alert(title=over, body=NOTHING_TO_DO[language], severity="success")
    better = before in _SEVERITY and _SEVERITY.index(before) > _SEVERITY.index(trouble)
    sentences = (over if better else "", finding.why, TROUBLE_CURES[trouble][language].format(**facts))
    return Alert(
        title=TROUBLES[trouble][language].format(**facts),
        body=redact(" ".join(f"{text.rstrip('. ')}." for text in sentences if text)),
        severity="warning" if trouble in _WARNINGS else "failure",
    )
