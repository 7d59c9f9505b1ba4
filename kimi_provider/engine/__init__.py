"""From a request to the events of its answer.

`kimi_engine` has the one retry loop, `attempts` its state; `asking` makes messages of a request (`transcript` its
history, `attachments` its files), `placement` finds the chat and the account for them, `answering` makes what the
caller asked for of what the model writes.
"""

from .asking import Asking
from .attachments import Attachments
from .kimi_engine import KimiEngine

__all__ = ["Asking", "Attachments", "KimiEngine"]
