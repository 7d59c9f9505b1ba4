"""What the service does not do itself: counting tokens, `stop`, `max_tokens`, `response_format`.

Filters on text and events, sans-I/O; what they need to know of the request is in their arguments.
"""

from .shaper import Shaper
from .stops import stop_sequences
from .structured import JsonAnswer, json_format
from .tokens import estimate_tokens

__all__ = ["JsonAnswer", "Shaper", "estimate_tokens", "json_format", "stop_sequences"]
