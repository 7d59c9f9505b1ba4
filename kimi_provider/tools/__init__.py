"""Tool calling for a service that has none: by prompt, and by reading the answer's text (protocol E.4, E.5).

`Toolbox` describes the client's tools and writes the history, its `parser` turns the answer into events. Knows nothing
of networks, accounts or LiteLLM; every text and tag is data in upstream.yaml. `shapes` reads the forms in which
clients declare tools.
"""

from .calls import RefusedCall
from .parser import Outcome, ToolParser
from .prompt import ExampleTurn, Toolbox

__all__ = ["ExampleTurn", "Outcome", "RefusedCall", "ToolParser", "Toolbox"]
