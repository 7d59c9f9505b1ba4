"""Deployments of the proxy that name an account of their own by a variable which is not set.

LiteLLM puts a variable's value in place of its name, None when there is none, and leaves None out of what it calls us
with: then a row that means one account looks like a row that means any, and the pool would answer in its place. Only
the configuration still tells them apart, so it is read here, once, when the proxy starts. Rows that LiteLLM keeps in
its database are not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from litellm import Router

from ..errors import CredentialMissing

_REFERENCE = "os.environ/"


def own_rows(config: Mapping[str, Any], provider: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Rows of `model_list` that lead to us, each with its place in the list."""
    rows = config.get("model_list")
    return [
        (place, row)
        for place, row in enumerate(rows if isinstance(rows, list) else ())
        if isinstance(row, dict)
        and isinstance(params := row.get("litellm_params"), dict)
        and str(params.get("model")).startswith(f"{provider}/")
    ]


def unset_keys(config: Mapping[str, Any], path: str | None, provider: str) -> dict[str, str]:
    """What to say of each deployment whose api_key is named but not there, by LiteLLM's id of it.

    `config` has values in place of variables; their names are looked up in the file at `path`, where it can be read.
    """
    names = _api_keys_of_file(path)
    found = {}
    for place, row in own_rows(config, provider):
        params, name = row["litellm_params"], str(row.get("model_name"))
        written = str(names.get((place, name), _REFERENCE))
        # One that is written empty names no account, and means any.
        if "api_key" in params and not params["api_key"] and written.startswith(_REFERENCE):
            variable = written.removeprefix(_REFERENCE) or "the variable"
            found[_id(row)] = f"{variable} that '{name}' names as its api_key is not set"
    return found


def require_key(unset: Mapping[str, str], litellm_params: Mapping[str, Any] | None) -> None:
    """Raise CredentialMissing when the deployment of this call is one of `unset`."""
    info = (litellm_params or {}).get("model_info")
    if isinstance(info, dict) and (why := unset.get(str(info.get("id")))):
        raise CredentialMissing(
            f"{why[0].upper()}{why[1:]}",
            cure="Set it to a credential of the account, or take api_key out of the deployment: then the accounts of "
            "KIMI_TOKEN answer.",
        )


def _id(row: Mapping[str, Any]) -> str:
    info = row.get("model_info")
    named = info.get("id") if isinstance(info, dict) else None
    return str(named or Router.generate_model_id(row.get("model_name"), row["litellm_params"]))


def _api_keys_of_file(path: str | None) -> dict[tuple[int, str], Any]:
    """What is written as api_key, by place and model name; included files come behind the rows of the first."""
    try:
        config = yaml.safe_load(Path(path).read_text("utf-8")) if path else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    rows = config.get("model_list") if isinstance(config, dict) else None
    return {
        (place, str(row.get("model_name"))): params.get("api_key")
        for place, row in enumerate(rows if isinstance(rows, list) else ())
        if isinstance(row, dict) and isinstance(params := row.get("litellm_params"), dict)
    }
