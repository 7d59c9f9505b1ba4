"""A simulated Kimi service: the server half of the protocol, for tests, benchmarks and the demo mode.

Written from the protocol document alone; it never imports the client's wire code, so that a shared misreading can't
pass. It is strict where the real service is known to be strict, and plays every fault the document names on request
(`scenario`). It never talks to the network, and its tokens say that they are simulated. No affiliation with
Moonshot AI.
"""

from __future__ import annotations

from .app import create_app
from .server import SimulatorServer
from .settings import SimulatorSettings
from .state import Simulator
from .tokens import SIMULATOR_CLAIM

__all__ = ["SIMULATOR_CLAIM", "Simulator", "SimulatorServer", "SimulatorSettings", "create_app"]
