"""Files of the simulated service: the Connect way and the legacy way into one store (protocol C.9, B.3).

Bytes are hashed while they arrive and never kept.
"""

from __future__ import annotations

from .store import Files, StoredFile

__all__ = ["Files", "StoredFile"]
