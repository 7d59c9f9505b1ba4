from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kimi_provider.accounts import Account, Credential, MemoryTokenStore, TokenKeeper, TokenPair
from kimi_provider.errors import (
    AccountSuspended,
    CredentialError,
    KimiError,
    PermissionRefused,
    ProtocolError,
    RateLimited,
    Unavailable,
    UpstreamError,
)
from kimi_provider.settings import Settings
from kimi_provider.web import Session

from .fakes import (
    GATEWAY_PATH,
    LEGACY_PATH,
    SUB,
    UPSTREAM,
    Answer,
    Asked,
    AuthServer,
    access,
    account_of,
    ok,
    refresh,
    refused,
    settings_for,
)

OPAQUE = "cpmt_0123456789abcdefABCDEF"


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer() as server:
        yield server


def keeper_for(server: AuthServer, **more: Any) -> TokenKeeper:
    return TokenKeeper(settings_for(server.url), UPSTREAM, **more)


def session(keeper: TokenKeeper, account: Account, rejected: str | None = None) -> Session:
    return asyncio.run(keeper.session(account, rejected=rejected))


def always(answer: Answer) -> Callable[[Asked], Answer]:
    return lambda asked: answer


class Rotating:
    """The real thing: each call kills the refresh token it was given (protocol A.6)."""

    def __init__(self, first: str) -> None:
        self.valid = first
        self.issued: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, asked: Asked) -> Answer:
        with self.lock:
            if asked.body["refresh_token"] != self.valid:
                return refused()
            self.valid = refresh(jti=len(self.issued))
            self.issued.append(access(jti=len(self.issued)))
            return ok(self.issued[-1], self.valid)


# --- order and shapes ---


def test_form_2_is_first_and_enough(server: AuthServer) -> None:
    old, new = refresh(), access(membership={"level": 10})
    server.gateway = always(ok(new, refresh(jti="2")))
    account = account_of(server.url, refresh=old)
    got = session(keeper_for(server), account)
    assert got == Session(
        access_token=new,
        account=SUB[:8],
        base_url=server.url,
        device_id="7500000000000000001",
        session_id="1700000000000000001",
        traffic_id=SUB,
    )
    assert server.paths == [GATEWAY_PATH]
    asked = server.asked[0]
    assert (asked.method, asked.body) == ("POST", {"refresh_token": old})
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert "authorization" not in headers
    assert headers["x-msh-platform"] == "web"


def test_the_second_spelling_follows_a_400(server: AuthServer) -> None:
    new = access()
    server.gateway = lambda asked: ok(new) if "refreshToken" in asked.body else (400, {}, {"code": "invalid_argument"})
    assert session(keeper_for(server), account_of(server.url, refresh=refresh())).access_token == new
    assert [list(asked.body) for asked in server.asked] == [["refresh_token"], ["refreshToken"]]


@pytest.mark.parametrize(
    "answer",
    [(404, {}, b"nope"), (405, {}, {}), (500, {}, b"<html>"), (503, {}, {"code": "unavailable"}), (200, {}, b"<html>"),
     (302, {"location": "https://elsewhere.test/login?secret=1"}, b""), (501, {}, {"code": "unimplemented"})],
)  # fmt: skip
def test_form_1_steps_in_when_form_2_has_no_answer(server: AuthServer, answer: Answer) -> None:
    old, new = refresh(), access()
    server.gateway, server.legacy = always(answer), always((200, {}, {"access_token": new, "refresh_token": refresh()}))
    assert session(keeper_for(server), account_of(server.url, refresh=old)).access_token == new
    assert server.paths == [GATEWAY_PATH, LEGACY_PATH]
    assert {k.lower(): v for k, v in server.asked[1].headers.items()}["authorization"] == f"Bearer {old}"
    assert server.asked[1].method == "GET"


def test_form_1_steps_in_when_the_gateway_is_unreachable(server: AuthServer) -> None:
    new = access()
    server.legacy = always((200, {}, {"access_token": new}))
    settings = settings_for(server.url, kimi_auth_url="http://127.0.0.1:9")
    account = Account.of(Credential.of(refresh=refresh()), settings, UPSTREAM)
    assert session(TokenKeeper(settings, UPSTREAM), account).access_token == new


