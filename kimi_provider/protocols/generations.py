"""Which generation of the service's protocol a call uses.

KIMI_PROTOCOL names one, or `auto` leaves the choice here: a model's row may prefer one, else the first of the list
that can be asked for the model, which is Connect. An old opaque refresh token opens REST only (protocol A.6). A
generation that said it is gone comes last for a while, and is still tried when nothing else is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import ModelNotFound, PermissionRefused
from ..settings import Settings
from ..upstream import ModelSpec, Upstream
from . import ChatProtocol
from .connect import ConnectProtocol
from .rest import RestProtocol


class Generations:
    """`allowed` protocols, best first; `setting` is KIMI_PROTOCOL, for errors. `clock` is monotonic seconds. `known`
    may be more, for what was begun under another setting.
    """

    def __init__(
        self,
        allowed: tuple[ChatProtocol, ...],
        *,
        setting: str,
        retired_for_s: float,
        clock: Callable[[], float] = time.monotonic,
        known: tuple[ChatProtocol, ...] = (),
    ) -> None:
        self._allowed = allowed
        self._known = known or allowed
        self._setting = setting
        self._retired_for_s = retired_for_s
        self._clock = clock
        self._retired_until: dict[str, float] = {}

    @classmethod
    def from_settings(cls, settings: Settings, upstream: Upstream) -> Generations:
        """Every protocol there is, as far as KIMI_PROTOCOL allows it."""
        known: tuple[ChatProtocol, ...] = (ConnectProtocol(settings, upstream), RestProtocol(settings, upstream))
        setting = settings.kimi_protocol
        allowed = tuple(one for one in known if setting in ("auto", one.name))
        return cls(allowed, setting=setting, retired_for_s=upstream.service.retired_for_s, known=known)

    def retire(self, protocol: ChatProtocol) -> None:
        """Remember that the service no longer has this generation."""
        self._retired_until[protocol.name] = self._clock() + self._retired_for_s

    def beginning_with(self, name: str) -> list[ChatProtocol]:
        """All there are, first the one that has this name and is not gone: what it began is best ended over it."""
        now = self._clock()
        return sorted(self._known, key=lambda one: (self._retired_until.get(one.name, 0.0) > now, one.name != name))

    def any(self, *, opaque: bool = False) -> ChatProtocol:
        """For calls that are about no model. Raises PermissionRefused when no generation takes the credential."""
        return self._best(self._taking(opaque), None)

    def choose(self, spec: ModelSpec, *, opaque: bool = False) -> ChatProtocol:
        """For an answer of this model; `opaque`: the account has an old refresh token.

        Raises ModelNotFound (no allowed generation has the model), PermissionRefused (the credential opens none).
        """
        serving = tuple(one for one in self._allowed if one.serves(spec))
        if not serving:
            raise ModelNotFound(
                f"{spec.title} can't be reached over Kimi's {self._setting} protocol",
                cure="Set KIMI_PROTOCOL to auto, or choose another model.",
            )
        taking = tuple(one for one in self._taking(opaque) if one in serving)
        if not taking:
            raise PermissionRefused(
                f"The account's old refresh token opens Kimi's REST protocol only, which does not have {spec.title}",
                cure="Log in again and give the account's new refresh_token.",
            )
        return self._best(taking, spec.protocol)

    def _taking(self, opaque: bool) -> tuple[ChatProtocol, ...]:
        taking = tuple(one for one in self._allowed if one.takes_opaque or not opaque)
        if not taking:
            raise PermissionRefused(
                f"The account's old refresh token opens only Kimi's REST protocol; KIMI_PROTOCOL is {self._setting}",
                cure="Set KIMI_PROTOCOL to auto, or log in again and give the account's new refresh_token.",
            )
        return taking

    def _best(self, choices: tuple[ChatProtocol, ...], preferred: str | None) -> ChatProtocol:
        now = self._clock()
        return min(choices, key=lambda one: (self._retired_until.get(one.name, 0.0) > now, one.name != preferred))
