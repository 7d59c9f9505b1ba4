"""What works, what does not, and what to do about it.

`checks` looks without costing anything. With the owner's consent `probing` makes about ten cheap calls on an account;
`learning` says what upstream.yaml would need to know to understand the answers, `questions` what they tell about
protocol G, and `redaction` and `taking` make of them a recording that may be shown to others. Nothing here prints.
"""

from __future__ import annotations

from .checks import TESTED_LITELLM, Check, run

__all__ = ["TESTED_LITELLM", "Check", "run"]