def test_opaque_tokens_use_form_1_only(server: AuthServer) -> None:
    new = access()
    server.legacy = always((200, {}, {"access_token": new}))
    assert session(keeper_for(server), account_of(server.url, refresh=OPAQUE)).access_token == new
    assert server.paths == [LEGACY_PATH]


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: {"data": body}])
@pytest.mark.parametrize("field", ["accessToken", "access_token", "token"])
@pytest.mark.parametrize("partner", ["refreshToken", "refresh_token", None])
def test_every_spelling_of_the_answer(
    server: AuthServer, wrap: Callable[[Any], Any], field: str, partner: str | None
) -> None:
    old, new, next_ = refresh(), access(), refresh(jti="next")
    server.gateway = always((200, {}, wrap({field: new} | ({partner: next_} if partner else {}))))
    store = MemoryTokenStore()
    assert session(keeper_for(server, store=store), account_of(server.url, refresh=old)).access_token == new
    saved = asyncio.run(store.load(SUB))
    assert saved is not None
    assert saved.refresh == (next_ if partner else old)


# --- failures ---


def test_a_refused_credential_is_tried_once_by_each_form_and_then_remembered(server: AuthServer) -> None:
    account, keeper = account_of(server.url, refresh=refresh()), keeper_for(server)
    for _ in range(3):
        with pytest.raises(CredentialError) as caught:
            session(keeper, account)
        assert caught.value.account == SUB[:8]
        assert "private window" in caught.value.cure()
        assert "eyJ" not in str(caught.value)
    assert server.paths == [GATEWAY_PATH, LEGACY_PATH]


def test_a_new_credential_revives_the_account(server: AuthServer) -> None:
    first, second = refresh(iat=1_700_000_000), refresh(iat=1_600_000_000)
    account, keeper = account_of(server.url, refresh=first), keeper_for(server)
    with pytest.raises(CredentialError):
        session(keeper, account)
    assert not account.adopt(Credential.of(refresh=first))
    new = access()
    server.gateway = lambda asked: ok(new) if asked.body["refresh_token"] == second else refused()
    assert account.adopt(Credential.of(refresh=second))
    assert session(keeper, account).access_token == new


@pytest.mark.parametrize(
    ("gateway", "legacy", "error", "final"),
    [
        (refused(), (503, {}, b""), CredentialError, True),
        (refused(403), refused(400), CredentialError, True),
        ((404, {}, b""), refused(400), CredentialError, True),
        ((400, {}, b""), refused(), CredentialError, True),
        ((403, {}, {"code": "permission_denied", "message": "account is banned"}), refused(), AccountSuspended, True),
        ((200, {}, {"error_type": "auth.account_abnormal", "message": "x"}), refused(), AccountSuspended, True),
        ((200, {}, {"error_type": "auth.token.invalid", "accessToken": "eyJ"}), refused(), CredentialError, True),
        ((200, {}, {"code": "unauthenticated", "message": "x"}), refused(), CredentialError, True),
        ((503, {}, b""), refused(), Unavailable, False),
        ((500, {}, b""), (500, {}, b""), Unavailable, False),
        ((200, {}, b"<html>"), refused(), ProtocolError, False),
        ((404, {}, b""), (404, {}, b""), UpstreamError, False),
        ((200, {}, {"accessToken": "two words\r\n"}), (404, {}, b""), ProtocolError, False),
    ],
)
def test_what_failures_mean(
    server: AuthServer, gateway: Answer, legacy: Answer, error: type[KimiError], final: bool
) -> None:
    server.gateway, server.legacy = always(gateway), always(legacy)
    account, keeper = account_of(server.url, refresh=refresh()), keeper_for(server)
    with pytest.raises(error) as caught:
        session(keeper, account)
    assert caught.value.account == SUB[:8]
    before = len(server.asked)
    with pytest.raises(error):
        session(keeper, account)
    assert (len(server.asked) == before) is final


def test_a_rate_limit_is_obeyed_not_dodged(server: AuthServer) -> None:
    server.gateway = always((429, {"retry-after": "7"}, {"code": "resource_exhausted"}))
    with pytest.raises(RateLimited) as caught:
        session(keeper_for(server), account_of(server.url, refresh=refresh()))
    assert caught.value.retry_after_s == 7
    assert server.paths == [GATEWAY_PATH]


