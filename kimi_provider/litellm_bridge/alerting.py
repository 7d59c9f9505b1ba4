"""LiteLLM's own alerting (Slack, Microsoft Teams, Sentry) as one more way to tell the accounts' owner.

The one place that knows it. It is looked at anew for each alert, because a proxy reads its settings after it has
imported us, and later from its database. LiteLLM says nothing of what became of a message, so that one is taken for
delivered when LiteLLM has posted it.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from litellm.proxy import proxy_server
from litellm.types.integrations.slack_alerting import AlertType

from ..accounts.alert_text import Alert
from ..errors import Unavailable

#: Among LiteLLM's kinds the nearest to ours; on unless `alert_types` leaves it out.
_KIND: Final = AlertType.llm_exceptions
_LEVELS: Final[dict[str, Literal["Low", "Medium", "High"]]] = {"failure": "High", "warning": "Medium", "success": "Low"}


class LiteLLMAlerting:
    """Alerting of the proxy that runs on `loop`."""

    name = "litellm"
    label = "LiteLLM's alerting"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @property
    def configured(self) -> bool:
        """Whether `general_settings.alerting` names a way that takes messages such as ours, and wants them."""
        ways = set(proxy_server.proxy_logging_obj.alerting or ())
        chats = not ways.isdisjoint({"slack", "ms_teams"})
        wanted = _KIND in (proxy_server.proxy_logging_obj.slack_alerting_instance.alert_types or ())
        return (chats and wanted) or "sentry" in ways

    async def send(self, alert: Alert) -> None:
        """Deliver, on the proxy's loop. Raises Unavailable."""
        if self._loop.is_closed():
            raise Unavailable("the proxy has stopped")
        sent = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_sent(alert), self._loop))
        await asyncio.wait([sent])
        if (error := sent.exception()) is not None:  # of any kind; its text may hold the webhook
            raise Unavailable(
                f"LiteLLM raised {type(error).__name__}", cure="Check SLACK_WEBHOOK_URL or what else it needs."
            )


async def _sent(alert: Alert) -> None:
    alerting = proxy_server.proxy_logging_obj
    await alerting.alerting_handler(
        message=f"{alert.title}\n{alert.body}", level=_LEVELS[alert.severity], alert_type=_KIND
    )
    # It keeps messages for some seconds: until then they would be lost with the process.
    await alerting.slack_alerting_instance.flush_queue()
