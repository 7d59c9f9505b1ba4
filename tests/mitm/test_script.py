"""`mitmdump -s script.py` in an environment that has mitmproxy and not our package."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from .rig import CANARY, GATEWAY_KEY, ROOT, Loop, Server
from .world import until

MITMDUMP = "import sys; from mitmproxy.tools.main import mitmdump; sys.exit(mitmdump())"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the libraries of this environment, but without the paths that make our package known."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    # A folder named in a .pth file is searched, but the .pth files in it are not read.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin/python"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The addon's folder alone, somewhere else."""
    shutil.copytree(
        ROOT / "mitm_addon", tmp_path / "elsewhere/mitm_addon", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path / "elsewhere/mitm_addon/script.py"


@pytest.fixture
def gateway() -> Iterator[Server]:
    loop = Loop()
    server = Server(loop)
    yield server
    server.stop()
    loop.stop()


def command(python: Path, script: Path, tmp_path: Path, *options: str) -> list[str]:
    sets = [part for option in options for part in ("--set", option)]
    confdir = ("--set", f"confdir={tmp_path / 'conf'}")
    return [str(python), "-c", MITMDUMP, "-s", str(script), "--listen-host", "127.0.0.1", "-p", "0", *confdir, *sets]


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KIMI_GATEWAY_KEY": GATEWAY_KEY, "PYTHONUNBUFFERED": "1"}


def test_the_environment_does_not_have_our_package(python: Path, tmp_path: Path) -> None:
    ask = "import mitmproxy, importlib.util as u; print(u.find_spec('mitm_addon'), u.find_spec('litellm'))"
    done = subprocess.run([str(python), "-c", ask], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "None None\n", done.stderr


def test_it_redirects_and_logs_no_key(python: Path, script: Path, tmp_path: Path, gateway: Server) -> None:
    log = tmp_path / "mitmdump.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command(python, script, tmp_path, f"kimi_gateway={gateway.url}", "kimi_strict=true"),
            env=environment(tmp_path), cwd=tmp_path, stdout=out, stderr=out,
        ) as child,
    ):  # fmt: skip
        until(lambda: child.poll() is not None or "listening at" in log.read_text(), "mitmdump does not start")
        found = re.search(r"listening at 127\.0\.0\.1:(\d+)", log.read_text())
        assert found, log.read_text()
        curl = ["curl", "-sS", "--cacert", str(tmp_path / "conf/mitmproxy-ca-cert.pem")]
        curl += ["--proxy", f"http://127.0.0.1:{found[1]}", "-H", f"x-goog-api-key: {CANARY}", "-d", '{"contents":[]}']
        base = "https://generativelanguage.googleapis.com"
        for path, wanted in (
            ("/v1beta/models/gemini-3.1-pro:generateContent", '{"answered":true}'),
            ("/upload/files", "strict mode"),
        ):
            url = f"{base}{path}?key={CANARY}"
            done = subprocess.run(
                [*curl, url], capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]}
            )
            assert wanted in done.stdout, (done, log.read_text())
        child.send_signal(signal.SIGTERM)
        child.wait(30)
    assert gateway.wait_for(1).target == "/v1beta/models/kimi:generateContent"
    assert CANARY.encode() not in gateway.raw
    for key in (CANARY, GATEWAY_KEY):
        assert key not in log.read_text()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("stream_large_bodies=1m", "stream_large_bodies can't be used together with the redirector"),
        ("body_size_limit=10m", "body_size_limit can't be used together with the redirector"),
        ("kimi_gateway=nonsense", "must be scheme, host and port"),
        ("kimi_routes=/none.toml", "/none.toml can't be read"),
    ],
)
def test_it_does_not_start_with_options_that_break_it(
    python: Path, script: Path, tmp_path: Path, option: str, said: str
) -> None:
    done = subprocess.run(
        command(python, script, tmp_path, option),
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stdout + done.stderr


def test_its_options_have_help(python: Path, script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*command(python, script, tmp_path), "--options"],
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    for name in ("kimi_gateway", "kimi_routes", "kimi_strict", "kimi_fall_through", "kimi_unlist_pinned"):
        assert re.search(rf"^# .{{20,}}\n(# .*\n)*{name}:", done.stdout, re.M), done.stderr


def test_this_interpreter_is_the_proxys_own() -> None:
    assert "litellm" not in sys.modules
