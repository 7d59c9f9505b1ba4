from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.accounts import Claims, Credential, parse
from kimi_provider.accounts.account import hosts_of
from kimi_provider.accounts.capture import MAX_FILE_BYTES, capture_hosts, read
from kimi_provider.accounts.credential import claims_of
from kimi_provider.accounts.importer import MAX_PASTE_CHARS
from kimi_provider.accounts.understanding import Understood, duration
from kimi_provider.errors import BadRequest, CredentialMissing
from kimi_provider.settings import Settings
from tests.costs import linear

from .fakes import SUB, UPSTREAM, access, b64, jwt, refresh, settings_for

R, A = refresh(iat=1_800_000_000), access(iat=1_800_000_000)
R2, A2 = refresh("cuser000000000000002", iat=1_800_000_000), access("cuser000000000000002", iat=1_800_000_000)
FOREIGN = jwt(sub="visitor-1", aud="analytics", iat=1, exp=2)
OPAQUE = "cpmt_0123456789abcdefABCDEF"
JOINED = "a1b2c3d4e5.f6g7h8i9j0.k1l2m3n4o5"

BASH = f"""curl 'https://www.kimi.com/apiv2/kimi.gateway.chat.v1.ChatService/Chat' \\
  -H 'accept: */*' \\
  -H 'authorization: Bearer {A}' \\
  -H $'x-note: it\\'s' \\
  -b '_ga=GA1.1.1234567890abcdef; site_token={FOREIGN}; session=0123456789abcdef0123; theme=dark' \\
  --data-raw $'\\x00{{"scenario":"SCENARIO_CHAT"}}'"""
BASH_COOKIE = f"""curl 'https://www.kimi.com/' -H 'cookie: a=b; kimi-auth={A}; c=d' --compressed"""
BASH_B = f"""curl 'https://www.kimi.com/' -b 'a=b; kimi-auth={A}' --compressed"""
CMD = f"""curl ^"https://www.kimi.com/api/user^" ^
  -H ^"accept: */*^" ^
  -H ^"authorization: Bearer {A}^" ^
  -b ^"_ga=GA1.1.1234567890abcdef^; kimi-auth={A}^; x=%^7B1%^7D^" ^
  --data-raw ^"^{{^\\^"a^\\^":1^}}^" """
POWERSHELL = f"""$session = New-Object Microsoft.PowerShell.Commands.WebRequestSession
$session.Cookies.Add((New-Object System.Net.Cookie("kimi-auth", "{A}", "/", "www.kimi.com")))
Invoke-WebRequest -UseBasicParsing -Uri "https://www.kimi.com/api/user" `
-WebSession $session `
-Headers @{{
"authority"="www.kimi.com"
  "authorization"="Bearer {A}"
  "x-traffic-id"="cuser000000000000001"
}}"""
POWERSHELL_CURL = f"""curl.exe `"https://www.kimi.com/`" `
  -H `"authorization: Bearer {A}`" `
  -b `"kimi-auth={A}`" """
CURL_OPAQUE = f"curl 'https://www.kimi.com/api/auth/token/refresh' -H 'Authorization: Bearer {OPAQUE}'"
FETCH = f'fetch("https://www.kimi.com/api/user", {{"headers": {{"authorization": "Bearer {A}"}}}});'
DUMP = {"theme": "dark", "access_token": A, "refresh_token": R, "volcano-token-info": '{"webId":"75","token":"x1"}'}

