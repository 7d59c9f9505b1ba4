"""What works, what does not, and what to do about it.

`checks` looks without costing anything. With the owner's consent `probing` makes about ten cheap calls on an account by
`asking`; `hearing` reads what the doorway heard. `learning` and `failures` say what upstream.yaml would need to know to
understand it, `questions` what it tells about protocol G; `redaction` and `taking` make of it a recording that may be
shown to others. Nothing here prints.
"""

from __future__ import annotations

from .checks import TESTED_LITELLM, Check, run

__all__ = ["TESTED_LITELLM", "Check", "run"]
