"""Words of the account page, some of which the command speaks, too, in both languages."""

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
    "cooling": {"en": "cooling down", "id": "istirahat"},
    "paused": {"en": "paused", "id": "dijeda"},
    "expired": {"en": "expired", "id": "kedaluwarsa"},
    "refused": {"en": "log in again", "id": "masuk lagi"},
    "stopped": {"en": "stopped by Kimi", "id": "dihentikan Kimi"},
}

#: Events of the audit trail that somebody may ask about.
FAILURE_EVENTS: Final[dict[str, dict[Language, str]]] = {
    "put aside": {"en": "put aside", "id": "disisihkan"},
    "stopped": {"en": "stopped", "id": "dihentikan"},
    "refresh refused": {"en": "renewal refused", "id": "pembaruan ditolak"},
    "refresh cut short": {"en": "renewal cut short", "id": "pembaruan terputus"},
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

#: Everything else that the page says, by name.
PAGE: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "title": "Kimi accounts",
        "guide": "Guide",
        "leave": "Sign out",
        "key": "Master key of the gateway",
        "enter": "Sign in",
        "enter_why": "The account page needs the gateway's master key (LITELLM_MASTER_KEY; kimi-provider serve prints "
        "where it is kept).",
        "wrong_key": "That is not the master key of this gateway.",
        "too_many": "Too many wrong keys from your address. Wait {wait}, then try again.",
        "no_key": "This gateway has no master key, so this page is closed. Set LITELLM_MASTER_KEY and start it again.",
        "demo": "Demo mode: these accounts are simulated and end with the gateway.",
        "memory": "Accounts are kept in memory only: they end with this process and can't be paused or removed here.",
        "add": "Add accounts",
        "paste": "Paste a refresh_token, cookie, localStorage, or a copied cURL command",
        "file": "or choose a file (HAR recordings may be large)",
        "add_button": "Add",
        "account": "Account",
        "state": "State",
        "expires": "Expires",
        "streams": "Streams now",
        "today": "Today",
        "month": "30 days",
        "last_error": "Last error",
        "actions": "Actions",
        "check": "Check",
        "refresh": "Refresh",
        "pause": "Pause",
        "resume": "Resume",
        "remove": "Remove",
        "sure": "Forget account {account} and its tokens? They can't be had back.",
        "none": "No account yet. Add one below.",
        "failures": "Recent failures",
        "no_failures": "None.",
        "when": "When",
        "what": "What",
        "ago": "{time} ago",
        "in": "in {time}",
        "unknown": "unknown",
        "no_refresh": "no refresh token",
        "own": "of a deployment",
        "waiting": "{count} waiting",
        "failed": "{count} failed",
        "tokens": "about {count} tokens",
        "until": "for another {time}",
        "for": "for {time}",
        "was_added": "Added {account}: {facts}.",
        "was_updated": "Updated {account}: {facts}.",
        "was_live": "{account} is alive.",
        "was_not_live": "{account} is not alive: {why}",
        "was_renewed": "{account}: tokens renewed.",
        "was_paused": "{account} is paused: running answers end, no new ones begin.",
        "was_resumed": "{account} is in use again.",
        "was_removed": "{account} is removed.",
        "seeded": "KIMI_TOKEN still holds it: take it out there, or the next start adds it again.",
        "kind": "{kind} token",
        "region": "region {region}",
        "plan": "plan {plan}",
        "nothing_pasted": "Nothing was pasted and no file chosen.",
        "no_credential": "There is no Kimi credential in it. Copy refresh_token from kimi.com and paste it here.",
        "store_away": "The account store can't be used now, so nothing was changed. Check the disk or database "
        "(KIMI_STATE_URL).",
        "not_ours": "The request did not come from this page. Reload it and try again.",
    },
    "id": {
        "title": "Akun Kimi",
        "guide": "Panduan",
        "leave": "Keluar",
        "key": "Kunci utama gerbang",
        "enter": "Masuk",
        "enter_why": "Halaman akun memerlukan kunci utama gerbang (LITELLM_MASTER_KEY; kimi-provider serve mencetak "
        "tempat penyimpanannya).",
        "wrong_key": "Itu bukan kunci utama gerbang ini.",
        "too_many": "Terlalu banyak kunci salah dari alamat Anda. Tunggu {wait}, lalu coba lagi.",
        "no_key": "Gerbang ini tanpa kunci utama, jadi halaman ini tertutup. Isi LITELLM_MASTER_KEY lalu mulai ulang.",
        "demo": "Mode demo: akun-akun ini simulasi dan berakhir bersama gerbang.",
        "memory": "Akun hanya disimpan di memori: berakhir bersama proses ini dan tidak dapat dijeda atau dihapus.",
        "add": "Tambah akun",
        "paste": "Tempel refresh_token, cookie, localStorage, atau perintah cURL yang disalin",
        "file": "atau pilih berkas (rekaman HAR boleh besar)",
        "add_button": "Tambah",
        "account": "Akun",
        "state": "Status",
        "expires": "Berakhir",
        "streams": "Aliran kini",
        "today": "Hari ini",
        "month": "30 hari",
        "last_error": "Galat terakhir",
        "actions": "Tindakan",
        "check": "Periksa",
        "refresh": "Perbarui",
        "pause": "Jeda",
        "resume": "Lanjutkan",
        "remove": "Hapus",
        "sure": "Lupakan akun {account} beserta tokennya? Tidak dapat dikembalikan.",
        "none": "Belum ada akun. Tambahkan di bawah.",
        "failures": "Kegagalan terbaru",
        "no_failures": "Tidak ada.",
        "when": "Kapan",
        "what": "Apa",
        "ago": "{time} lalu",
        "in": "dalam {time}",
        "unknown": "tidak diketahui",
        "no_refresh": "tanpa refresh token",
        "own": "milik deployment",
        "waiting": "{count} menunggu",
        "failed": "{count} gagal",
        "tokens": "sekitar {count} token",
        "until": "{time} lagi",
        "for": "selama {time}",
        "was_added": "{account} ditambahkan: {facts}.",
        "was_updated": "{account} diperbarui: {facts}.",
        "was_live": "{account} hidup.",
        "was_not_live": "{account} tidak hidup: {why}",
        "was_renewed": "{account}: token diperbarui.",
        "was_paused": "{account} dijeda: jawaban yang berjalan selesai, yang baru tidak dimulai.",
        "was_resumed": "{account} dipakai lagi.",
        "was_removed": "{account} dihapus.",
        "seeded": "KIMI_TOKEN masih memuatnya: keluarkan dari sana, atau mulai berikutnya menambahkannya lagi.",
        "kind": "token {kind}",
        "region": "wilayah {region}",
        "plan": "paket {plan}",
        "nothing_pasted": "Tidak ada yang ditempel dan tidak ada berkas yang dipilih.",
        "no_credential": "Tidak ada kredensial Kimi di dalamnya. Salin refresh_token dari kimi.com dan tempel di sini.",
        "store_away": "Penyimpanan akun tidak dapat dipakai sekarang, jadi tidak ada yang berubah. Periksa disk atau "
        "basis data (KIMI_STATE_URL).",
        "not_ours": "Permintaan bukan dari halaman ini. Muat ulang lalu coba lagi.",
    },
}
