"""The gateway's own routes: ping, guide, start page, health."""

from __future__ import annotations

from tests.harness import MASTER_KEY, Gateway, Simulator


def test_ping_needs_no_key(gateway: Gateway) -> None:
    answer = gateway.http.get("/ping", headers={"authorization": ""})
    assert (answer.status_code, answer.text) == (200, "pong")


def test_the_guide_names_surfaces_and_models_and_no_secret(gateway: Gateway) -> None:
    answer = gateway.http.get("/kimi", headers={"authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    for words in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "kimi-k3", "Unofficial", gateway.url):
        assert words in answer.text
    assert MASTER_KEY not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "style=" not in answer.text
    assert gateway.http.get("/kimi/static/kimi.css").headers["content-type"].startswith("text/css")


def test_the_start_page_leads_to_the_guide(gateway: Gateway) -> None:
    answer = gateway.http.get("/", headers={"authorization": ""})
    assert answer.is_redirect
    assert answer.headers["location"].endswith("/kimi")


def test_models_are_listed(gateway: Gateway) -> None:
    names = {row["id"] for row in gateway.http.get("/v1/models").json()["data"]}
    assert names >= {"kimi", "kimi-thinking", "kimi-search", "kimi-research", "kimi-k2.6", "kimi-k3"}


def test_health_checks_prove_the_token_without_a_prompt(gateway: Gateway, simulator: Simulator) -> None:
    health = gateway.http.get("/health").json()
    assert health["unhealthy_count"] == 0, health
    assert health["healthy_count"] >= 9
    paths = {request["path"].rsplit("/", 1)[-1] for request in simulator.state()["requests"]}
    assert "GetCurrentUser" in paths
    assert "Chat" not in paths
