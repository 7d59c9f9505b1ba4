"""The gateway's model list, with what Kimi offers now behind wildcard rows of its configuration (protocol C.8).

LiteLLM's own function makes the list, so keys, teams and hidden models stay its business; it can't expand a wildcard of
a custom provider, which is what is added here. Only names that can be called are listed: every model that a wildcard
reaches, unless the same list has it under a name of its own. Without such a wildcard Kimi is not asked. Our rows also
say whose they are, and what a model is called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import litellm
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.auth import model_checks
from starlette.routing import Match
from starlette.types import Scope

from ..errors import ModelNotFound
from ..models import ModelSpec
from . import registry
from .checked_key import CheckedKey

if TYPE_CHECKING:
    from .llm import KimiLLM


class Listing:
    """Lists models for `provider`'s handler."""

    def __init__(self, handler: KimiLLM, provider: str) -> None:
        self._handler = handler
        self._provider = provider
        self._prefix = f"{provider}/"

    def router(self) -> APIRouter:
        """`GET /v1/models` as LiteLLM has it, in OpenAI's or Anthropic's shape, and `/v1/models/{model}` for ours."""
        is_ours = self.model_of

        class OurModels(APIRoute):
            def matches(self, scope: Scope) -> tuple[Match, Scope]:
                match, child = super().matches(scope)
                ours = match is Match.FULL and is_ours(child["path_params"].get("model_name", "")) is not None
                return (match, child) if ours else (Match.NONE, {})

        @functools.wraps(proxy_server.model_list)
        async def list_models(**query: Any) -> Any:
            return await self._listed(**query)

        async def get_model(
            request: Request,
            model_name: str,
            user_api_key_dict: CheckedKey,
        ) -> Any:
            for row in await self.rows(request, user_api_key_dict):
                if row["id"] == model_name:
                    return row
            return await proxy_server.model_info(model_id=model_name, user_api_key_dict=user_api_key_dict)

        routes = APIRouter(include_in_schema=False)
        for path in ("/v1/models", "/models"):
            routes.add_api_route(path, list_models, methods=["GET"])
            routes.add_api_route(
                path + "/{model_name:path}", get_model, methods=["GET"], route_class_override=OurModels
            )
        return routes

    async def rows(self, request: Request, user_api_key_dict: UserAPIKeyAuth) -> list[dict[str, Any]]:
        """The rows a key may see, in OpenAI's shape unless the request asks for Anthropic's."""
        listed = await self._listed(request=request, user_api_key_dict=user_api_key_dict)
        return list(listed["data"])

    def served(self) -> list[str]:
        """Names of this gateway's own model_list that lead to us, without wildcards."""
        return list(dict.fromkeys(row["model_name"] for row in self._deployments() if "*" not in row["model_name"]))

    def has_only_ours(self) -> bool:
        """Whether every row of the gateway's model_list leads to us."""
        router = proxy_server.llm_router
        return router is not None and len(self._deployments()) == len(router.model_list)

    async def _listed(self, **query: Any) -> Any:
        if any("*" in row["model_name"] for row in self._deployments()):
            await self._refresh()
        listed = await proxy_server.model_list(**query)
        router = proxy_server.llm_router
        theirs = {row["model_name"] for row in (router.model_list if router is not None else ())}
        theirs -= {row["model_name"] for row in self._deployments()}
        for row in listed["data"] if isinstance(listed, dict) else ():
            if row["id"] in theirs or (spec := self._spec(row["id"])) is None:
                continue
            if row.get("display_name") in (None, row["id"]):
                row["display_name"] = spec.title
            if row.get("max_input_tokens") is None:
                row["max_input_tokens"] = spec.context_tokens
            if "owned_by" in row:
                row["owned_by"] = self._provider
        return listed

    async def _refresh(self) -> None:
        models = (await self._handler.engine().live.refreshed()).models
        if new := {name: spec for name, spec in models.items() if self._prefix + name not in litellm.model_cost}:
            registry.register(self._provider, new)

    def _deployments(self) -> list[dict[str, Any]]:
        """Rows of the gateway's own model_list that lead to us."""
        router = proxy_server.llm_router
        rows = router.model_list if router is not None else ()
        return [row for row in rows if str(row["litellm_params"]["model"]).startswith(self._prefix)]

    def model_of(self, name: str) -> str | None:
        """The model of ours that a name of this gateway leads to, through aliases and wildcards too."""
        router = proxy_server.llm_router
        rows = router.get_model_list(model_name=name) if router is not None else None
        models = (str(row["litellm_params"]["model"]) for row in rows or ())
        return next((model.removeprefix(self._prefix) for model in models if model.startswith(self._prefix)), None)

    def _spec(self, name: str) -> ModelSpec | None:
        if (model := self.model_of(name)) is None:
            return None
        try:
            return self._handler.engine().upstream.resolve(model)
        except ModelNotFound:
            return None

    # --- wildcards -------------------------------------------------------------------------------------------

    def expand_wildcards(self) -> list[str]:
        """Let LiteLLM's list show our models behind wildcard rows. Returns a sentence when that can't be done.

        Unnecessary once a custom handler can say which models it has.
        """
        original = getattr(model_checks, "_get_wildcard_models", None)
        wanted = {"unique_models", "return_wildcard_routes", "llm_router", "team_id"}
        if original is None or not wanted <= inspect.signature(original).parameters.keys():
            return ["models behind a kimi/* row are not listed (LiteLLM has changed how it expands wildcards)"]
        model_checks._get_wildcard_models = self._expanding(original)
        return []

    def _expanding(self, original: Callable[..., list[str]]) -> Callable[..., list[str]]:
        @functools.wraps(original)
        def get_wildcard_models(unique_models: list[str], *args: Any, **kwargs: Any) -> list[str]:
            wildcards = [name for name in unique_models if "*" in name]
            listed = original(unique_models, *args, **kwargs)  # takes the wildcards out of unique_models
            return [*listed, *self._behind(wildcards, set(unique_models))] if wildcards else listed

        return get_wildcard_models

    def _behind(self, wildcards: Iterable[str], listed: set[str]) -> list[str]:
        """Names that `wildcards` make callable, for models that none of the `listed` names leads to."""
        table = self._handler.engine().upstream
        there = {
            table.row_name(row["litellm_params"]["model"].removeprefix(self._prefix))
            for row in self._deployments()
            if row["model_name"] in listed
        }
        found = []
        for wildcard in wildcards:
            if (pattern := self.model_of(wildcard)) is None or pattern.count("*") != 1 or wildcard.count("*") != 1:
                continue
            head, _, tail = pattern.partition("*")
            for model in table.models:
                fits = model.startswith(head) and model.endswith(tail) and len(model) > len(head + tail)
                if fits and model not in there:
                    there.add(model)
                    found.append(wildcard.replace("*", model[len(head) : len(model) - len(tail)]))
        return found
