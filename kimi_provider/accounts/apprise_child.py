"""Delivers one alert through Apprise, in a process of its own: JSON on standard input, an exit code as the answer.

Run by its path; the importing side takes the exit codes only. Says nothing, because whatever Apprise says may hold the
URL's secrets.
"""

from __future__ import annotations

import json
import sys
from typing import Final

DELIVERED: Final = 0
#: 1 and 2 are Python's own.
REFUSED: Final = 3
UNREADABLE: Final = 4
ABSENT: Final = 5


def main() -> int:
    """Deliver `{"url", "title", "body", "severity"}`; one of the codes above."""
    alert = json.load(sys.stdin)
    try:
        import apprise
    except ImportError:
        return ABSENT
    asset = apprise.AppriseAsset(app_id="kimi-provider", app_desc="kimi-provider", app_url="")
    messenger = apprise.Apprise(asset=asset)
    if not messenger.add(alert["url"]):
        return UNREADABLE
    delivered = messenger.notify(title=alert["title"], body=alert["body"], notify_type=alert["severity"])
    return DELIVERED if delivered else REFUSED


if __name__ == "__main__":
    sys.exit(main())
