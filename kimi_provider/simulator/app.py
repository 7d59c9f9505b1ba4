"""The simulator as one ASGI application: every module with routes, one list entry each, under the recorder.

A further part of the service is a module with `routes(simulator)` and an entry here.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import connect, control, gateway, rest, unary
from .files import connect as files
from .files import presigned
from .recording import Recorder
from .replaying import Replayer
from .rewording import Rewording
from .state import Simulator

PARTS = (
    connect.routes,
    unary.routes,
    files.routes,
    rest.routes,
    presigned.routes,
    gateway.routes,
    control.routes,
)

_FACE = (
    "This is the simulator of kimi-provider, for tests and demos. It is not Kimi, answers nothing real, and has no "
    "affiliation with Moonshot AI.\nScenarios: /_sim/scenarios  State: /_sim/state\n"
)


def create_app(simulator: Simulator | None = None) -> Starlette:
    """An ASGI app around `simulator` (a fresh one by default), which is also its `state.simulator`."""
    simulator = simulator or Simulator()

    async def face(request: Request) -> Response:
        return PlainTextResponse(_FACE)

    routes = [Route("/", face), *(route for part in PARTS for route in part(simulator))]
    layers = [Middleware(layer, simulator=simulator) for layer in (Recorder, Rewording, Replayer)]
    app = Starlette(routes=routes, middleware=layers)
    app.router.redirect_slashes = False  # the service never redirects on its own
    app.state.simulator = simulator
    return app
