"""Everything that can go wrong, said once.

    KimiError
    ├── BadRequest                400  the caller must change the request
    │   ├── ContextTooLong        400
    │   └── ContentFiltered       400  the service withdrew or refused the answer
    ├── CredentialError           401  no credential, expired, revoked: the owner must log in again
    ├── PermissionRefused         403
    │   ├── MembershipRequired    403  the account's plan does not include this
    │   ├── AccountMuted          403  the account may not chat for a while
    │   └── AccountSuspended      403
    ├── NotFound                  404
    │   ├── ModelNotFound         404
    │   └── ChatNotFound          404
    ├── RateLimited               429
    │   ├── TooManyStreams        429  other answers of the account are still running
    │   └── QuotaExhausted        429
    ├── UpstreamError             502  the service answered something that is no answer
    │   ├── ProtocolError         502  its bytes do not follow the protocol, or stop in the middle
    │   └── UnusableAnswer        502  the model wrote something else than was asked for: no JSON, no call
    ├── Overloaded                503  the service is busy
    ├── Unavailable               503  the service can't be reached or says try again
    └── UpstreamTimeout           504

Each error says whose fault it is and what to do next. Its text is safe to show: no credential, no upstream text
beyond the service's own short message, no address with a query.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import ClassVar

from .wording import CURES, HEADLINES_ID, Language


class KimiError(Exception):
    """Base of every error raised on purpose.

    Shape: `status` (HTTP, int), `code` (stable, snake case), `message` (one clear sentence, safe), `cure` (what to do
    next, per language), `account` (short id, never a credential), `retry_after_s` (seconds or None).
    `another_account` tells the engine whether a different account could answer, `try_again` whether the same one
    could, in both cases only while nothing was emitted.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    another_account: ClassVar[bool] = False
    try_again: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        account: str | None = None,
        retry_after_s: float | None = None,
        cure: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.account = account
        self.retry_after_s = retry_after_s
        self._cure = cure

    def cure(self, language: Language = "en") -> str:
        """What the reader should do next; may be empty."""
        if self._cure is not None:
            return self._cure
        return CURES.get(self.code, {}).get(language, "")

    def describe(self, language: Language = "en") -> str:
        """Message, account and cure in one line, as callers see it."""
        who = f" ({'akun' if language == 'id' else 'account'} {self.account})" if self.account else ""
        cure = self.cure(language)
        message = self.message.rstrip(". ") if cure else self.message
        if language == "id" and (headline := HEADLINES_ID.get(self.code)):
            message = f"{headline}: {message}"
        return f"{message}{who}. {cure}" if cure else f"{message}{who}"

    def __str__(self) -> str:
        return self.describe()


class BadRequest(KimiError):
    """The caller must change the request."""

    status = 400
    code = "invalid_request"


class ContextTooLong(BadRequest):
    """The conversation does not fit the model's window."""

    code = "context_length_exceeded"


class ContentFiltered(BadRequest):
    """The service withdrew or refused the answer; never the account's fault."""

    code = "content_filter"


class CredentialError(KimiError):
    """The credential was refused or has expired."""

    status = 401
    code = "credential_rejected"
    another_account = True


class CredentialMissing(CredentialError):
    """No credential was given at all."""

    code = "credential_missing"
    another_account = False


class PermissionRefused(KimiError):
    """The account may not do this."""

    status = 403
    code = "permission_refused"
    another_account = True


class MembershipRequired(PermissionRefused):
    """The account's plan does not include the model or feature (paywall)."""

    code = "membership_required"


class AccountMuted(PermissionRefused):
    """The service lets the account not chat for a while."""

    code = "account_muted"


class AccountSuspended(PermissionRefused):
    """The service has flagged or banned the account."""

    code = "account_suspended"


class NotFound(KimiError):
    """What the request names does not exist."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model name."""

    code = "model_not_found"


class ChatNotFound(NotFound):
    """The chat or message is gone, or belongs to another account."""

    code = "chat_not_found"


class RateLimited(KimiError):
    """The service asks to slow down."""

    status = 429
    code = "rate_limited"
    another_account = True


class TooManyStreams(RateLimited):
    """Other answers of the account are still running."""

    code = "too_many_streams"


class QuotaExhausted(RateLimited):
    """The account's quota window is used up."""

    code = "quota_exhausted"


class UpstreamError(KimiError):
    """The service failed on its side."""

    status = 502
    code = "upstream_error"
    another_account = True
    try_again = True


class ProtocolError(UpstreamError):
    """The service's bytes do not follow the protocol, or stop in the middle."""

    code = "upstream_protocol"


class UnusableAnswer(UpstreamError):
    """The model wrote something else than was asked for, twice: no valid JSON, no call of a tool."""

    code = "unusable_answer"
    another_account = False
    try_again = False


class Overloaded(KimiError):
    """The service is busy for everyone, or for the account's plan."""

    status = 503
    code = "overloaded"
    another_account = True
    try_again = True


class Unavailable(KimiError):
    """The service can't be reached, or says it is down for a moment."""

    status = 503
    code = "unavailable"
    another_account = True
    try_again = True


class UpstreamTimeout(KimiError):
    """The service stayed silent for too long, or the call's time is up."""

    status = 504
    code = "timeout"


def again(error: KimiError) -> KimiError:
    """A copy to raise: one instance in several threads would mix their tracebacks."""
    return copy.copy(error)


def codes() -> frozenset[str]:
    """Codes of everything that can go wrong at the service, the right side of `errors` in upstream.yaml."""
    return frozenset(_by_code()) - {CredentialMissing.code, KimiError.code}


def of_code(code: str) -> type[KimiError]:
    """The class with this stable code; KimiError itself for one that is unknown (kept by a later version)."""
    return _by_code().get(code, KimiError)


@cache
def _by_code() -> dict[str, type[KimiError]]:
    found: dict[str, type[KimiError]] = {}
    left: list[type[KimiError]] = [KimiError]
    while left:
        error = left.pop()
        found.setdefault(error.code, error)
        left += error.__subclasses__()
    return found
