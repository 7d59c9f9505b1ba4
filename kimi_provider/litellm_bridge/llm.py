"""The handler that LiteLLM calls: async and sync, streamed and whole.

One engine per process serves the proxy's loop, plain threads and repeated `asyncio.run`; sync calls run on the
private background loop. Errors that come before the first event are raised before a stream object exists, so that
they become real statuses, retries and fallbacks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from litellm import CustomLLM
from litellm.types.utils import ModelResponse, ModelResponseStream

from .. import metrics
from ..accounts.alerts import Alerts
from ..accounts.channels import Channel
from ..engine import KimiEngine
from ..errors import BadRequest, KimiError
from ..events import ConversationFound, Event, Finished, Notice, TextDelta, Usage
from ..loops import background
from ..settings import SettingsError
from . import deployments, inbound, outbound
from .failures import to_litellm
from .progress import Progress

log = logging.getLogger(__name__)


class OpenAnswer:
    """A streamed answer whose first event is there. Iterates over chunks; raises LiteLLM exceptions.

    An iterator of its own rather than a generator: LiteLLM asks for `__aiter__` before each chunk, and an answer that
    is dropped before its first chunk must still close the call to the service. Some of LiteLLM's adapters only drop
    it, so nothing here may form a reference cycle: then the drop itself closes the call, not a later garbage
    collection.
    """

    def __init__(
        self,
        headers: dict[str, str],
        created: int,
        chunks: AsyncGenerator[ModelResponseStream, None],
        rest: AsyncGenerator[Event, None],
    ) -> None:
        #: Response headers known before the first byte, and the time that every chunk carries, in Unix seconds.
        self.headers, self.created = headers, created
        self._chunks, self._rest = chunks, rest

    def __aiter__(self) -> OpenAnswer:
        return self

    async def __anext__(self) -> ModelResponseStream:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Close the call to the service."""
        await self._chunks.aclose()
        await self._rest.aclose()


async def _chunks(
    call: _Call, answer: outbound.Answer, first: ModelResponseStream | None, rest: AsyncGenerator[Event, None]
) -> AsyncGenerator[ModelResponseStream, None]:
    with call.translating():
        async with aclosing(rest):
            if first is not None:
                yield first
            async for event in rest:
                if (chunk := answer.chunk(event)) is not None:
                    yield chunk


class _Call:
    """One call of the handler, read."""

    def __init__(self, handler: KimiLLM, kwargs: dict[str, Any], *, collected: bool = False) -> None:
        self.model: str = kwargs["model"]
        self._handler = handler
        self._counts = True
        with self.translating():
            if not kwargs.get("api_key"):
                deployments.require_key(handler.unset_keys, kwargs.get("litellm_params"))
            self.inbound = inbound.read(
                model=self.model,
                messages=kwargs.get("messages") or (),
                optional_params=kwargs.get("optional_params") or {},
                litellm_params=kwargs.get("litellm_params"),
                timeout=kwargs.get("timeout"),
                api_key=kwargs.get("api_key"),
                collected=collected,
            )
        self._counts = not self.inbound.health_check

    @contextmanager
    def translating(self) -> Iterator[None]:
        """The boundary: our errors become LiteLLM's, in the language of the settings. A defect of ours becomes a plain
        500 and a log entry; left alone, LiteLLM would send the traceback to the caller.
        """
        try:
            yield
        except KimiError as exc:
            failure = exc
        except Exception as exc:  # the boundary, see above
            log.error("kimi-provider failed on %s", self.model, exc_info=exc)
            failure = KimiError(f"kimi-provider has a defect ({type(exc).__name__}); its log has the details")
        else:
            return
        if self._counts:
            metrics.failed(failure)
        raise to_litellm(failure, model=self.model, language=self._handler.language) from None

    def headers(self) -> dict[str, str]:
        """Who answers, and which parameters have no effect or get the nearest that Kimi does."""
        named = {
            outbound.SERVED_BY: (self.model,),
            "x-kimi-ignored": sorted({*self.inbound.ignored, *self._effort.ignored}),
            "x-kimi-emulated": self._effort.emulated,
        }
        return {header: ",".join(names) for header, names in named.items() if names}

    async def answer(self) -> outbound.Answer:
        """How the model and the request want the answer to look. Raises KimiError."""
        engine, request = self._handler.engine(), self.inbound.request
        spec = await engine.resolve(self.model)
        self._effort = spec.effort_for(request.effort, request.thinking)
        shows_progress = not spec.silent and (spec.show_progress or self._effort.thinking)
        searches = engine.upstream.connect.search_tool_names.__contains__
        return outbound.Answer(
            model=self.model,
            silent=spec.silent,
            progress=Progress(self._handler.language, searches) if shows_progress else None,
            # Who asks for a search in an API's own way reads that API's own citations.
            lists_sources=not self.inbound.reads_citations,
            functions=self.inbound.functions,
        )

    def events(self, answer: outbound.Answer) -> AsyncGenerator[Event, None]:
        engine = self._handler.engine()
        if self.inbound.health_check:
            return _proof(engine, self.inbound.request.credential, self.model)
        return engine.chat(replace(self.inbound.request, answer_id=answer.id))


