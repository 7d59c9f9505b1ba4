"""The APIs in front of the gateway; a new one is one class and one entry here.

Each SDK gets connections that verify no certificate: there is none on loopback, and reading the machine's costs more
than most tests.
"""

from __future__ import annotations

from .chat import Chat
from .gemini import Gemini
from .messages import Messages
from .responses import Responses
from .surface import Answer, Failed, File, Question, Surface, Turn, Usage, ask, asking

__all__ = ["SURFACES", "Answer", "Failed", "File", "Question", "Surface", "Turn", "Usage", "ask", "asking"]

SURFACES = (Chat, Messages, Responses, Gemini)
