"""`kimi-mitm run`: the tool's environment, terminal, signals and end, and what is left."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitm_addon import cli

from .rig import CANARY, GATEWAY_KEY
from .world import MITM, World, lives, until

PYTHON = sys.executable
CURL = ("curl", "-sS", "-X", "POST", "-d", '{"model":"gpt-5"}', "https://api.openai.com/v1/responses")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made
    assert GATEWAY_KEY.encode() not in made.origin.raw
    assert made.left_behind() == []
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert CANARY.encode() not in content, path
            assert GATEWAY_KEY.encode() not in content, path


def test_a_call_is_redirected_and_nothing_else_is_printed(world: World) -> None:
    done = world.run(*CURL, "-H", f"authorization: Bearer {CANARY}")
    assert (done.returncode, done.stdout) == (0, '{"answered":true}')
    assert done.stderr.splitlines() == [
        f"kimi-mitm: Answers come from Kimi by way of {world.gateway.url}, not from OpenAI, Anthropic or Google; check "
        "your tool's terms."
    ]
    call = world.gateway.wait_for(1)
    assert call.headers["authorization"] == f"Bearer {GATEWAY_KEY}"
    assert json.loads(call.body) == {"model": "kimi"}
    assert CANARY.encode() not in world.gateway.raw
    assert (world.origin.tcp, world.company.asked) == (0, [])


def test_what_passes_takes_the_companys_proxy(world: World) -> None:
    for url in ("https://api.openai.com/v1/files", "https://unlisted.example/x"):
        done = world.run("curl", "-sS", url)
        assert (done.returncode, done.stdout) == (0, '{"answered":true}')
    assert world.company.asked == ["api.openai.com", "unlisted.example"]
    assert [call.target for call in world.origin.calls] == ["/v1/files", "/x"]


def test_plain_http_is_redirected_past_the_companys_proxy(world: World) -> None:
    assert world.run("curl", "-sS", "-d", "{}", "http://api.openai.com/v1/responses").stdout == '{"answered":true}'
    assert world.gateway.wait_for(1).target == "/v1/responses"
    assert world.company.asked == []


def test_a_companys_proxy_with_a_password(world: World) -> None:
    named = world.company.url.replace("http://", "http://me%40here:p%3Aw@")
    world.company.password = "me@here:p:w"
    done = world.run("curl", "-sS", "https://unlisted.example/x", env={"HTTPS_PROXY": "", "ALL_PROXY": named})
    assert done.stdout == '{"answered":true}', done.stderr


def test_the_environment_of_a_tool(world: World) -> None:
    (extra := world.folder / "extra.pem").write_text("# the user's own\n")
    mine = {"OPENAI_API_KEY": "mine", "no_proxy": "intern.example", "ALL_PROXY": "socks5://x:1"}
    script = "import json,os,stat;f=os.path.dirname(os.environ['SSL_CERT_FILE']);print(json.dumps([dict(os.environ),"
    script += "os.stat(f).st_mode,{n:open(os.environ[n]).read() for n in ('SSL_CERT_FILE','NODE_EXTRA_CA_CERTS')}]))"
    done = world.run(
        PYTHON,
        "-c",
        script,
        env={**mine, "NO_PROXY": "*,intern.example,.openai.com", "NODE_EXTRA_CA_CERTS": str(extra)},
    )
    env, mode, files = json.loads(done.stdout)
    assert stat.S_IMODE(mode) == 0o700
    proxy = env["HTTPS_PROXY"]
    assert proxy.startswith("http://kimi:")
    assert "@127.0.0.1:" in proxy
    assert {env[name] for name in ("https_proxy", "HTTP_PROXY", "http_proxy")} == {proxy}
    assert env["NO_PROXY"] == env["no_proxy"] == "localhost,127.0.0.1,::1,intern.example"
    assert env["NODE_USE_ENV_PROXY"] == "1"
    replacing = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CODEX_CA_CERTIFICATE", "GIT_SSL_CAINFO"]
    replacing += ["PIP_CERT", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]
    assert len({env[name] for name in replacing}) == 1
    assert env["DENO_CERT"] == env["NODE_EXTRA_CA_CERTS"] != env["SSL_CERT_FILE"]
    # Ours is in both; the company's roots and the user's extra stay trusted.
    company = world.roots.read_text().strip()
    assert company in files["SSL_CERT_FILE"]
    assert "# the user's own" in files["SSL_CERT_FILE"]
    assert "# the user's own" in files["NODE_EXTRA_CA_CERTS"]
    assert files["NODE_EXTRA_CA_CERTS"].split("# the")[0].strip() in files["SSL_CERT_FILE"]
    assert company not in files["NODE_EXTRA_CA_CERTS"]
    assert env["OPENAI_API_KEY"] == "mine"
    assert "CODEX_API_KEY" not in env
    for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY", "XAI_API_KEY"):
        assert "dummy" in env[name]
    assert "ALL_PROXY" not in env
    assert GATEWAY_KEY not in done.stdout


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("there-is-no-such-command",), 127),
    ],
)
def test_exit_codes(world: World, command: tuple[str, ...], code: int) -> None:
    done = world.run(*command)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_streams_belong_to_the_tool(world: World) -> None:
    done = world.run("sh", "-c", "cat; echo problem >&2", input="from stdin\n")
    assert done.stdout == "from stdin\n"
    assert "problem\n" in done.stderr


def test_a_tool_that_made_no_connection_is_pointed_out(world: World) -> None:
    assert "made no connection through the proxy" in world.run("true").stderr


def test_a_gateway_that_is_down_is_said_first(world: World) -> None:
    world.gateway.stop()
    done = world.run(*CURL)
    assert "Nothing answers at" in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "kimi_mitm_gateway_down"
    assert world.origin.tcp == 0


def test_a_tool_that_does_not_trust_the_ca_is_pointed_out(world: World) -> None:
    done = world.run(*CURL, "--cacert", str(world.roots))
    assert done.returncode == 60
    assert "refuses our certificate for api.openai.com" in done.stderr
    assert world.origin.tcp == 0


_COUNT = """
import os, signal, sys, time
seen = []
def note(number, frame):
    seen.append(number)
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"):
    signal.signal(getattr(signal, name), note)