# What is pasted -> (refresh, access) of each account, in order.
FORMS: dict[str, tuple[str, list[tuple[str | None, str | None]]]] = {
    "bare refresh": (R, [(R, None)]),
    "bare access": (A, [(None, A)]),
    "blanks": (f"\n  {R}\t\r\n", [(R, None)]),
    "invisible signs": (f"\ufeff{R}\u200b", [(R, None)]),
    "bearer": (f"Bearer {R}", [(R, None)]),
    "bearer lower case": (f"bearer   {R}", [(R, None)]),
    "authorization": (f"Authorization: Bearer {A}", [(None, A)]),
    "authorization, no space": (f"authorization:Bearer {A}", [(None, A)]),
    "cookie alone": (f"kimi-auth={A}", [(None, A)]),
    "cookie first": (f"kimi-auth={A}; other=1", [(None, A)]),
    "cookie in the middle": (f"Cookie: a=b; kimi-auth={A}; c=d", [(None, A)]),
    "cookie last, foreign jwt first": (f"t={FOREIGN}; kimi-auth={A}", [(None, A)]),
    "double quotes": (f'"{R}"', [(R, None)]),
    "single quotes": (f"'{R}'", [(R, None)]),
    "url-encoded": (f"kimi-auth%3D{A}%3B%20b=1", [(None, A)]),
    "array, old": (json.dumps(JOINED.split(".")), [(JOINED, None)]),
    "array, short pieces": ('["x","y"]', [("x.y", None)]),
    "array of a jwt in pieces": (json.dumps(R.split(".")), [(R, None)]),
    "array of jwts": (json.dumps([R, R2]), [(R, None), (R2, None)]),
    "array that only looks like a jwt": ('["eyJhbGci","abc","def"]', [("eyJhbGci.abc.def", None)]),
    "dump": (json.dumps(DUMP), [(R, A)]),
    "dump, pretty": (json.dumps(DUMP, indent=2), [(R, A)]),
    "dump, camel case": (json.dumps({"refreshToken": R, "accessToken": A}), [(R, A)]),
    "dump, kimi-refresh-token": (json.dumps({"kimi-refresh-token": OPAQUE}), [(OPAQUE, None)]),
    "dump, kimi-auth": (json.dumps({"kimi-auth": A}), [(None, A)]),
    "dump, token": (json.dumps({"token": R}), [(R, None)]),
    "dump, opaque token": (json.dumps({"token": JOINED}), [(JOINED, None)]),
    "dump, nested value": (
        json.dumps({"refresh_token": {"value": OPAQUE}, "access_token": {"value": A}}),
        [(OPAQUE, A)],
    ),
    "dump, JSON in a string": (json.dumps({"auth": json.dumps({"refresh_token": R})}), [(R, None)]),
    "dump, quoted twice": (json.dumps({"refresh_token": json.dumps(R)}), [(R, None)]),
    "dump, array": (json.dumps({"refresh_token": JOINED.split(".")}), [(JOINED, None)]),
    "dump, opaque and access": (json.dumps({"refresh_token": JOINED, "access_token": A}), [(JOINED, A)]),
    "cookie export": (json.dumps([{"name": "a", "value": "1"}, {"name": "kimi-auth", "value": A}]), [(None, A)]),
    "storage rows": (json.dumps([{"key": "refresh_token", "value": OPAQUE}]), [(OPAQUE, None)]),
    "login answer": (json.dumps({"data": {"accessToken": A, "refreshToken": R, "userId": SUB}}), [(R, A)]),
    "headers as JSON": (json.dumps({"authorization": f"Bearer {A}", "cookie": f"x={FOREIGN}; b=1"}), [(None, A)]),
    "devtools table": (f"access_token\t{A}\nrefresh_token\t{R}\n", [(R, A)]),
    "commas": (f"{R},{R2}", [(R, None), (R2, None)]),
    "commas after bearer": (f"Bearer {R},{OPAQUE},{R2}", [(R, None), (R2, None), (OPAQUE, None)]),
    "lines, mixed": (
        f'Bearer {R}\nkimi-auth={A2}; x=1\n{OPAQUE}\n["p1","q2"]\n{{"refresh_token":"{JOINED}"}}',
        [(R, None), (None, A2), ("p1.q2", None), (JOINED, None), (OPAQUE, None)],
    ),
    "partners in two lines": (f"{A}\n{R}", [(R, A)]),
    "duplicates": (f"{R}\nBearer {R}, {R}", [(R, None)]),
    "opaque": (OPAQUE, [(OPAQUE, None)]),
    "opaque, bearer": (f"Authorization: Bearer {OPAQUE}", [(OPAQUE, None)]),
    "opaque, named": (f"refresh_token={OPAQUE}", [(OPAQUE, None)]),
    "opaque, joined": (JOINED, [(JOINED, None)]),
    "opaque, quoted": (f'"{JOINED}"', [(JOINED, None)]),
    "curl bash -H": (BASH, [(None, A)]),
    "curl bash cookie header": (BASH_COOKIE, [(None, A)]),
    "curl bash -b": (BASH_B, [(None, A)]),
    "curl cmd": (CMD, [(None, A)]),
    "curl cmd, CRLF": (CMD.replace("\n", "\r\n"), [(None, A)]),
    "powershell": (POWERSHELL, [(None, A)]),
    "curl in powershell": (POWERSHELL_CURL, [(None, A)]),
    "curl with an opaque token": (CURL_OPAQUE, [(OPAQUE, None)]),
    "fetch": (FETCH, [(None, A)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_pasted_form_is_understood(form: str) -> None:
    text, wanted = FORMS[form]
    assert [(c.refresh, c.access) for c in parse(text)] == wanted
    assert [(c.refresh, c.access) for c in read(text.encode(), HOSTS)] == wanted, "a file may hold what a paste may"


# --- recordings of the browser's traffic ---

HOSTS = capture_hosts(Settings.without_file(), UPSTREAM)
SITE = "https://www.kimi.com/apiv2/kimi.gateway.account.v1.UserService/GetCurrentUser"


def entry(url: str = SITE, *, sent: Any = None, got: Any = None, cookies: Any = (), **headers: str) -> dict[str, Any]:
    """One request of a recording, as browsers write it."""
    rows = [{"name": name.replace("_", "-"), "value": value} for name, value in headers.items()]
    request = {"method": "POST", "url": url, "headers": rows, "cookies": cookies, "bodySize": -1}
    if sent is not None:
        request["postData"] = {"mimeType": "application/json", "text": json.dumps(sent)}
    content = {"size": 1, "mimeType": "application/json"} | ({} if got is None else {"text": json.dumps(got)})
    return {"startedDateTime": "2026-01-31T08:00:00.000Z", "request": request, "response": {"content": content}}


def har(*entries: Any) -> bytes:
    log = {"version": "1.2", "creator": {"name": "WebInspector", "version": "1"}, "pages": [], "entries": [*entries]}
    return json.dumps({"log": log}, indent=2).encode()


LOGIN = {"data": {"accessToken": A, "refreshToken": R}}
IN_BASE64 = entry()
IN_BASE64["response"]["content"] |= {
    "text": base64.b64encode(json.dumps(LOGIN).encode()).decode(),
    "encoding": "base64",
}
NOISE = [
    entry(f"https://cdn.example/{n}.js", got={"pad": "x" * 900}, authorization=f"Bearer {A2}") for n in range(6000)
]

RECORDINGS: dict[str, tuple[bytes, list[tuple[str | None, str | None]]]] = {
    "har, authorization": (har(entry(authorization=f"Bearer {A}")), [(None, A)]),
    "har, cookie header": (har(entry(cookie=f"a=b; kimi-auth={A}; s={FOREIGN}")), [(None, A)]),
    "har, parsed cookies": (har(entry(cookies=[{"name": "kimi-auth", "value": A}])), [(None, A)]),
    "har, login answer": (har(entry(got=LOGIN)), [(R, A)]),
    "har, login answer in base64": (har(IN_BASE64), [(R, A)]),
    "har, refresh asked": (har(entry(sent={"refresh_token": R}), entry(authorization=f"Bearer {A}")), [(R, A)]),
    "har, international": (har(entry("https://auth.kimi.ai/api", sent={"refreshToken": R})), [(R, None)]),
    "har, two users": (har(entry(got=LOGIN), entry(authorization=f"Bearer {A2}")), [(R, A), (None, A2)]),
    "har, byte order mark": (b"\xef\xbb\xbf" + har(entry(got=LOGIN)), [(R, A)]),
    "har, other sites beside": (
        har(entry("https://evil.example/", got={"refresh_token": R2}), entry(got=LOGIN)),
        [(R, A)],
    ),
    "har, of many megabytes": (har(*NOISE, entry(got=LOGIN)), [(R, A)]),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recording_is_understood(name: str) -> None:
    content, wanted = RECORDINGS[name]
    assert [(c.refresh, c.access) for c in read(content, HOSTS)] == wanted


def test_recordings_are_not_bound_by_the_limit_of_pastes() -> None:
    assert len(RECORDINGS["har, of many megabytes"][0]) > 20 * MAX_PASTE_CHARS


# What is hostile or useless -> a word of the answer.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "other sites only": (har(entry("https://evil.example/", authorization=f"Bearer {A}")), "none of them to Kimi"),
    "a host that looks alike": (har(entry("https://www.kimi.com.evil.example/", got=LOGIN)), "none of them to Kimi"),
    "a host that ends alike": (har(entry("https://notkimi.com/", got=LOGIN)), "none of them to Kimi"),
    "the service as user of another host": (
        har(entry("https://www.kimi.com@evil.example/", got=LOGIN)),
        "none of them",
    ),
    "an address that is none": (har(entry("https://[kimi.com/", got=LOGIN)), "none of them to Kimi"),
    "a recording without secrets": (har(entry(), entry(x_language="en")), "with sensitive data"),
    "a token that someone wrote in a chat": (
        har(entry(got={"message": {"content": FOREIGN}})),
        "no credential in them",
    ),
    "entries that are no entries": (har(1, None, [], {"request": []}, {"request": {"url": 5}}), "none of them"),
    "headers that are no headers": (
        har(entry() | {"response": {"headers": {"a": R}, "cookies": [1]}}),
        "no credential",
    ),
    "a body that is no base64": (har(json.loads(json.dumps(IN_BASE64).replace('"text": "', '"text": "!!'))), "no cred"),
    "cut off": (har(entry(got={"a": 1}))[:-40], "No Kimi credential"),
    "too deep": (b'{"log":{"entries":' + b"[" * 200_000, "No Kimi credential"),
    "no text at all": (bytes(range(256)) * 40 + b'"log"', "No Kimi credential"),
    "a foreign token": (f"analytics={FOREIGN}".encode(), "No Kimi credential"),
    "an API key": (b"sk-kimi-0123456789abcdef", "moonshot/"),
    "a cut-off token": (R[:60].encode(), "No Kimi credential"),
    "long and no recording": (b"a1 " * MAX_PASTE_CHARS, "longer than"),
    "nothing": (b"", "No Kimi credential"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_useless_is_refused_in_one_sentence(name: str) -> None:
    content, word = HOSTILE[name]
    with pytest.raises(CredentialMissing, match=re.escape(word)) as caught:
        read(content, HOSTS)
    for secret in (R, A, A2, FOREIGN, "0123456789abcdef", "evil"):
        assert secret not in str(caught.value)


def test_a_file_without_end_is_not_read() -> None:
    with pytest.raises(BadRequest, match="larger than 64 MB"):
        read(bytes(MAX_FILE_BYTES + 1), HOSTS)


def test_enough_forms_are_known() -> None:
    assert len(FORMS) + len(RECORDINGS) >= 60
    assert len(HOSTILE) >= 15


def test_an_address_of_the_owner_counts_as_the_service() -> None:
    hosts = capture_hosts(settings_for("http://127.0.0.1:4100"), UPSTREAM)
    content = har(entry("http://127.0.0.1:4100/api/user", authorization=f"Bearer {A}"))
    assert [c.access for c in read(content, hosts)] == [A]
    with pytest.raises(CredentialMissing):
        read(content, HOSTS)


# --- what is said of a credential ---

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (A, ("access", None, "dies in 15 min and has no refresh partner",
             "mati dalam 15 mnt dan tanpa pasangan refresh")),
        (R, ("refresh", None, "", "")),
        (f"{R}, {A}", ("refresh", None, "", "")),
        (OPAQUE, ("opaque", None, "an old kind of token: opens the older protocol only",
                  "jenis token lama: hanya membuka protokol lama")),
        (refresh(iat=NOW, membership={"level": 20}), ("refresh", "Moderato", "", "")),
        (refresh(iat=NOW, membership={"level": 10}), ("refresh", "Free", "", "")),
        (refresh(iat=NOW, membership={"level": 77}), ("refresh", "level 77", "", "")),
        (access(iat=NOW - 1000, membership={"level": 25}),
         ("access", "Allegretto", "has expired: log in again", "sudah kedaluwarsa: masuk lagi")),
        (refresh(iat=NOW, life_s=-1), ("refresh", None, "has expired: log in again", "sudah kedaluwarsa: masuk lagi")),
        (jwt(sub="u", typ="access"), ("access", None, "has no refresh partner", "tanpa pasangan refresh")),
    ],
)  # fmt: skip
def test_the_answer_says_what_was_understood(text: str, said: tuple[object, ...]) -> None:
    (credential,) = parse(text)
    found = Understood.of(credential, UPSTREAM)
    assert (found.kind, found.plan, found.missing(NOW), found.missing(NOW, "id")) == said
    for token in filter(None, (credential.refresh, credential.access)):
        assert token.rpartition(".")[2] not in repr(found)


def test_region_and_end_of_the_session_are_said() -> None:
    (credential,) = parse(f"{refresh(iat=NOW, region='overseas')}, {access(iat=NOW)}")
    found = Understood.of(credential, UPSTREAM)
    assert (found.region, found.expires_at, found.renewable) == ("overseas", NOW + 7_776_000, True)


@pytest.mark.parametrize(
    ("seconds", "en", "id_"),
    [(-5, "0 s", "0 dtk"), (99, "99 s", "99 dtk"), (900, "15 min", "15 mnt"), (7200, "2 h", "2 jam"),
     (90 * 86_400, "90 d", "90 hr")],
)  # fmt: skip
def test_durations_are_short(seconds: float, en: str, id_: str) -> None:
    assert (duration(seconds), duration(seconds, "id")) == (en, id_)


# --- what is refused ---


@pytest.mark.parametrize(
    "text",
    ["", "   ", "hello world", "KIMI_TOKEN", "your-refresh-token-here", "os.environ/KIMI_TOKEN", "https://www.kimi.com/?a=1",
     R[:60], R.rsplit(".", 1)[0], "eyJ.eyJ.eyJ", "{}", "[]", "null", '{"refresh_token":null}', '{"refresh_token":""}',
     "[[[[", "[" * 100_000, '{"a":' * 5000, "curl", "curl -H 'authorization: Basic abc123def456ghi789'", f"a={FOREIGN}",
     "x" * (MAX_PASTE_CHARS + 1), "\x00", "\ud800", "1" * 5000, "[" + "9" * 5000 + "]"],
)  # fmt: skip
def test_nothing_usable_is_said_without_repeating_it(text: str) -> None:
    with pytest.raises(CredentialMissing) as caught:
        parse(text)
    assert len(text.strip()) < 8 or text.strip()[:40] not in str(caught.value) or text == "KIMI_TOKEN"


def test_an_official_api_key_gets_its_own_answer() -> None:
    with pytest.raises(CredentialMissing, match="moonshot/") as caught:
        parse("sk-kimi-0123456789abcdef")
    assert "0123456789abcdef" not in str(caught.value)


def parsed(text: str) -> tuple[list[Credential], str]:
    """Credentials, or what was said instead."""
    try:
        return parse(text), ""
    except CredentialMissing as exc:
        return [], str(exc)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=400))
def test_arbitrary_text_never_crashes_and_is_never_repeated(text: str) -> None:
    canary = "Kanarienvogel7"
    found, said = parsed(f"{text} {canary}")
    assert canary not in f"{found!r} {said}"


_WORDS = st.sampled_from(
    [
        R,
        A,
        OPAQUE,
        JOINED,
        "Bearer ",
        "kimi-auth=",
        "refresh_token",
        "curl ",
        "eyJ",
        "-H ",
        "value",
        *"\"'{}[]:,\n;^\\%.= \t\x00",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_WORDS, max_size=30).map("".join))
def test_broken_pastes_never_crash_and_yield_header_safe_tokens(text: str) -> None:
    found, said = parsed(text)
    assert SUB not in said
    for credential in found:
        for token in (credential.refresh, credential.access):
            assert token is None or (token.isascii() and token.isprintable() and " " not in token)
    assert len({c.account_id for c in found}) == len(found)


@linear
@pytest.mark.parametrize(
    "text", ["\n" * 250_000, "," * 250_000, "eyJ" * 80_000, "a" * 250_000, "refresh_token" * 19_000, '["' * 120_000,
             ("a1" * 10 + "\n") * 12_000, "\n[" * 120_000, "eyJa.b." * 30_000, " " * 250_000 + "x", "a-" * 120_000]
)  # fmt: skip
def test_hostile_pastes_cost_no_more_than_their_length(text: str) -> None:
    parsed(text)


def test_the_newest_of_one_user_wins_whatever_the_order() -> None:
    old, new = refresh(iat=1_700_000_000), refresh(iat=1_800_000_000)
    for text in (f"{old},{new}", f"{new},{old}"):
        assert [c.refresh for c in parse(text)] == [new]


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        ({"typ": "refresh", "iat": 0, "exp": 900}, "refresh"),
        ({"typ": "access", "iat": 0, "exp": 90 * 86400}, "access"),
        ({"iat": 0, "exp": 90 * 86400}, "refresh"),
        ({"iat": 0, "exp": 30 * 86400}, "access"),
        ({"iat": 0}, "access"),
        ({}, "access"),
    ],
)
def test_typ_decides_and_else_the_life(claims: dict[str, object], kind: str) -> None:
    assert parse(jwt(sub="u", **claims))[0].kind == kind