def test_an_access_token_alone_serves_until_it_expires(server: AuthServer) -> None:
    now = [time.time()]
    alone = access(iat=now[0], life_s=30)
    account, keeper = account_of(server.url, access=alone), keeper_for(server, clock=lambda: now[0])
    assert session(keeper, account).access_token == alone
    now[0] += 29
    assert session(keeper, account).access_token == alone
    now[0] += 2
    for _ in range(2):
        with pytest.raises(CredentialError, match="has expired and has no refresh partner"):
            session(keeper, account)
    assert server.connections == 0


def test_a_refused_access_token_alone_is_the_end(server: AuthServer) -> None:
    alone = access()
    with pytest.raises(CredentialError, match="was refused and has no refresh partner"):
        session(keeper_for(server), account_of(server.url, access=alone), alone)


# --- windows ---


def test_the_pasted_access_token_is_used_first(server: AuthServer) -> None:
    first = access()
    assert session(keeper_for(server), account_of(server.url, refresh=refresh(), access=first)).access_token == first
    assert server.connections == 0


def test_advisory_window_serves_the_old_one_and_renews_behind_it(server: AuthServer) -> None:
    now = [time.time()]
    old, given = access(iat=now[0]), refresh()
    rotating, may_answer = Rotating(given), threading.Event()

    def held(asked: Asked) -> Answer:
        assert may_answer.wait(60)
        return rotating(asked)

    server.gateway = held
    account, keeper = account_of(server.url, refresh=given, access=old), keeper_for(server, clock=lambda: now[0])
    now[0] += 900 - 100
    assert [session(keeper, account).access_token for _ in range(3)] == [old] * 3
    flight = account.tokens.flight
    assert flight is not None
    may_answer.set()
    flight.result(60)
    assert session(keeper, account).access_token == rotating.issued[0]
    assert len(server.asked) == 1


def test_mandatory_window_waits(server: AuthServer) -> None:
    now = [time.time()]
    old, given = access(iat=now[0]), refresh()
    server.gateway = Rotating(given)
    account, keeper = account_of(server.url, refresh=given, access=old), keeper_for(server, clock=lambda: now[0])
    now[0] += 900 - 50
    assert session(keeper, account).access_token == server.gateway.issued[0]


def test_inside_the_windows_a_failing_gateway_leaves_the_old_token_in_use(server: AuthServer) -> None:
    now = [time.time()]
    old = access(iat=now[0])
    server.gateway = server.legacy = always((503, {}, b""))
    account = account_of(server.url, refresh=refresh(), access=old)
    keeper = keeper_for(server, clock=lambda: now[0])
    now[0] += 900 - 50
    assert session(keeper, account).access_token == old
    now[0] += 51
    with pytest.raises(Unavailable):
        session(keeper, account)


def test_a_dead_refresh_token_leaves_the_old_access_token_in_use_until_it_expires(server: AuthServer) -> None:
    now = [time.time()]
    old = access(iat=now[0])
    account = account_of(server.url, refresh=refresh(), access=old)
    keeper = keeper_for(server, clock=lambda: now[0])
    now[0] += 900 - 50
    assert session(keeper, account).access_token == old
    assert session(keeper, account).access_token == old
    assert server.paths == [GATEWAY_PATH, LEGACY_PATH]
    now[0] += 51
    with pytest.raises(CredentialError):
        session(keeper, account)
    assert len(server.asked) == 2


def test_a_background_failure_is_not_repeated_at_every_call(server: AuthServer) -> None:
    now = [time.time()]
    old = access(iat=now[0])
    server.gateway = server.legacy = always((503, {}, b""))
    account = account_of(server.url, refresh=refresh(), access=old)
    keeper = keeper_for(server, clock=lambda: now[0])
    now[0] += 900 - 100
    for _ in range(5):
        assert session(keeper, account).access_token == old
        flight = account.tokens.flight
        if flight is not None:
            flight.result(60)
    assert server.paths == [GATEWAY_PATH, LEGACY_PATH]


