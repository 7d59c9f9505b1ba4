"""A gateway that is told to stop, as a restart or a new version does: what is under way is brought home."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from kimi_provider.settings import Settings
from kimi_provider.store import open_store
from tests.harness import MASTER_KEY, Gateway, Simulator

ASK = {"model": "kimi", "messages": [{"role": "user", "content": "Hi"}]}


def test_a_gateway_that_is_stopped_keeps_new_tokens_tells_its_counts_and_holds_no_streams(
    simulator: Simulator, tmp_path: Path
) -> None:
    pair = simulator.login("ada")
    given, state = f"{pair['access_token']} {pair['refresh_token']}", f"sqlite:///{tmp_path}/accounts.db"
    with Gateway(tmp_path, simulator.url, given, KIMI_STATE_URL=state) as gateway:
        assert gateway.http.post("/v1/chat/completions", json=ASK).status_code == 200
        simulator.control("revoke", user="ada", what="access")
        simulator.control("settings", refresh_delay_s=4)  # the old refresh token is dead at once
        with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
            body = json.dumps(ASK).encode()
            caller.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {MASTER_KEY}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            simulator.until("refreshes", 1, 60)
        assert gateway.stop() == 0  # its caller has left, the refresh has not come back
    store = open_store(Settings.without_file(kimi_state_url=state))
    assert store is not None
    with store.read() as rows:
        (account,) = rows.accounts.all()
        kept = rows.tokens.load(account.id)
        assert kept is not None
        assert (kept.access != pair["access_token"], kept.refresh != pair["refresh_token"]) == (True, True)
        assert rows.streams("").counts() == []
        assert sum(usage.answers for usage in rows.usage.since(1)) == 1
    store.close()
