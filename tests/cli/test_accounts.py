"""`kimi-provider accounts` as a child process, on a store of its own in front of the simulator."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Simulator, clean_environment

from .running import COMMAND, run


class Commands:
    """`accounts ...` with one state folder."""

    def __init__(self, tmp: Path, simulator: Simulator) -> None:
        self.tmp, self.simulator = tmp, simulator
        self.env = clean_environment(tmp, KIMI_BASE_URL=simulator.url, KIMI_AUTH_URL=simulator.url)
        self.seen = ""

    def __call__(
        self, *arguments: str, given: str | bytes = b"", code: int = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        content = given.encode() if isinstance(given, str) else given
        done = subprocess.run(
            [*COMMAND, "accounts", *arguments], env=self.env | env, cwd=self.tmp, input=content, capture_output=True
        )
        said = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        self.seen += said.stdout + said.stderr
        assert said.returncode == code, said
        return said

    def chat(self) -> int:
        return run(self.tmp, "chat", "Hi", **{k: v for k, v in self.env.items() if k.startswith("KIMI_")}).returncode

    def json(self, *arguments: str, code: int = 0, given: str = "", **env: str) -> Any:
        return json.loads(self(*arguments, "--json", code=code, given=given, **env).stdout)


@pytest.fixture
def accounts(tmp_path: Path, simulator: Simulator) -> Commands:
    return Commands(tmp_path, simulator)


def test_an_account_from_its_first_day_to_its_last(accounts: Commands, simulator: Simulator) -> None:
    tokens = simulator.login("ada")
    added = accounts("add", given=f"Bearer {tokens['refresh_token']}\n").stdout
    assert added.startswith("added ")
    assert "refresh token" in added
    (row,) = accounts.json("list")
    assert (row["state"], row["usable"], row["enabled"], row["renewable"]) == ("ok", True, True, True)
    assert row["simulated"] is True
    assert row["expires_at"] > time.time() + 30 * 86_400
    assert row["usage"]["today"] == {"answers": 0, "failures": 0, "prompt_tokens": 0, "completion_tokens": 0}

    assert accounts("add", given=tokens["refresh_token"]).stdout.startswith("updated "), "duplicates merge"
    assert len(accounts.json("list")) == 1
    assert accounts("check").stdout == f"{row['short_id']}: alive\n"
    assert accounts.json("check", row["id"]) == [{"short_id": row["short_id"], "live": True, "reason": None}]

    refreshes = len(asked(simulator, "RefreshToken"))
    assert accounts("refresh", row["id"]).stdout == f"{row['short_id']}: renewed (ready)\n"
    assert len(asked(simulator, "RefreshToken")) == refreshes + 1
    assert accounts.json("check") == [{"short_id": row["short_id"], "live": True, "reason": None}]

    assert accounts("disable", row["id"]).stdout == f"{row['short_id']}: paused\n"
    assert [one["state"] for one in accounts.json("list")] == ["paused"]
    assert accounts.json("enable", row["id"])["state"] == "ok"

    refused = accounts("remove", row["id"], code=2)
    assert "--yes" in refused.stderr
    assert accounts("remove", row["id"], "--yes").stdout == f"{row['short_id']}: removed\n"
    assert accounts.json("list") == []
    for secret in (tokens["refresh_token"], tokens["access_token"]):
        assert secret.split(".")[2][:20] not in accounts.seen


def asked(simulator: Simulator, name: str) -> list[dict[str, Any]]:
    return [request for request in simulator.state()["requests"] if request["path"].endswith(name)]


def test_answers_and_failures_are_counted(accounts: Commands, simulator: Simulator) -> None:
    accounts("add", given=simulator.login("ada")["refresh_token"])
    assert accounts.chat() == 0
    simulator.scenario("quota", times=None)
    assert accounts.chat() == 2
    (row,) = accounts.json("list")
    assert row["usage"]["today"]["answers"] == 1
    assert row["usage"]["today"]["failures"] >= 1
    assert row["usage"]["last_30_days"]["prompt_tokens"] > 0
    assert row["state"] == "cooling"
    assert row["last_error"]["code"] == "quota_exhausted"
    assert row["cooldowns"][0]["until"] > time.time()
    table = accounts("list").stdout
    assert "cooling down" in table
    assert "1 (" in table


def test_a_recording_is_added_from_its_file(accounts: Commands, simulator: Simulator, tmp_path: Path) -> None:
    tokens = simulator.login("ada")
    request = {
        "url": f"{simulator.url}/x",
        "headers": [{"name": "Authorization", "value": f"Bearer {tokens['access_token']}"}],
    }
    padding = [{"request": {"url": "https://cdn.example/", "headers": []}, "pad": "x" * 1000}] * 2000
    (tmp_path / "kimi.har").write_text(json.dumps({"log": {"entries": [*padding, {"request": request}]}}))
    (one,) = accounts.json("add", "--file", "kimi.har")
    assert (one["outcome"], one["kind"], one["renewable"]) == ("added", "access", False)
    assert one["missing"] == "dies in 15 min and has no refresh partner"
    said = accounts("refresh", one["id"], code=2).stderr
    assert "nothing to renew it with" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "word"),
    [("", "No Kimi credential"), ("hello", "No Kimi credential"), ("sk-kimi-0123456789abcdef", "moonshot/")],
)
def test_a_paste_without_a_credential(accounts: Commands, given: str, word: str) -> None:
    said = accounts("add", given=given, code=2)
    assert (said.stdout, said.stderr.count("\n")) == ("", 1)
    assert word in said.stderr
    assert "0123456789abcdef" not in said.stderr
    assert "Kredensial Kimi belum ada" in accounts("add", given=given, code=2, KIMI_LANG="id").stderr


def test_a_credential_as_an_argument_is_refused_and_not_repeated(accounts: Commands, simulator: Simulator) -> None:
    token = simulator.login("ada")["refresh_token"]
    said = accounts("add", token, code=2)
    assert "list of processes" in said.stderr
    assert token[:40] not in said.stdout + said.stderr
    assert accounts.json("list") == []


def test_the_prompt_shows_the_advice_and_not_the_secret(accounts: Commands, simulator: Simulator) -> None:
    token = simulator.login("ada")["refresh_token"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(accounts.tmp)
        os.execvpe(COMMAND[0], [*COMMAND, "accounts", "add"], accounts.env)
    said = b""
    while b"Paste it here" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, token.encode() + b"\n")
    try:
        while more := os.read(terminal, 4096):
            said += more
    except OSError:  # the child has closed it
        pass
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, said
    text = said.decode()
    for words in ("private window", "without logging out", "added "):
        assert words in text
    assert token[:40] not in text
    assert len(accounts.json("list")) == 1


def test_several_accounts_and_how_to_name_one(accounts: Commands, simulator: Simulator) -> None:
    logins: dict[str, dict[str, Any]] = {}
    number = 0
    while (tokens := simulator.login(f"user-{number}"))["user_id"][0] not in logins:
        logins[tokens["user_id"][0]] = tokens
        number += 1
    both = [tokens, logins[tokens["user_id"][0]]]  # ids that begin alike
    assert len(accounts.json("add", given="\n".join(one["refresh_token"] for one in both))) == 2
    one, other = accounts.json("list")
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one["id"], other["id"], strict=False)))
    assert accounts("disable", one["id"][: alike + 1]).stdout.startswith(one["short_id"])
    assert [row["state"] for row in accounts.json("list")] == ["paused", "ok"]
    assert "2 accounts" in accounts("disable", one["id"][:alike], code=2).stderr
    assert "No account has this id" in accounts("disable", "nobody", code=2).stderr


def test_a_dead_account_fails_the_check(accounts: Commands, simulator: Simulator) -> None:
    accounts("add", given=simulator.login("eve")["refresh_token"])
    simulator.control("revoke", user="eve", what="all")
    (one,) = accounts.json("check", code=1)
    assert one["live"] is False
    assert one["reason"]
    (row,) = accounts.json("list")
    assert (row["state"], row["usable"]) == ("refused", False)
    assert "log in again" in accounts("list").stdout
    assert accounts("add", given=simulator.login("eve")["refresh_token"]).stdout.startswith("updated")
    assert [row["state"] for row in accounts.json("list")] == ["ok"]


def test_a_service_that_is_away_says_neither(accounts: Commands, simulator: Simulator) -> None:
    accounts("add", given=simulator.login("ada")["refresh_token"])
    (one,) = accounts.json("check", code=1, KIMI_BASE_URL="http://127.0.0.1:9", KIMI_AUTH_URL="http://127.0.0.1:9")
    assert one["live"] is None


def test_real_mode_keeps_no_account_of_the_simulator(tmp_path: Path, simulator: Simulator) -> None:
    token = simulator.login("ada")["refresh_token"]
    done = subprocess.run(
        [*COMMAND, "accounts", "add"], env=clean_environment(tmp_path), cwd=tmp_path, input=token, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "simulator" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_place_that_can_not_be_written(accounts: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = accounts("list", code=2, KIMI_STATE_URL=f"sqlite:///{tmp_path}/file/accounts.db").stderr
    assert "can't be opened" in said
    assert said.count("\n") == 1


def test_an_empty_store_says_how_to_begin(accounts: Commands) -> None:
    assert "accounts add" in accounts("list").stdout


def test_an_account_of_the_environment_says_that_it_comes_back(accounts: Commands, simulator: Simulator) -> None:
    token = simulator.login("ada")["refresh_token"]
    (row,) = accounts.json("list", KIMI_TOKEN=token)
    assert "KIMI_TOKEN still holds it" in accounts("remove", row["id"], "--yes", KIMI_TOKEN=token).stdout
