"""The table of routes: which calls it names, in every spelling that servers accept, and which names models get."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_addon.routes import Routes, RoutesError, canonical

ROUTES = Routes.load()


@pytest.mark.parametrize(
    ("host", "path", "gateway", "model"),
    [
        ("api.openai.com", "/v1/chat/completions", "/v1/chat/completions", None),
        ("api.openai.com", "/v1/responses", "/v1/responses", None),
        ("api.openai.com", "/v1/responses/resp_1/input_items", "/v1/responses/resp_1/input_items", None),
        ("api.openai.com", "/v1/models", "/v1/models", None),
        ("eu.api.openai.com", "/v1/models/gpt-5", "/v1/models/{model}", "gpt-5"),
        ("api.anthropic.com", "/v1/messages", "/v1/messages", None),
        ("api.anthropic.com", "/v1/messages/count_tokens", "/v1/messages/count_tokens", None),
        (
            "generativelanguage.googleapis.com",
            "/v1beta/models/gemini-3.1-pro:streamGenerateContent",
            "/v1beta/models/{model}:streamGenerateContent",
            "gemini-3.1-pro",
        ),
        (
            "generativelanguage.googleapis.com",
            "/v1/models/gemini-3.1-pro:generateContent",
            "/v1beta/models/{model}:generateContent",
            "gemini-3.1-pro",
        ),
        ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "/v1/chat/completions", None),
        (
            "mine.openai.azure.com",
            "/openai/deployments/my-gpt/chat/completions",
            "/openai/deployments/{model}/chat/completions",
            "my-gpt",
        ),
        ("mine.openai.azure.com", "/openai/v1/responses", "/v1/responses", None),
        ("mine.openai.azure.com", "/openai/responses", "/v1/responses", None),
        ("openrouter.ai", "/api/v1/chat/completions", "/v1/chat/completions", None),
        ("openrouter.ai", "/api/v1/messages", "/v1/messages", None),
        ("api.groq.com", "/openai/v1/chat/completions", "/v1/chat/completions", None),
        ("api.mistral.ai", "/v1/chat/completions", "/v1/chat/completions", None),
        ("api.x.ai", "/v1/responses", "/v1/responses", None),
        ("api.deepseek.com", "/chat/completions", "/v1/chat/completions", None),
        ("api.deepseek.com", "/v1/chat/completions", "/v1/chat/completions", None),
        ("api.deepseek.com", "/anthropic/v1/messages", "/v1/messages", None),
    ],
)
def test_redirected(host: str, path: str, gateway: str, model: str | None) -> None:
    found = ROUTES.host(host)
    assert found is not None
    match = found.match(path)
    assert match is not None
    assert (match.policy, match.path, match.model) == ("redirect", gateway, model)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/./chat/completions",
        "/v1/files/../chat/completions",
        "/V1/Chat/Completions",
        "/v1/chat/%63ompletions",
        "/%76%31/chat/completions",
        "/../v1/chat/completions",
    ],
)
def test_other_spellings_do_not_slip_past(path: str) -> None:
    host = ROUTES.host("api.openai.com")
    assert host is not None
    match = host.match(path)
    assert match is not None
    assert match.path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("host", "path", "policy"),
    [
        ("api.openai.com", "/v1/files", None),
        ("api.openai.com", "/v1/embeddings", None),
        ("api.openai.com", "/v1/chat", None),
        ("api.openai.com", "/v1/chat/completions/x", None),
        ("api.openai.com", "/", None),
        ("api.openai.com", "", None),
        ("api.openai.com", "/v1/realtime", "refuse"),
        ("api.openai.com", "/v1/realtime/sessions", "refuse"),
        ("api.openai.com", "/v1/realtimes", None),
        ("api.anthropic.com", "/api/event_logging/v2/batch", None),
        ("api.anthropic.com", "/v1/messages/batches", None),
        ("generativelanguage.googleapis.com", "/ws/google.ai.Something", "refuse"),
        ("generativelanguage.googleapis.com", "/upload/v1beta/files", None),
    ],
)
def test_passed_or_refused(host: str, path: str, policy: str | None) -> None:
    found = ROUTES.host(host)
    assert found is not None
    match = found.match(path)
    assert (match.policy if match else None) == policy


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "openai.com",
        "platform.openai.com",
        "chatgpt.com",
        "cloudcode-pa.googleapis.com",
        "evilapi.openai.com",
        "api.openai.com.evil.example",
        "openai.azure.com",
        "127.0.0.1",
        "",
        None,
    ],
)
def test_not_listed(name: str | None) -> None:
    assert ROUTES.host(name) is None


def test_spelling_of_hosts() -> None:
    assert ROUTES.host("API.OpenAI.com.") is ROUTES.host("api.openai.com") is not None


def test_each_host_answers_in_its_own_format() -> None:
    spoken = {host.name: host.dialect for host in ROUTES.hosts}
    assert spoken["api.anthropic.com"] == "anthropic"
    assert spoken["generativelanguage.googleapis.com"] == "gemini"
    assert {spoken[name] for name in spoken if "openai" in name} == {"openai"}


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/:"), min_size=1).filter(
    lambda t: t not in (".", "..")
)


@given(_NAMES, _NAMES)
def test_any_model_name_goes_through_a_path_and_out_again(asked: str, given_name: str) -> None:
    host = ROUTES.host("generativelanguage.googleapis.com")
    assert host is not None
    match = host.match(f"/v1beta/models/{quote(asked, safe='')}:generateContent")
    assert match is not None
    assert match.model == asked
    assert match.target(given_name) == f"/v1beta/models/{quote(given_name, safe='')}:generateContent"


@given(st.text())
def test_canonical_is_stable_and_any_path_is_decided(path: str) -> None:
    assert canonical(canonical(path)) == canonical(path) or "%25" in canonical(path)
    for host in ROUTES.hosts:
        host.match(path)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("gpt-5.4", "kimi"),
        ("claude-opus-4-8", "kimi-thinking"),
        ("anthropic/claude-haiku-4.5", "kimi"),
        ("o3-mini", "kimi-thinking"),
        ("o4-mini-deep-research", "kimi-research"),
        ("gpt-4o-search-preview", "kimi-search"),
        ("kimi-k2.6", "kimi-k2.6"),
        ("kimi", "kimi"),
        ("kimi/kimi-k3", "kimi/kimi-k3"),
        ("moonshotai/kimi-k2", "kimi"),
        ("", "kimi"),
    ],
)
def test_model_names(asked: str, found: str) -> None:
    assert ROUTES.models.find(asked) == found


def own(tmp_path: Path, text: str) -> Routes:
    (path := tmp_path / "own.toml").write_text(text, "utf-8")
    return Routes.load(path)


def test_a_file_of_the_users(tmp_path: Path) -> None:
    routes = own(
        tmp_path,
        """
        unlist = ["openrouter.ai"]
        [host."llm.example.com"]
        "/llm/v1" = ["openai", "anthropic"]
        "/llm/v1/files" = "refuse"
        [host."api.openai.com"]
        "/v1/files" = "refuse"
        [models]
        default = ""
        [models.map]
        "gpt-5.4-mini" = "kimi-k2.6"
        "gpt-*" = "kimi-thinking"
        """,
    )
    assert routes.host("openrouter.ai") is None
    added = routes.host("llm.example.com")
    assert added is not None
    assert (found := added.match("/llm/v1/messages"))
    assert (found.path, found.dialect) == ("/v1/messages", "anthropic")
    assert (refused := added.match("/llm/v1/files/file-1"))
    assert refused.policy == "refuse"
    openai = routes.host("api.openai.com")
    assert openai is not None
    assert (kept := openai.match("/v1/chat/completions"))
    assert kept.policy == "redirect"
    assert (refused := openai.match("/v1/files"))
    assert refused.policy == "refuse"
    assert [routes.models.find(n) for n in ("gpt-5.4-mini", "gpt-5.4", "claude-opus-4-8", "llama")] == [
        "kimi-k2.6",
        "kimi-thinking",
        "kimi-thinking",
        None,
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "not valid TOML"),
        ("hosts = 1", "unknown entry 'hosts'"),
        ("host = 1", "'host' must be a table"),
        ('host."a.example" = 1', "must be a table of prefixes"),
        ('[host."Example.com"]\n"/" = "openai"', "is no host"),
        ('[host."a.example"]\n"v1" = "openai"', "must begin with a slash"),
        ('[host."a.example"]\n"/v1" = "opnai"', "names no surface"),
        ('[host."a.example"]\n"/v1" = 7', "names no surface"),
        ('[surface.x]\nerrors = "soap"\nto = "/"\npaths = []\n[host."a.example"]\n"/v1" = "x"', "errors is one of"),
        ("[models]\nkeep = 1", "models.keep"),
        ("[models]\ndefault = 1", "models.default"),
        ("[models.map]\na = 1", "models.map"),
        ("unlist = 1", "unlist must be"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RoutesError, match=re.escape(said)) as raised:
        own(tmp_path, text)
    assert "own.toml" in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match="can't be read"):
        Routes.load(tmp_path / "nothing.toml")
