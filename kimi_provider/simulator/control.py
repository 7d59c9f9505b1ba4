"""Everything under `/_sim`: what the real service doesn't have. Looking at the state, logging in, choosing scenarios.

JSON in and out; a body that doesn't fit is answered with 400 and a sentence. Nothing here counts as a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .chats import COMPLETED
from .recording import CONTROL_PREFIX
from .refusals import UNARY_TYPE, Refusal
from .rest.scenario import check_anywhere, describe_all
from .state import QueuedScenario, Simulator
from .tokens import LEVEL_NUMBERS, new_xid

# Snake case as localStorage has it (protocol A.1); `kimi_auth` is the cookie's value.
_SPELLED = {
    "accessToken": "access_token",
    "refreshToken": "refresh_token",
    "kimiAuth": "kimi_auth",
    "userId": "user_id",
}

_Action = Callable[[Simulator, dict[str, Any]], Any]


def routes(simulator: Simulator) -> list[Route]:
    """The control endpoints."""
    shown: dict[str, _Action] = {"state": lambda sim, _: sim.snapshot(), "scenarios": lambda _, __: describe_all()}
    done: dict[str, _Action] = {
        "reset": _reset,
        "login": login,
        "settings": _settings,
        "revoke": _revoke,
        "scenario": queue_scenario,
        "resume": _resume,
        "chats": make_chats,
    }
    return [
        *(_route(simulator, name, action, "GET") for name, action in shown.items()),
        *(_route(simulator, name, action, "POST") for name, action in done.items()),
    ]


def _route(simulator: Simulator, name: str, action: _Action, verb: str) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            body = orjson.loads(await request.body() or b"{}")
            if not isinstance(body, dict):
                raise ValueError("expected a JSON object")
            return Response(orjson.dumps(action(simulator, body)), media_type=UNARY_TYPE)
        except Refusal as refusal:
            return refusal.response()
        except ValueError as error:  # bad JSON is one, too
            return Refusal("invalid_argument", str(error)).response()

    return Route(f"{CONTROL_PREFIX}/{name}", endpoint, methods=[verb])


def login(simulator: Simulator, body: dict[str, Any]) -> dict[str, str]:
    """Fresh tokens for `user`; also `kind`, `region`, `level`, `expires_in` and `refresh_expires_in` in seconds."""
    settings = simulator.settings
    kind = _one_of(body, "kind", ("pair", "cookie", "opaque"))
    access_ttl_s = settings.cookie_ttl_s if kind == "cookie" else settings.access_ttl_s
    user = body.get("user")
    if user is not None and not isinstance(user, str):
        raise ValueError("user must be a string")
    tokens = simulator.accounts.login(
        user=user,
        kind=kind,  # type: ignore[arg-type]  # checked against the same words above
        region=_one_of(body, "region", ("overseas", "cn")),  # type: ignore[arg-type]  # one of these words
        level=_one_of(body, "level", tuple(LEVEL_NUMBERS)),
        access_ttl_s=_seconds(body, "expires_in", access_ttl_s),
        refresh_ttl_s=_seconds(body, "refresh_expires_in", settings.refresh_ttl_s),
    )
    return {_SPELLED[name]: token for name, token in tokens.items()}


def _reset(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    simulator.reset()
    return {}


def _settings(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    simulator.settings = simulator.settings.changed(body)
    shown: dict[str, Any] = simulator.snapshot()["settings"]
    return shown


def _resume(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    """Running answers go on at once, whatever they pause for."""
    simulator.streams.resume_all()
    return {}


def _revoke(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    what = _one_of(body, "what", ("all", "access", "refresh"))
    if not simulator.accounts.revoke(str(body.get("user")), what=what):  # type: ignore[arg-type]  # checked above
        raise Refusal("not_found", f"unknown user {body.get('user')!r}")
    return {}


def make_chats(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    """`count` chats that the owner of account `user` made in the browser, each with one exchange; their ids.

    `legacy`: with ids of the older protocol, as those of old accounts are.
    """
    user, count, legacy = body.get("user"), body.get("count", 1), body.get("legacy", False)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError("count must be a positive number")
    if not isinstance(legacy, bool):
        raise ValueError("legacy must be a boolean")
    sub = simulator.accounts.sub_named(str(user))
    if sub is None:
        raise Refusal("not_found", f"unknown user {user!r}")
    made = []
    for number in range(1, count + 1):
        name = f"Owner's chat {number}"
        chat = simulator.chats.open(sub, "owner", chat_id=new_xid() if legacy else None, name=name)
        asked = chat.add("user", COMPLETED, "", [{"id": "1", "text": {"content": f"Owner's question {number}"}}])
        chat.add("assistant", COMPLETED, asked.id, [{"id": "1", "text": {"content": "An answer for the owner."}}])
        made.append(chat.id)
    return {"ids": made}


def queue_scenario(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    """Queue `name` with `params` for the next `times` chats (null: until reset); `name` null clears the queue."""
    name, params, times = body.get("name"), body.get("params", {}), body.get("times")
    if name is None:
        simulator.queue.clear()
        return {}
    if not isinstance(params, dict):
        raise ValueError("params must be an object")
    if times is not None and (not isinstance(times, int) or times < 1):
        raise ValueError("times must be a positive number or null")
    check_anywhere(str(name), params)
    simulator.queue.append(QueuedScenario(name=str(name), params=params, times=times))
    return {"queued": len(simulator.queue)}


def _one_of(body: dict[str, Any], name: str, words: tuple[str, ...]) -> str:
    """The word given, or the first."""
    value = body.get(name, words[0])
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}")
    return str(value)


def _seconds(body: dict[str, Any], name: str, default: float) -> float:
    value = body.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number of seconds")
    return float(value)