def test_short_lived_tokens_are_not_renewed_at_every_call(server: AuthServer) -> None:
    given = refresh()
    rotating = Rotating(given)
    server.gateway = lambda asked: (200, {}, rotating(asked)[2] | {"accessToken": access(life_s=40)})
    account, keeper = account_of(server.url, refresh=given), keeper_for(server)
    first = session(keeper, account)
    assert session(keeper, account) == first
    assert len(server.asked) == 1


@pytest.mark.parametrize("off_s", [-7200, -600, 0, 600, 7200])
def test_a_wrong_clock_neither_storms_nor_serves_dead_tokens(server: AuthServer, off_s: float) -> None:
    now = [1_800_000_000.0]  # the service's
    given = refresh(iat=now[0] - 86400)
    server.gateway = lambda asked: ok(access(iat=now[0], jti=len(server.asked)), refresh(iat=now[0]))
    account = account_of(server.url, refresh=given)
    keeper = keeper_for(server, clock=lambda: now[0] + off_s)
    first = session(keeper, account).access_token
    now[0] += 200
    assert session(keeper, account).access_token == first
    now[0] += 690  # 10 s left
    assert session(keeper, account).access_token != first
    assert len(server.asked) == 2


# --- rejected tokens ---


def test_a_rejected_token_is_renewed_once_for_all_who_saw_it_fail(server: AuthServer) -> None:
    old, given = access(), refresh()
    server.gateway = Rotating(given)
    account, keeper = account_of(server.url, refresh=given, access=old), keeper_for(server)
    first = session(keeper, account, old)
    assert first.access_token == server.gateway.issued[0]
    assert session(keeper, account, old) == first
    assert len(server.asked) == 1
    assert session(keeper, account, first.access_token).access_token == server.gateway.issued[1]


# --- one flight, whoever asks ---


def test_one_refresh_for_twenty_callers_on_three_loops(server: AuthServer) -> None:
    given = refresh()
    server.gateway, server.delay_s = Rotating(given), 0.1
    account, keeper = account_of(server.url, refresh=given), keeper_for(server)
    together = threading.Barrier(3)

    async def callers(count: int) -> list[str]:
        together.wait()
        return [one.access_token for one in await asyncio.gather(*(keeper.session(account) for _ in range(count)))]

    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda count: asyncio.run(callers(count)), (7, 7, 6)))
    assert {token for result in results for token in result} == {server.gateway.issued[0]}
    assert sum(map(len, results)) == 20
    assert (len(server.asked), server.most_busy) == (1, 1)


def test_repeated_asyncio_run_keeps_the_session(server: AuthServer) -> None:
    given = refresh()
    server.gateway = Rotating(given)
    account, keeper = account_of(server.url, refresh=given), keeper_for(server)
    assert len({session(keeper, account).access_token for _ in range(5)}) == 1
    assert len(server.asked) == 1


def test_a_cancelled_caller_loses_no_pair(server: AuthServer) -> None:
    given = refresh()
    server.gateway, server.delay_s = Rotating(given), 0.2
    store = MemoryTokenStore()
    account, keeper = account_of(server.url, refresh=given), keeper_for(server, store=store)

    async def leave_early() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(keeper.session(account), 0.05)

    asyncio.run(leave_early())  # the loop ends too, while the gateway is still at it
    assert session(keeper, account).access_token == server.gateway.issued[0]
    assert len(server.asked) == 1
    saved = asyncio.run(store.load(SUB))
    assert saved is not None
    assert saved.refresh == server.gateway.valid


def test_a_loop_that_dies_without_unwinding_disturbs_nobody(server: AuthServer) -> None:
    given = refresh()
    server.gateway, server.delay_s = Rotating(given), 0.2
    account, keeper = account_of(server.url, refresh=given), keeper_for(server)
    loop = asyncio.new_event_loop()
    caller = keeper.session(account)
    task = loop.create_task(caller)
    loop.run_until_complete(asyncio.sleep(0.05))
    task.cancel()  # only so that asyncio has nothing to complain of; the waiting future stays behind
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert session(keeper, account).access_token == server.gateway.issued[0]


# --- the store ---


