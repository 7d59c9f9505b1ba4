"""Words of the account page and command that both speak, in both languages."""

from __future__ import annotations

from typing import Final

from ..wording import Language
from .rows import State

#: Said beside every place where a credential is pasted.
ADVICE: Final[dict[Language, str]] = {
    "en": "Log in at kimi.com in a private window, copy refresh_token (developer tools, Application, Local storage), "
    "and close the window without logging out: from now on the token is renewed here, and each renewal signs out any "
    "other holder. Use your own account only.",
    "id": "Masuk ke kimi.com di jendela privat, salin refresh_token (alat pengembang, Application, Local storage), "
    "lalu tutup jendela tanpa logout: sejak itu token diperbarui di sini, dan setiap pembaruan mengeluarkan pemegang "
    "lain. Pakai akun Anda sendiri saja.",
}

STATES: Final[dict[State, dict[Language, str]]] = {
    "ok": {"en": "ready", "id": "siap"},
    "expiring": {"en": "expires soon", "id": "segera habis"},
    "cooling": {"en": "cooling down", "id": "jeda"},
    "paused": {"en": "paused", "id": "dijeda"},
    "expired": {"en": "expired", "id": "kedaluwarsa"},
    "refused": {"en": "log in again", "id": "masuk lagi"},
    "stopped": {"en": "stopped by Kimi", "id": "dihentikan Kimi"},
}

#: How a state looks: good, warn, bad or off.
TONES: Final[dict[State, str]] = {
    "ok": "good",
    "expiring": "warn",
    "cooling": "warn",
    "paused": "off",
    "expired": "bad",
    "refused": "bad",
    "stopped": "bad",
}