def test_ids_and_claims() -> None:
    (one,) = parse(refresh(aud=["kimi.ai"], region="overseas", membership={"level": 20}, simulator=True))
    assert (one.account_id, one.short_id, one.kind, one.simulated) == (SUB, SUB[:8], "refresh", True)
    assert one.claims.device_id == "7500000000000000001"
    assert (one.claims.aud, one.claims.region, one.claims.membership_level) == (("kimi.ai",), "overseas", 20)
    (opaque,) = parse(OPAQUE)
    assert (opaque.kind, opaque.simulated, opaque.claims) == ("opaque", False, Claims())
    assert OPAQUE[5:] not in opaque.account_id + opaque.short_id
    assert "eyJ" not in repr(one)
    assert OPAQUE not in repr(opaque)


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "é", "", "x" * 200, 1.5, True, None, {}])
def test_claims_that_could_break_a_header_are_dropped(value: object) -> None:
    claims = claims_of(jwt(device_id=value, sub=value))
    assert claims is not None
    assert (claims.device_id, claims.sub) == (None, None)


def test_numbers_as_ids_become_their_digits() -> None:
    claims = claims_of(jwt(device_id=7500000000000000001))
    assert claims is not None
    assert claims.device_id == "7500000000000000001"


@pytest.mark.parametrize("payload", [b"[]", b"1", b"nope", b"\xff", b""])
def test_a_payload_that_is_no_object_is_no_jwt(payload: bytes) -> None:
    assert claims_of(f"{b64(b'{}')}.{b64(payload)}.x") is None
    assert claims_of(f"eyJ.{base64.b64encode(payload).decode()}.x") is None


def test_hosts_follow_the_audience_only_while_they_are_the_defaults() -> None:
    claims = Claims(aud=("kimi.ai",))
    default = Settings.without_file()
    assert hosts_of(claims, default, UPSTREAM) == ("https://www.kimi.ai", "https://auth.kimi.ai")
    assert hosts_of(Claims(), default, UPSTREAM) == ("https://www.kimi.com", "https://auth.kimi.com")
    assert hosts_of(claims, settings_for("http://127.0.0.1:1"), UPSTREAM) == ("http://127.0.0.1:1",) * 2


def test_a_credential_is_a_value() -> None:
    assert Credential.of(refresh=R) == Credential.of(refresh=R)
