"""What errors say to people, by error code: what to do next in both languages, and what happened in Indonesian.

Words only; which code is raised when, and with which particulars, is `errors`' and its callers' to say.
"""

from __future__ import annotations

from typing import Final, Literal

Language = Literal["en", "id"]

#: What to do next, by error code, in both languages (`KIMI_LANG`).
CURES: Final[dict[str, dict[Language, str]]] = {
    "credential_missing": {
        "en": "Run 'kimi-provider accounts add', or set KIMI_TOKEN (or api_key on the deployment) to a refresh_token "
        "or kimi-auth of your own account.",
        "id": "Jalankan 'kimi-provider accounts add', atau isi KIMI_TOKEN (atau api_key pada deployment) dengan "
        "refresh_token atau kimi-auth akun Anda sendiri.",
    },
    "credential_rejected": {
        "en": "Log in at kimi.com in a private window, copy refresh_token from localStorage, close the window without "
        "logging out, and give the new value to 'kimi-provider accounts add' or as KIMI_TOKEN.",
        "id": "Masuk ke kimi.com di jendela privat, salin refresh_token dari localStorage, tutup jendela tanpa logout, "
        "lalu berikan nilai baru itu kepada 'kimi-provider accounts add' atau sebagai KIMI_TOKEN.",
    },
    "model_not_found": {
        "en": "Run 'kimi-provider models' for the list.",
        "id": "Jalankan 'kimi-provider models' untuk melihat daftarnya.",
    },
    "context_length_exceeded": {
        "en": "Shorten the conversation or start a new one.",
        "id": "Persingkat percakapan atau mulai yang baru.",
    },
    "content_filter": {
        "en": "The service declined this content; change the prompt.",
        "id": "Layanan menolak konten ini; ubah prompt Anda.",
    },
    "membership_required": {
        "en": "Choose a model that the account's plan includes, or upgrade the plan at kimi.com.",
        "id": "Pilih model yang termasuk dalam paket akun, atau tingkatkan paket di kimi.com.",
    },
    "permission_refused": {
        "en": "Check the account at kimi.com; this request is not allowed there.",
        "id": "Periksa akun di kimi.com; permintaan ini tidak diizinkan di sana.",
    },
    "account_muted": {
        "en": "Open kimi.com with this account to see for how long; it rests here until then.",
        "id": "Buka kimi.com dengan akun ini untuk melihat berapa lama; akun diistirahatkan di sini sampai saat itu.",
    },
    "account_suspended": {
        "en": "Open kimi.com with this account and follow what it says; it is not used here until then.",
        "id": "Buka kimi.com dengan akun ini dan ikuti petunjuknya; akun tidak dipakai di sini sampai saat itu.",
    },
    "too_many_streams": {
        "en": "Wait for a running answer to end, or add an account.",
        "id": "Tunggu jawaban yang sedang berjalan selesai, atau tambahkan akun.",
    },
    "quota_exhausted": {
        "en": "Wait for the quota to reset, or add an account.",
        "id": "Tunggu kuota kembali, atau tambahkan akun.",
    },
    "rate_limited": {"en": "Wait and try again.", "id": "Tunggu lalu coba lagi."},
    "overloaded": {
        "en": "Kimi is busy; try again shortly or configure a fallback.",
        "id": "Kimi sedang sibuk; coba lagi sebentar atau atur fallback.",
    },
    "unavailable": {
        "en": "Try again; 'kimi-provider doctor' tells whether the service is reachable.",
        "id": "Coba lagi; 'kimi-provider doctor' memberi tahu apakah layanan terjangkau.",
    },
    "timeout": {
        "en": "Try again, or raise KIMI_TIMEOUT_S / KIMI_IDLE_TIMEOUT_S.",
        "id": "Coba lagi, atau naikkan KIMI_TIMEOUT_S / KIMI_IDLE_TIMEOUT_S.",
    },
    "unusable_answer": {
        "en": "Try again, say in the prompt what is wanted, or use a simpler schema or fewer tools.",
        "id": "Coba lagi, perjelas permintaan dalam prompt, atau pakai skema lebih sederhana atau lebih sedikit alat.",
    },
    "upstream_protocol": {
        "en": "The answer was not usable; try again. If it stays, the service's protocol may have changed: update "
        "kimi-provider or overlay upstream.yaml (KIMI_UPSTREAM_FILE).",
        "id": "Jawaban tidak dapat dipakai; coba lagi. Jika tetap, protokol layanan mungkin berubah: perbarui "
        "kimi-provider atau timpa upstream.yaml (KIMI_UPSTREAM_FILE).",
    },
}

