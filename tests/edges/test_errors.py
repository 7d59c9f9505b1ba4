from __future__ import annotations

import re

import pytest

from kimi_provider import errors, wording
from kimi_provider.errors import KimiError


def subclasses(kind: type[KimiError]) -> list[type[KimiError]]:
    return [
        one
        for below in kind.__subclasses__()
        if below.__module__ == errors.__name__
        for one in (below, *subclasses(below))
    ]


ALL: list[type[KimiError]] = [KimiError, *subclasses(KimiError)]

#: Class: parent, status, code, another account could answer, the same one could.
TREE = {
    "BadRequest": ("KimiError", 400, "invalid_request", False, False),
    "ContextTooLong": ("BadRequest", 400, "context_length_exceeded", False, False),
    "ContentFiltered": ("BadRequest", 400, "content_filter", False, False),
    "CredentialError": ("KimiError", 401, "credential_rejected", True, False),
    "CredentialMissing": ("CredentialError", 401, "credential_missing", False, False),
    "PermissionRefused": ("KimiError", 403, "permission_refused", True, False),
    "MembershipRequired": ("PermissionRefused", 403, "membership_required", True, False),
    "AccountMuted": ("PermissionRefused", 403, "account_muted", True, False),
    "AccountSuspended": ("PermissionRefused", 403, "account_suspended", True, False),
    "NotFound": ("KimiError", 404, "not_found", False, False),
    "ModelNotFound": ("NotFound", 404, "model_not_found", False, False),
    "ChatNotFound": ("NotFound", 404, "chat_not_found", False, False),
    "RateLimited": ("KimiError", 429, "rate_limited", True, False),
    "TooManyStreams": ("RateLimited", 429, "too_many_streams", True, False),
    "QuotaExhausted": ("RateLimited", 429, "quota_exhausted", True, False),
    "UpstreamError": ("KimiError", 502, "upstream_error", True, True),
    "ProtocolError": ("UpstreamError", 502, "upstream_protocol", True, True),
    "UnusableAnswer": ("UpstreamError", 502, "unusable_answer", False, False),
    "Overloaded": ("KimiError", 503, "overloaded", True, True),
    "Unavailable": ("KimiError", 503, "unavailable", True, True),
    "UpstreamTimeout": ("KimiError", 504, "timeout", False, False),
}

#: What to do is in the message itself, or nothing can be done.
WITHOUT_CURE = {"internal", "invalid_request", "not_found", "chat_not_found", "upstream_error"}


def test_the_tree() -> None:
    assert {
        kind.__name__: (kind.__mro__[1].__name__, kind.status, kind.code, kind.another_account, kind.try_again)
        for kind in ALL[1:]
    } == TREE


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d{3})", errors.__doc__ or ""))
    assert drawn == {name: str(row[1]) for name, row in TREE.items() if name != "CredentialMissing"}


def test_codes_are_unique_and_name_what_the_service_can_mean() -> None:
    assert len({kind.code for kind in ALL}) == len(ALL)
    assert errors.codes() == {kind.code for kind in ALL} - {"internal", "credential_missing"}


@pytest.mark.parametrize("kind", ALL)
def test_every_error_says_what_to_do_in_both_languages_or_deliberately_nothing(kind: type[KimiError]) -> None:
    error = kind("Something is wrong")
    english, indonesian = error.cure("en"), error.cure("id")
    assert bool(english) == bool(indonesian) == (kind.code not in WITHOUT_CURE)
    assert not english or english != indonesian
    assert all(text.endswith(".") for text in (english, indonesian) if text)


def test_no_cure_without_an_error() -> None:
    assert wording.CURES.keys() == {kind.code for kind in ALL} - WITHOUT_CURE


@pytest.mark.parametrize(
    ("error", "english", "indonesian"),
    [
        (
            errors.RateLimited("Slow down"),
            "Slow down. Wait and try again.",
            "Terlalu banyak permintaan: Slow down. Tunggu lalu coba lagi.",
        ),
        (
            errors.RateLimited("Slow down. "),
            "Slow down. Wait and try again.",
            "Terlalu banyak permintaan: Slow down. Tunggu lalu coba lagi.",
        ),
        (
            errors.RateLimited("Slow down", account="abc"),
            "Slow down (account abc). Wait and try again.",
            "Terlalu banyak permintaan: Slow down (akun abc). Tunggu lalu coba lagi.",
        ),
        (errors.BadRequest("Unknown word."), "Unknown word.", "Permintaan tidak sah: Unknown word."),
        (
            errors.BadRequest("Unknown word", account="abc"),
            "Unknown word (account abc)",
            "Permintaan tidak sah: Unknown word (akun abc)",
        ),
        (errors.BadRequest("No", cure="Say yes."), "No. Say yes.", "Permintaan tidak sah: No. Say yes."),
        (errors.RateLimited("Slow down", cure=""), "Slow down", "Terlalu banyak permintaan: Slow down"),
    ],
)
def test_one_line_for_people(error: KimiError, english: str, indonesian: str) -> None:
    assert (error.describe("en"), error.describe("id")) == (english, indonesian)
    assert str(error) == english


def test_every_code_has_a_headline_in_indonesian() -> None:
    assert wording.HEADLINES_ID.keys() == {kind.code for kind in ALL}


def test_what_is_known_is_kept() -> None:
    error = errors.QuotaExhausted("Empty", account="abc", retry_after_s=3.5)
    assert (error.message, error.account, error.retry_after_s, error.args) == ("Empty", "abc", 3.5, ("Empty",))
    assert KimiError("x").retry_after_s is None
