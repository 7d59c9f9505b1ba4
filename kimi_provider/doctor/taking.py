"""From what was heard to a recording that may be shown to others, and proof that it still says the same.

Redacts by `redaction`, then looks for every credential and id of the account in the result: with any of them in it
there is no recording. `rehearsed` plays it in the simulator and asks each chat again, so that what the file claims is
what a client finds.
"""

from __future__ import annotations

import datetime
import json
from importlib.metadata import version
from typing import Final

from ..accounts import Account
from ..accounts.credential import claims_of
from ..errors import KimiError
from ..observe import redact
from ..protocols import ChatProtocol
from ..protocols.connect import ConnectProtocol
from ..protocols.rest import RestProtocol
from ..recordings import COMPLETED, VERSION, Call, Frame, Header, Recording
from ..settings import Settings
from ..simulator.server import SimulatorServer
from ..simulator.state import Simulator
from ..upstream import Upstream
from ..web import Session
from .asking import ask
from .hearing import Heard, strings_in
from .probing import Probed
from .redaction import Counts, Redactor, is_word

#: So many characters of a credential are as good as the whole.
_WINDOW_CHARS: Final = 12
_PLAY_TIMEOUT_S: Final = 30.0


class Unsafe(KimiError):
    """A recording still held something of the account."""


def taken(probed: Probed) -> tuple[Recording, Counts]:
    """The recording of a probing, and how much was replaced in it. Raises Unsafe."""
    redactor = Redactor(probed.upstream)
    header = Header(
        kimi_recording=VERSION,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m"),
        made_with=f"kimi-provider {version('kimi-provider')}",
        overlay=probed.overlay,
    )
    recording = Recording(header=header, calls=tuple(_call(one, redactor) for one in probed.heard))
    _check(recording, probed.account)
    return recording, redactor.counts


def _call(heard: Heard, redactor: Redactor) -> Call:
    exchange = heard.exchange
    values = iter(redactor.values(heard.values))
    frames = [
        Frame(flag=frame.flag, json=next(values))
        if frame.value is not None
        else Frame(flag=frame.flag, bytes=frame.size_bytes)
        for frame in heard.frames
    ]
    unread = heard.body is None and not heard.frames and len(exchange.answer) > 0
    return Call(
        call=heard.step,
        method=exchange.method,  # type: ignore[arg-type]  # checked by the model
        path=redactor.path(exchange.path),
        request=redactor.value(heard.request),
        status=exchange.status,
        type=exchange.content_type,
        body=redactor.value(heard.body),
        bytes=len(exchange.answer) if unread else None,
        cut=heard.cut,
        model=heard.model,
        frames=tuple(frames),
    )


def _check(recording: Recording, account: Account) -> None:
    """Raise Unsafe when there is a piece of the account's credentials or ids in it, or anything that looks like one."""
    text = recording.dumps()
    pair, claims = account.tokens.pair, account.claims
    bodies = [token.partition(".")[2] if claims_of(token) else token for token in (pair.access, pair.refresh) if token]
    ids = [one for one in (account.id, claims.sub, claims.device_id, claims.ssid) if one]
    pieces = {body[at : at + _WINDOW_CHARS] for body in bodies for at in range(max(1, len(body) - _WINDOW_CHARS + 1))}
    strings = {one for line in text.splitlines() for one in strings_in(json.loads(line))}
    suspects = (one for one in strings if not is_word(one) and redact(one) != one)
    if any(piece in text for piece in (*pieces, *ids)) or any(suspects):
        raise Unsafe(
            "The recording would still hold something of the account, so nothing was saved",
            cure="Please report this, with the version and without any file.",
        )


async def rehearsed(recording: Recording, upstream: Upstream) -> Recording:
    """The recording with the outcome of each chat as a client with `upstream` finds it."""
    simulator = Simulator(recording=recording)
    with SimulatorServer(simulator) as server:
        calls = []
        for number, call in enumerate(recording.calls, 1):
            if call.model is not None:
                server.queue("recorded", call=number)
                failure = await replayed(call, upstream, server.url, server.login("rehearsal")["access_token"])
                call = call.model_copy(update={"outcome": COMPLETED if failure is None else failure.code})
            calls.append(call)
    return recording.model_copy(update={"calls": tuple(calls)})


async def replayed(call: Call, upstream: Upstream, url: str, access_token: str) -> KimiError | None:
    """Ask the simulator at `url` what `call` asked, once and without a repeat; how that failed, if it did."""
    settings = Settings.without_file(kimi_base_url=url, kimi_auth_url=url)
    older = call.path.endswith("/stream")
    protocol: ChatProtocol = (RestProtocol if older else ConnectProtocol)(settings, upstream)
    session = Session(access_token=access_token, account="rehearsal", base_url=url)
    try:
        spec = upstream.resolve(call.model or "")
    except KimiError as exc:
        return exc
    return (await ask(protocol, session, spec, "Hello", timeout_s=_PLAY_TIMEOUT_S)).failure
