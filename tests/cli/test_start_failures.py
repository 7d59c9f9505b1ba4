"""What keeps `serve` from starting: one sentence on stderr, exit code 2, no traceback, no secret, nothing started."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kimi_provider.simulator import SimulatorServer
from tests.harness import free_port

from .running import run

JWT = "eyJhbGciOiJIUzUxMiJ9.bm90aGluZy1vZi12YWx1ZS1oZXJl.c2lnbmF0dXJlLXRoYXQtaXMtbm9uZQ"


@dataclass(frozen=True)
class Case:
    name: str
    words: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


CASES = [
    Case("config that is missing", ["nowhere.yaml can't be read", "--config"], arguments=["--config", "nowhere.yaml"]),
    Case("config that is a folder", [". can't be read", "directory"], arguments=["--config", "."]),
    Case(
        "config that is no YAML",
        ["litellm_config.yaml, line 3, column", "is not valid YAML"],
        files={"litellm_config.yaml": f"model_list:\n  - model_name: a\n    b: c: {JWT}\n".encode()},
    ),
    Case(
        "config that is no UTF-8", ["litellm_config.yaml", "not valid UTF-8"], files={"litellm_config.yaml": b"a: \xff"}
    ),
    Case("config that is no mapping", ["no LiteLLM configuration"], files={"litellm_config.yaml": b"- a\n- b\n"}),
    Case("config whose list is none", ["no LiteLLM configuration"], files={"litellm_config.yaml": b"model_list: {}\n"}),
    Case(
        "config without the handler",
        ["nothing that serves them", "custom_handler: kimi_provider.litellm_bridge.handler"],
        files={"litellm_config.yaml": b"model_list: [{model_name: k, litellm_params: {model: kimi/kimi-latest}}]\n"},
    ),
    Case("overlay that is missing", ["KIMI_UPSTREAM_FILE", "no.yaml"], env={"KIMI_UPSTREAM_FILE": "no.yaml"}),
    Case(
        "overlay that is no YAML",
        ["up.yaml is not valid YAML at line 2"],
        env={"KIMI_UPSTREAM_FILE": "up.yaml"},
        files={"up.yaml": b"models:\n  a: b: c\n"},
    ),
    Case(
        "overlay with a wrong value",
        ["up.yaml: service.done_grace_s"],
        env={"KIMI_UPSTREAM_FILE": "up.yaml"},
        files={"up.yaml": b"service: {done_grace_s: soon}\n"},
    ),
    Case("number that is none", ["KIMI_TIMEOUT_S: ", "number"], env={"KIMI_TIMEOUT_S": "ten"}),
    Case("number out of range", ["KIMI_MAX_STREAMS: "], env={"KIMI_MAX_STREAMS": "0"}),
    Case("address that is none", ["KIMI_BASE_URL: must be an address"], env={"KIMI_BASE_URL": JWT}),
    Case("word that is none", ["KIMI_PROTOCOL: "], env={"KIMI_PROTOCOL": JWT}),
    Case("wrong value in .env", ["KIMI_LANG (in .env): "], files={".env": b"KIMI_LANG=fr\n"}),
    Case(".env that is no UTF-8", [".env is not valid UTF-8"], files={".env": b"KIMI_TOKEN=\xff\n"}),
    Case("no credential in the text", ["No Kimi credential was found", "KIMI_TOKEN"], env={"KIMI_TOKEN": "hello you"}),
    Case("a JWT cut off", ["No Kimi credential was found"], env={"KIMI_TOKEN": JWT.rpartition(".")[0]}),
    Case(
        "an API key",
        ["API key of the official platform", "moonshot/"],
        env={"KIMI_TOKEN": "sk-0123456789abcdef0123456789abcdef"},
    ),
    Case("store whose address is none", ["KIMI_STATE_URL must be a URL such as"], env={"KIMI_STATE_URL": JWT}),
    Case(
        "store on a disk that can't be written",
        ["/proc/nowhere/accounts.db can't be opened", "KIMI_STATE_URL=sqlite:"],
        env={"KIMI_STATE_URL": "sqlite:////proc/nowhere/accounts.db"},
    ),
    Case(
        "store that is something else",
        ["diary.db can't be opened (file is not a database)"],
        env={"KIMI_STATE_URL": "sqlite:///diary.db"},
        files={"diary.db": b"my diary" * 1000},
    ),
    Case(
        "database that is away",
        ["PostgreSQL at 127.0.0.1 can't be opened", "that the database is up"],
        env={"KIMI_STATE_URL": f"postgresql://me:{JWT}@127.0.0.1:9/kimi", "KIMI_SECRET_KEY": "A" * 43 + "="},
    ),
    Case("secret key that is none", ["KIMI_SECRET_KEY must hold", "openssl rand"], env={"KIMI_SECRET_KEY": JWT}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_sentence_and_nothing_started(tmp_path: Path, case: Case) -> None:
    for name, content in case.files.items():
        (tmp_path / name).write_bytes(content)
    done = run(tmp_path, "serve", "--port", str(free_port()), *case.arguments, **case.env)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("kimi-provider: ")
    assert done.stderr.count("\n") == 1
    for words in case.words:
        assert words in done.stderr
    for secret in (*JWT.split(".")[1:], "0123456789abcdef", "hello you"):
        assert secret not in done.stderr
    assert not (tmp_path / "state").exists(), "a key was made although nothing was started"


def test_a_wrong_secret_key_names_the_missing_one_and_destroys_nothing(tmp_path: Path) -> None:
    right, wrong = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
    with SimulatorServer() as simulator:
        given = simulator.login(user="ada")["refresh_token"]
        hosts = {"KIMI_BASE_URL": simulator.url, "KIMI_AUTH_URL": simulator.url}
        assert run(tmp_path, "accounts", "add", given=given, KIMI_SECRET_KEY=right, **hosts).returncode == 0
        for command in (["serve", "--port", str(free_port())], ["accounts", "list"]):
            done = run(tmp_path, *command, KIMI_SECRET_KEY=wrong, **hosts)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert re.search(r"is sealed with key [0-9a-f]{8}, .*Nothing was changed", done.stderr)
            assert not any(key in done.stderr for key in (right, wrong))
        alive = run(tmp_path, "accounts", "check", KIMI_SECRET_KEY=right, **hosts)
        assert (alive.returncode, alive.stderr) == (0, "")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in ("serve", "simulate"):
            done = run(tmp_path, command, "--port", str(port))
            assert (done.returncode, done.stdout) == (2, "")
            assert f"Port {port} on 127.0.0.1 is in use" in done.stderr
            assert "--port" in done.stderr


def test_a_host_that_is_not_ours(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--host", "192.0.2.1", "--port", str(free_port()))
    assert (done.returncode, done.stdout) == (2, "")
    assert "192.0.2.1" in done.stderr


@pytest.mark.parametrize("command", ["serve", "chat", "models", "doctor"])
def test_a_simulated_credential_never_meets_the_real_service(tmp_path: Path, command: str) -> None:
    with SimulatorServer() as simulator:
        token = simulator.login(user="ada")["refresh_token"]
    more = {"serve": ["--port", str(free_port())], "chat": ["Hi"], "models": ["--live"], "doctor": []}[command]
    # Any connection would go to this closed port and say so.
    proxy = f"http://127.0.0.1:{free_port()}"
    done = run(tmp_path, command, *more, KIMI_TOKEN=token, HTTPS_PROXY=proxy, HTTP_PROXY=proxy)
    said = done.stdout + done.stderr
    assert done.returncode == (1 if command == "doctor" else 2), said
    assert re.search(r"built-in simulator.* is not sent to (https://)?(www|auth)\.kimi\.(ai|com)\b", said)
    assert "KIMI_BASE_URL" in said
    assert "Traceback" not in said
    assert token.split(".")[1] not in said


def test_help_and_usage(tmp_path: Path) -> None:
    shown = run(tmp_path)
    assert "serve" in shown.stdout + shown.stderr
    assert run(tmp_path, "serve", "--help").returncode == 0
    wrong = run(tmp_path, "serve", "--port", "99999")
    assert wrong.returncode == 2
    assert "--port" in wrong.stderr