#: What happened, in Indonesian; the sentence with the particulars follows it in English.
HEADLINES_ID: Final[dict[str, str]] = {
    "internal": "Galat internal",
    "invalid_request": "Permintaan tidak sah",
    "context_length_exceeded": "Percakapan terlalu panjang",
    "content_filter": "Kimi menolak isi ini",
    "credential_missing": "Kredensial Kimi belum ada",
    "credential_rejected": "Kimi menolak kredensial",
    "permission_refused": "Tidak diizinkan",
    "membership_required": "Perlu paket Kimi yang lebih tinggi",
    "account_muted": "Akun dibisukan sementara",
    "account_suspended": "Akun ditangguhkan",
    "not_found": "Tidak ditemukan",
    "model_not_found": "Model tidak dikenal",
    "chat_not_found": "Obrolan tidak ditemukan",
    "rate_limited": "Terlalu banyak permintaan",
    "too_many_streams": "Terlalu banyak jawaban sedang berjalan",
    "quota_exhausted": "Kuota habis",
    "upstream_error": "Layanan Kimi gagal",
    "upstream_protocol": "Jawaban layanan tidak dapat dibaca",
    "unusable_answer": "Jawaban model tidak sesuai permintaan",
    "overloaded": "Kimi sedang sibuk",
    "unavailable": "Layanan tidak terjangkau",
    "timeout": "Waktu habis",
}

#: What is wrong with an account, or with all of them (`none_left`): the title of an alert.
TROUBLES: Final[dict[str, dict[Language, str]]] = {
    "ends_in_7_days": {
        "en": "Kimi account {account}: log in again within {left}",
        "id": "Akun Kimi {account}: masuk lagi dalam {left}",
    },
    "ends_in_1_day": {
        "en": "Kimi account {account}: log in again within {left}",
        "id": "Akun Kimi {account}: masuk lagi dalam {left}",
    },
    "failing": {
        "en": "Kimi account {account}: its session can't be renewed now",
        "id": "Akun Kimi {account}: sesinya tidak dapat diperbarui saat ini",
    },
    "ended": {
        "en": "Kimi account {account}: its session is over, log in again",
        "id": "Akun Kimi {account}: sesinya berakhir, masuk lagi",
    },
    "stopped": {
        "en": "Kimi account {account}: stopped by Kimi",
        "id": "Akun Kimi {account}: dihentikan Kimi",
    },
    "none_left": {
        "en": "No Kimi account can answer",
        "id": "Tidak ada akun Kimi yang dapat menjawab",
    },
}

_LOG_IN: Final[dict[Language, str]] = {
    "en": "Its session ends then, and the account answers no more. " + CURES["credential_rejected"]["en"],
    "id": "Saat itu sesinya berakhir dan akun tidak menjawab lagi. " + CURES["credential_rejected"]["id"],
}

#: What to do about it.
TROUBLE_CURES: Final[dict[str, dict[Language, str]]] = {
    "ends_in_7_days": _LOG_IN,
    "ends_in_1_day": _LOG_IN,
    "failing": {
        "en": "It is tried again with each call, and the account answers as long as its last token lives. "
        "'kimi-provider doctor' tells whether the service is reachable.",
        "id": "Dicoba lagi pada setiap panggilan, dan akun tetap menjawab selama token terakhirnya hidup. "
        "'kimi-provider doctor' memberi tahu apakah layanan terjangkau.",
    },
    "ended": CURES["credential_rejected"],
    "stopped": {
        "en": "It is not used any more. Open kimi.com with this account and follow what it says, then: 'kimi-provider "
        "accounts enable {account}'. A new login may help, too.",
        "id": "Akun tidak dipakai lagi. Buka kimi.com dengan akun ini dan ikuti petunjuknya, lalu: 'kimi-provider "
        "accounts enable {account}'. Masuk ulang juga dapat membantu.",
    },
    "none_left": {
        "en": "Calls fail until one can. See why: 'kimi-provider accounts list'. Add another: 'kimi-provider accounts "
        "add'.",
        "id": "Panggilan gagal sampai ada yang dapat. Lihat sebabnya: 'kimi-provider accounts list'. Tambahkan yang "
        "lain: 'kimi-provider accounts add'.",
    },
}

#: That it is over.
RECOVERIES: Final[dict[str, dict[Language, str]]] = {
    "ends_in_7_days": {
        "en": "Kimi account {account}: its session has been renewed",
        "id": "Akun Kimi {account}: sesinya sudah diperbarui",
    },
    "ends_in_1_day": {
        "en": "Kimi account {account}: its session has been renewed",
        "id": "Akun Kimi {account}: sesinya sudah diperbarui",
    },
    "failing": {
        "en": "Kimi account {account}: its session is renewed again",
        "id": "Akun Kimi {account}: sesinya diperbarui lagi",
    },
    "ended": {
        "en": "Kimi account {account}: it has a session again",
        "id": "Akun Kimi {account}: punya sesi lagi",
    },
    "stopped": {
        "en": "Kimi account {account}: in use again",
        "id": "Akun Kimi {account}: dipakai lagi",
    },
    "none_left": {
        "en": "Kimi accounts can answer again",
        "id": "Akun Kimi dapat menjawab lagi",
    },
}

#: The body of a note that something is over, and of a message that only tries the way.
NOTHING_TO_DO: Final[dict[Language, str]] = {"en": "Nothing needs to be done.", "id": "Tidak perlu melakukan apa pun."}
TEST_ALERT: Final[dict[Language, str]] = {
    "en": "Alerts of kimi-provider arrive",
    "id": "Peringatan kimi-provider sampai",
}