class Journal(MemoryTokenStore):
    """Notes when a pair was saved, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.saves: list[TokenPair] = []
        self.failing = False

    async def save(self, account_id: str, pair: TokenPair) -> None:
        if self.failing:
            raise OSError("disk full")
        self.saves.append(pair)
        await super().save(account_id, pair)


def test_a_pair_is_saved_before_it_is_used_and_kept_while_saving_fails(server: AuthServer) -> None:
    given = refresh()
    server.gateway = Rotating(given)
    store = Journal()
    store.failing = True
    account, keeper = account_of(server.url, refresh=given), keeper_for(server, store=store)
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            session(keeper, account)
    store.failing = False
    assert session(keeper, account).access_token == server.gateway.issued[0]
    assert [pair.refresh for pair in store.saves] == [server.gateway.valid]
    assert len(server.asked) == 1


def test_an_unsaved_pair_is_not_served_even_when_its_access_token_is_good(server: AuthServer) -> None:
    class Down(MemoryTokenStore):
        async def save(self, account_id: str, pair: TokenPair) -> None:
            raise Unavailable("the account store can't be reached")

    given = refresh()
    server.gateway = Rotating(given)
    account, keeper = account_of(server.url, refresh=given), keeper_for(server, store=Down())
    for _ in range(2):
        with pytest.raises(Unavailable, match="account store"):
            session(keeper, account)
    assert len(server.asked) == 1


def test_the_first_text_of_a_dead_account_does_not_revive_it(server: AuthServer) -> None:
    given = refresh()
    rotating = Rotating(given)
    server.gateway = rotating
    account, keeper = account_of(server.url, refresh=given), keeper_for(server)
    token = session(keeper, account).access_token
    rotating.valid = "taken over elsewhere"
    with pytest.raises(CredentialError):
        session(keeper, account, token)
    assert not account.adopt(Credential.of(refresh=given))
    assert account.dead is not None


def test_after_a_restart_the_rotated_pair_is_used(server: AuthServer) -> None:
    given = refresh(iat=1_700_000_000)
    server.gateway, store = Rotating(given), MemoryTokenStore()
    first = session(keeper_for(server, store=store), account_of(server.url, refresh=given))
    second = session(keeper_for(server, store=store), account_of(server.url, refresh=given))
    assert second == first
    assert len(server.asked) == 1


def test_after_a_restart_a_later_login_beats_the_stored_pair(server: AuthServer) -> None:
    later, store = refresh(iat=time.time() + 1), MemoryTokenStore()
    asyncio.run(store.save(SUB, TokenPair(refresh=refresh(iat=1_700_000_000), access=None)))
    server.gateway = Rotating(later)
    assert session(keeper_for(server, store=store), account_of(server.url, refresh=later))


# --- demo guard ---


def test_demo_mode_sends_no_byte_of_a_real_credential(server: AuthServer) -> None:
    settings = settings_for(server.url, kimi_demo=True)
    account = account_of(server.url, refresh=refresh(), access=access())
    with pytest.raises(PermissionRefused, match="demo mode") as caught:
        session(TokenKeeper(settings, UPSTREAM), account)
    assert "KIMI_TOKEN=... kimi-provider serve" in caught.value.cure()
    assert server.connections == 0


def test_demo_mode_serves_simulated_credentials(server: AuthServer) -> None:
    given = refresh(simulator=True)
    server.gateway = Rotating(given)
    keeper = TokenKeeper(settings_for(server.url, kimi_demo=True), UPSTREAM)
    assert session(keeper, account_of(server.url, refresh=given)).access_token == server.gateway.issued[0]


@pytest.mark.parametrize("aud", [[], ["kimi.ai"]])
@pytest.mark.parametrize("mine", [(), ("kimi_base_url",), ("kimi_auth_url",)])
@pytest.mark.parametrize("demo", [False, True])
def test_a_simulated_credential_never_meets_the_service(
    server: AuthServer, aud: list[str], mine: tuple[str, ...], demo: bool
) -> None:
    settings = Settings.without_file(kimi_state_url="sqlite://", kimi_demo=demo, **dict.fromkeys(mine, server.url))
    account = Account.of(Credential.of(refresh=refresh(simulator=True, aud=aud)), settings, UPSTREAM)
    with pytest.raises(PermissionRefused, match="simulator"):
        session(TokenKeeper(settings, UPSTREAM), account)
    assert server.connections == 0
    assert account.tokens.flight is None