async def _proof(engine: KimiEngine, credential: str | None, model: str) -> AsyncGenerator[Event, None]:
    """A health check is answered from a token check: no prompt, no chat in the account."""
    engine.upstream.resolve(model)
    await engine.check(credential)
    yield TextDelta("ok")
    yield Usage(prompt_tokens=1, completion_tokens=1)
    yield Finished()


class KimiLLM(CustomLLM):  # type: ignore[misc]  # litellm is not followed by mypy
    """LiteLLM's custom provider `kimi`."""

    def __init__(self) -> None:
        super().__init__()
        self._engine: KimiEngine | None = None
        #: Deployments that must not answer, and why, by LiteLLM's id; a proxy fills it when it starts.
        self.unset_keys: Mapping[str, str] = {}
        self._lock = threading.Lock()

    @property
    def language(self) -> Any:
        """Of error texts."""
        return self._engine.settings.kimi_lang if self._engine is not None else "en"

    def engine(self) -> KimiEngine:
        """The process's engine, made on first use. Raises BadRequest when a setting can't be used."""
        with self._lock:
            if self._engine is None:
                try:
                    metrics.start()
                    self._engine = engine = KimiEngine.from_environment()
                    self._alerts = Alerts.from_settings(engine.settings, engine.upstream)
                except SettingsError as exc:
                    raise BadRequest(f"kimi-provider is not set up: {exc}", cure="") from None
                if (hint := self._alerts.hint()) is not None:
                    log.warning("kimi-provider: %s", hint)
                self._alerts.start()
            return self._engine

    def tell_also(self, channel: Channel) -> None:
        """One more way to tell the accounts' owner what needs him. Raises as `engine`."""
        self.engine()
        self._alerts.add(channel)

    # --- async ---------------------------------------------------------------------------------------------

    async def open(self, kwargs: dict[str, Any]) -> OpenAnswer:
        """Start a streamed answer and wait for its first event. Raises LiteLLM exceptions."""
        call = _Call(self, kwargs)
        first: ModelResponseStream | None = None
        with call.translating():
            answer = await call.answer()
            events = call.events(answer)
            try:
                async for event in events:
                    first = answer.chunk(event)
                    if not isinstance(event, Notice | ConversationFound):
                        break
            except BaseException:
                await events.aclose()
                raise
        headers = {**call.headers(), **answer.headers()}
        return OpenAnswer(headers, answer.created, _chunks(call, answer, first, events), events)

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """One whole answer."""
        call = _Call(self, kwargs, collected=True)
        with call.translating():
            answer = await call.answer()
            async with aclosing(call.events(answer)) as events:
                response = await outbound.collect(events, answer)
        outbound.attach_headers(response, {**call.headers(), **answer.headers()})
        return response

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncGenerator[ModelResponseStream, None]:
        """The fallback of `compat`: errors before the first event then come as stream errors."""
        async with aclosing(await self.open(kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk

    # --- sync ----------------------------------------------------------------------------------------------

    def completion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """As `acompletion`, from a thread without a loop."""
        return background().submit(self.acompletion(**kwargs)).result()

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponseStream]:
        """As `open`, from a thread without a loop; the first event is awaited here."""
        return _pulled(background().submit(self.open(kwargs)).result())


def _pulled(chunks: OpenAnswer) -> Iterator[ModelResponseStream]:
    loop = background()

    async def pull() -> ModelResponseStream | None:
        return await anext(chunks, None)

    try:
        while (chunk := loop.submit(pull()).result()) is not None:
            yield chunk
    finally:
        loop.submit(chunks.aclose()).result()
