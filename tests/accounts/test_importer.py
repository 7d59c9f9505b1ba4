from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_provider.accounts import Claims, Credential, parse
from kimi_provider.accounts.account import claims_of, hosts_of
from kimi_provider.accounts.importer import MAX_PASTE_CHARS
from kimi_provider.errors import CredentialMissing
from kimi_provider.settings import Settings

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


@pytest.mark.parametrize(
    "text", ["\n" * 250_000, "," * 250_000, "eyJ" * 80_000, "a" * 250_000, "refresh_token" * 19_000, '["' * 120_000,
             ("a1" * 10 + "\n") * 12_000, "\n[" * 120_000, "eyJa.b." * 30_000, " " * 250_000 + "x", "a-" * 120_000]
)  # fmt: skip
def test_hostile_pastes_cost_no_more_than_their_length(text: str) -> None:
    started = time.perf_counter()
    parsed(text)
    assert time.perf_counter() - started < 3


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
    default = Settings(_env_file=None)  # type: ignore[call-arg]
    assert hosts_of(claims, default, UPSTREAM) == ("https://www.kimi.ai", "https://auth.kimi.ai")
    assert hosts_of(Claims(), default, UPSTREAM) == ("https://www.kimi.com", "https://auth.kimi.com")
    assert hosts_of(claims, settings_for("http://127.0.0.1:1"), UPSTREAM) == ("http://127.0.0.1:1",) * 2


def test_a_credential_is_a_value() -> None:
    assert Credential.of(refresh=R) == Credential.of(refresh=R)