os.write(1, f"ready {os.getpid()} {os.isatty(0)}\\n".encode())
while not any(n in (signal.SIGTERM, signal.SIGHUP) for n in seen):
    signal.pause()
os.write(1, f"{len(seen)} in all\\n".encode())
sys.exit(5)
"""


def test_signals_are_passed_on(world: World) -> None:
    with world.start("run", "--", PYTHON, "-c", _COUNT, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready")
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            child.send_signal(number)
            assert child.stdout.readline() == f"got {number.name}\n"
        assert child.stdout.readline() == "3 in all\n"
        assert child.wait(30) == 5


def test_control_c_of_a_terminal_reaches_the_tool_once(world: World) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(world.folder)
        os.execve(MITM[0], [*MITM, "run", "--", PYTHON, "-c", _COUNT], world.env)
    seen = b""

    def read_until(wanted: bytes) -> None:
        nonlocal seen
        while wanted not in seen:
            seen += os.read(terminal, 4096)

    read_until(b"True\r\n")
    os.write(terminal, b"\x03")
    read_until(b"got SIGINT\r\n")
    os.kill(pid, signal.SIGTERM)
    read_until(b"in all\r\n")
    assert b"2 in all" in seen
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)


def test_nothing_is_left_after_kill_9(world: World) -> None:
    script = f"import subprocess,sys; p=subprocess.Popen([sys.executable,'-c',{_COUNT!r}]); p.wait()"
    with world.start("run", "--", PYTHON, "-c", script, stdin=-1) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline().split()[1])
        assert len(world.left_behind()) == 2
        child.kill()
        child.wait(30)
        until(lambda: not world.left_behind(), "a folder or the janitor stays")
        until(lambda: not lives(grandchild), "a process of the tool stays")


def test_an_unfinished_call_does_not_keep_it(world: World) -> None:
    world.gateway.stepwise = True
    done = world.run("sh", "-c", f"curl -sS -m 1 -d '{{\"stream\":true}}' {CURL[-1]}; exit 3")
    assert done.returncode == 3
    assert world.gateway.wait_for(1).gone.wait(30)


@pytest.mark.parametrize(
    ("shell", "line", "removed"),
    [
        ("sh", "export NODE_USE_ENV_PROXY='1'", "unset KIMI_GATEWAY_KEY"),
        ("fish", "set -gx NODE_USE_ENV_PROXY '1'", "set -e KIMI_GATEWAY_KEY"),
        ("powershell", "$env:NODE_USE_ENV_PROXY='1'", "Remove-Item Env:KIMI_GATEWAY_KEY -ErrorAction SilentlyContinue"),
    ],
)
def test_print_env(world: World, shell: str, line: str, removed: str) -> None:
    with world.start("run", "--print-env", shell) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        lines = []
        while not lines or "DEEPSEEK_API_KEY" not in lines[-1]:
            lines.append(child.stdout.readline().rstrip("\n"))
        assert {line, removed} <= set(lines)
        if shell == "sh":
            (script := world.folder / "env.sh").write_text("\n".join(lines))
            done = subprocess.run(
                ["sh", "-c", '. ./env.sh; exec "$@"', "sh", *CURL],
                cwd=world.folder, env=world.env, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.stdout == '{"answered":true}', (done.stderr, script)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("run", "--", "true"), {"KIMI_GATEWAY_KEY": ""}, "No key of the gateway"),
        (("run", "--", "true"), {"KIMI_GATEWAY_KEY": "not a header"}, "characters that no header can carry"),
        (("run", "--gateway", "gateway:4000", "--", "true"), {}, "must be scheme, host and port"),
        (("run", "--gateway", "https://api.openai.com", "--", "true"), {}, "in circles"),
        (("run", "--routes", "none.toml", "--", "true"), {}, "none.toml can't be read"),
        (("run", "--strict", "--fall-through", "--", "true"), {}, "Choose one"),
        (("run", "--max-body-mb", "0", "--", "true"), {}, "kimi_max_body_mb"),
        (("run", "--unlist-pinned", "-1", "--", "true"), {}, "kimi_unlist_pinned"),
        (("run",), {}, "run needs a command"),
        (("run", "claude", "-p", "x"), {}, "kimi-mitm run -- claude -p x"),
        (("run", "--", "true"), {"HTTPS_PROXY": "socks5://127.0.0.1:1"}, "only http and https"),
        (("run", "--", "true"), {"HTTPS_PROXY": "http://127.0.0.1:port"}, "no address that can be used"),
        (("serve", "--listen", "0.0.0.0"), {}, "set KIMI_MITM_PASSWORD"),
        (("serve", "--listen", "0.0.0.0"), {"KIMI_MITM_PASSWORD": "short"}, "12 characters"),
        (("serve",), {"KIMI_MITM_PASSWORD": "with a space and @"}, "may hold letters"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    env: dict[str, str],
    said: str,
) -> None:
    here = {"HOME": str(tmp_path), "KIMI_GATEWAY_URL": "http://127.0.0.1:1", "KIMI_GATEWAY_KEY": GATEWAY_KEY}
    for name, value in (here | env).items():
        monkeypatch.setenv(name, value)
    for name in ("LITELLM_MASTER_KEY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    try:
        code = cli.main(arguments)
    except SystemExit as exc:  # argparse's own way
        code = exc.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_the_key_that_serve_keeps_is_found(world: World) -> None:
    path = world.folder / ".local/state/kimi-provider/gateway.key"
    path.parent.mkdir(parents=True)
    path.write_text("sk-kept\n")
    assert world.run(*CURL, env={"KIMI_GATEWAY_KEY": ""}).returncode == 0
    assert world.gateway.wait_for(1).headers["authorization"] == "Bearer sk-kept"


def test_an_env_file_in_the_folder_changes_nothing(world: World) -> None:
    (world.folder / ".env").write_text("KIMI_GATEWAY_URL=http://127.0.0.1:1\nKIMI_GATEWAY_KEY=sk-other\n")
    assert world.run(*CURL).stdout == '{"answered":true}'
    assert world.gateway.wait_for(1).headers["authorization"] == f"Bearer {GATEWAY_KEY}"


def test_serve_keeps_its_ca_and_password(world: World) -> None:
    seen = []
    for _ in range(2):
        with world.start("serve", "--port", "0") as child:
            assert child.stderr is not None
            assert "Answers come from Kimi" in child.stderr.readline()
            assert "Listening on 127.0.0.1:" in child.stderr.readline()
            assert "Ctrl-C stops" in child.stderr.readline()
            script = world.folder / ".local/state/kimi-provider/mitm/env.sh"
            assert stat.S_IMODE(script.stat().st_mode) == 0o600
            assert stat.S_IMODE(script.parent.stat().st_mode) == 0o700
            done = subprocess.run(
                ["sh", "-c", f'. {script}; exec "$@"', "sh", *CURL],
                env=world.env, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.stdout == '{"answered":true}', done.stderr
            if not seen:
                refused = subprocess.run(
                    ["sh", "-c", f'. {script}; exec "$@"', "sh", *CURL, "--cacert", str(world.roots)],
                    env=world.env, capture_output=True, text=True, timeout=60,
                )  # fmt: skip
                assert refused.returncode == 60
                assert "refuses our certificate for api.openai.com" in child.stderr.readline()
            password = script.read_text().split("http://kimi:")[1].split("@")[0]
            seen.append((password, (script.parent / "mitmproxy-ca.pem").read_bytes()))
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == 0
    assert seen[0] == seen[1]


def test_listening_for_other_devices_says_whose_they_must_be(world: World) -> None:
    # An address of nobody: nothing is opened.
    done = world.mitm("serve", "--listen", "192.0.2.1", env={"KIMI_MITM_PASSWORD": "long-enough-12345"})
    assert done.returncode == 2
    assert "Only for devices that you administer, with the knowledge of the people" in done.stderr
