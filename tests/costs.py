"""What tests say of the time that something takes: nothing in seconds, for machines differ."""

from __future__ import annotations

import pytest

#: Of what takes a few seconds at most as it is, and minutes when it costs the square of its input's length.
linear = pytest.mark.timeout(60)
