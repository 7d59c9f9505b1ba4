"""GET /kimi/metrics: our metrics of every worker, and the accounts, whether LiteLLM's own /metrics is on or not.

LiteLLM's own page and guard of /metrics do the work: the same keys, formats and settings hold for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from .. import metrics
from ..admin.gauges import AccountGauges
from ..admin.roster import Roster

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ..engine import KimiEngine

try:
    from litellm.integrations.prometheus_metrics_endpoint import make_metrics_asgi_app
    from litellm.proxy.middleware.prometheus_auth_middleware import PrometheusAuthMiddleware
except ImportError:
    PrometheusAuthMiddleware = make_metrics_asgi_app = None


def routes(engine: KimiEngine) -> tuple[list[Route], list[str]]:
    """The route, and a sentence in its place when LiteLLM has no such page any more. Raises StoreError."""
    if PrometheusAuthMiddleware is None:
        return [], ["no GET /kimi/metrics (LiteLLM has changed how it shows metrics)"]
    page = PrometheusAuthMiddleware(make_metrics_asgi_app(metrics.shown(AccountGauges(Roster(engine)))))
    return [Route("/kimi/metrics", _AsMetrics(page), methods=["GET"])], []


class _AsMetrics:
    """An ASGI application that is asked as if for /metrics, the only path that its guard looks after."""

    def __init__(self, page: ASGIApp) -> None:
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._page({**scope, "path": "/metrics", "root_path": ""}, receive, send)
