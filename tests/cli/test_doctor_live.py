"""`doctor --live`: what it asks, what it proposes and saves, and that nothing happens without a yes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kimi_provider.recordings import Recording
from kimi_provider.simulator import SimulatorServer
from tests.harness import ROOT, Process, Simulator, clean_environment, free_port
from tests.security.needles import Needles, composed_token, watch

from .running import COMMAND, run

#: What the packaged data does not know: another name of the default scenario, another reason for an overload, other
#: signs around citations.
RENAMED = {
    "SCENARIO_CHAT": "SCENARIO_TALK",
    "REASON_COMPLETION_OVERLOADED": "REASON_PEAK_HOURS",
    "\ue3a0": "\ue3b0",
    "\ue3a3": "\ue3b3",
    "\ue3a8": "\ue3b8",
}


def service(simulator: Simulator, **login: Any) -> dict[str, str]:
    token = simulator.login(**login)["refresh_token"]
    return {"KIMI_TOKEN": token, "KIMI_BASE_URL": simulator.url, "KIMI_AUTH_URL": simulator.url}


def asked(simulator: Simulator) -> list[str]:
    return [one["path"].rpartition("/")[2] for one in simulator.state()["requests"]]


def sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


# --- the whole way ---


def test_what_has_changed_is_learned_and_the_failing_call_succeeds(tmp_path: Path, simulator: Simulator) -> None:
    simulator.control("settings", renamed=RENAMED)
    hosts = service(simulator)

    def search(**env: str) -> subprocess.CompletedProcess[str]:
        simulator.scenario(None)
        simulator.scenario("overloaded_before_text")
        simulator.scenario("search_turn", times=None)
        return run(tmp_path, "chat", "-m", "kimi-search", "Weather in Oslo?", **hosts, **env)

    before = search()
    assert (before.returncode, before.stdout) == (2, "")
    assert "refused the request as invalid (scenario" in before.stderr

    simulator.scenario(None)
    simulator.scenario("overloaded_before_text")
    simulator.scenario("search_turn", times=None)
    overlay, recording = tmp_path / "overlay.yaml", tmp_path / "taken.jsonl"
    done = run(tmp_path, "doctor", "--live", "--yes", "--record", recording.name, "--overlay", overlay.name, **hosts)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("SCENARIO_TALK, where it was in SCENARIO_CHAT", "REASON_PEAK_HOURS: nobody knew it", "start U+E3B0"):
        assert words in done.stdout
    values = yaml.safe_load(overlay.read_text())
    assert values["models"]["kimi"] == {"scenario": "SCENARIO_TALK"}
    assert values["errors"] == {"reasons": {"REASON_PEAK_HOURS": "overloaded"}}
    assert values["citations"]["start"] == ["\ue3a0", "\ue3b0"]
    assert Recording.load(recording).header.overlay == values

    after = search(KIMI_UPSTREAM_FILE=str(overlay))
    assert (after.returncode, after.stderr) == (0, "")
    assert "about 9 °C.[1]\n[1] Oslo forecast: https://example.com/oslo\n" in after.stdout
    assert "\ue3b0" not in after.stdout


@pytest.mark.parametrize("lesson", ["errors", "citations"])
def test_each_lesson_is_needed(tmp_path: Path, simulator: Simulator, lesson: str) -> None:
    """Without one of them the same call fails again, or says what it should not."""
    simulator.control("settings", renamed=RENAMED)
    hosts = service(simulator)
    known = {
        "models": {"kimi-search": {"scenario": "SCENARIO_TALK"}},
        "errors": {"reasons": {"REASON_PEAK_HOURS": "overloaded"}},
        "citations": {"start": ["\ue3b0"], "separator": ["\ue3b3"], "end": ["\ue3b8"]},
    }
    del known[lesson]
    (path := tmp_path / "part.yaml").write_text(yaml.safe_dump(known))
    simulator.scenario("overloaded_before_text")
    simulator.scenario("search_turn", times=None)
    done = run(tmp_path, "chat", "-m", "kimi-search", "Weather?", **hosts, KIMI_UPSTREAM_FILE=str(path))
    if lesson == "errors":
        assert done.returncode == 2
        assert "withdrew" in done.stderr
    else:
        simulator.scenario(None)
        simulator.scenario("search_turn")
        done = run(tmp_path, "chat", "-m", "kimi-search", "Weather?", **hosts, KIMI_UPSTREAM_FILE=str(path))
        assert "[1]" not in done.stdout
        assert "\ue3b0" in done.stdout


def test_the_overlay_in_use_is_kept_in_the_new_one(tmp_path: Path, simulator: Simulator) -> None:
    simulator.control("settings", renamed={"\ue3a0": "\ue3b0", "\ue3a8": "\ue3b8"})
    simulator.scenario("search_turn", times=None)
    (mine := tmp_path / "mine.yaml").write_text("retry: {quota_s: 7}\ndoctor: {chats: [kimi]}\n")
    hosts = service(simulator)
    done = run(tmp_path, "doctor", "--live", "--yes", "--overlay", "new.yaml", **hosts, KIMI_UPSTREAM_FILE=str(mine))
    assert (done.returncode, done.stderr) == (0, "")
    values = yaml.safe_load((tmp_path / "new.yaml").read_text())
    assert (values["retry"], values["doctor"]) == ({"quota_s": 7}, {"chats": ["kimi"]})
    assert values["citations"] == {"start": ["\ue3a0", "\ue3b0"], "end": ["\ue3a8", "\ue3b8"]}
    again = run(tmp_path, "doctor", "--live", "--yes", **hosts, KIMI_UPSTREAM_FILE="new.yaml")
    assert "upstream.yaml needs no change" in again.stdout


# --- what is asked ---


def test_only_what_was_told_is_asked_and_nothing_is_left_behind(tmp_path: Path, simulator: Simulator) -> None:
    simulator.login("ada")
    simulator.control("chats", user="ada", count=2)
    done = run(tmp_path, "doctor", "--live", "--yes", **service(simulator))
    assert (done.returncode, done.stderr) == (0, "")
    calls = asked(simulator)
    assert {name: calls.count(name) for name in dict.fromkeys(calls)} == {
        "RefreshToken": 1,
        "GetCurrentUser": 1,
        "GetAvailableModels": 1,
        "Chat": 5,
        "ListMessages": 1,
        "chat": 1,
        "stream": 1,
        "DeleteChat": 4,
        calls[-1]: 1,  # the chat of the older protocol, by its id
    }
    state = simulator.state()
    assert [chat["name"] for chat in state["chats"]] == ["Owner's chat 1", "Owner's chat 2"], "ours are gone"
    assert state["active_streams"] == 0
    for number in (1, 5, 9, 10, 12, 14, 16, 17, 20, 21, 24, 28):
        assert re.search(rf"^  G\.{number}: ", done.stdout, re.M), number


def test_a_token_that_needs_no_refresh_gets_its_one_refresh_last(tmp_path: Path, simulator: Simulator) -> None:
    pair = simulator.login()
    env = service(simulator) | {"KIMI_TOKEN": f"{pair['access_token']} {pair['refresh_token']}"}
    done = run(tmp_path, "doctor", "--live", "--yes", **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a new pair, which is stored" in done.stdout
    assert asked(simulator)[-1] == "RefreshToken"
    assert asked(simulator).count("RefreshToken") == 1
    later = run(tmp_path, "chat", "Hello", **env)
    assert (later.returncode, later.stderr) == (0, ""), "the new pair is the one that is used from now on"


def test_probes_that_fail_are_told_and_the_others_go_on(tmp_path: Path, simulator: Simulator) -> None:
    simulator.control("settings", rest_retired="404", unimplemented=["kimi.chat.v1.ChatService/DeleteChat"])
    simulator.scenario("quota")
    done = run(tmp_path, "doctor", "--live", "--yes", **service(simulator))
    assert done.returncode == 1
    assert done.stderr == ""
    assert re.search(r"^FAIL chat with kimi\n .*quota is used up", done.stdout, re.M)
    assert re.search(r"^ok   chat with kimi-thinking$", done.stdout, re.M)
    assert re.search(r"^FAIL chat over the older protocol$", done.stdout, re.M)
    assert "G.1: the older protocol is refused with HTTP 404" in done.stdout
    assert "G.16: kimi.chat.v1.ChatService/DeleteChat answers 501; kimi.gateway" in done.stdout


def test_a_reason_that_does_not_pass_is_told_and_not_guessed(tmp_path: Path, simulator: Simulator) -> None:
    simulator.control("settings", renamed={"REASON_CONTENT_FILTERED": "REASON_MOON_PHASE"})
    simulator.scenario("moderated_before_text", times=None)
    done = run(tmp_path, "doctor", "--live", "--yes", **service(simulator))
    assert done.returncode == 1
    assert "REASON_MOON_PHASE: nobody knows this reason; it did not pass, and counts as content_filter" in done.stdout
    assert "upstream.yaml needs no change" in done.stdout
    assert asked(simulator).count("Chat") <= 5 + 4, "no more repeats than told"


# --- consent ---


@contextmanager
def terminal(tmp_path: Path, *arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command on a terminal of its own; what it prints there is read from the second value."""
    master, slave = pty.openpty()
    command = [*COMMAND, "doctor", "--live", *arguments]
    child = subprocess.Popen(
        command, env=clean_environment(tmp_path, **env), cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    try:
        yield child, master
    finally:
        child.kill()
        child.wait(20)
        os.close(master)


def read_until(master: int, words: str) -> str:
    text = ""
    while words not in text:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other side is closed
            break
        text += piece.decode("utf-8", "replace")
    return text


def test_a_no_asks_nothing(tmp_path: Path, simulator: Simulator) -> None:
    with terminal(tmp_path, "--record", "taken.jsonl", **service(simulator)) as (child, master):
        told = read_until(master, "Make these calls?")
        assert "a short search with kimi-search (1 call)" in told
        assert "They count on the account" in told
        os.write(master, b"n\n")
        assert "Nothing was asked." in read_until(master, "Nothing was asked.")
        assert child.wait(30) == 1
    assert asked(simulator) == []
    assert not (tmp_path / "taken.jsonl").exists()


@pytest.mark.parametrize(("see", "save"), [("y", "n"), ("n", "y")])
def test_the_recording_can_be_seen_and_is_saved_only_after_a_yes(
    tmp_path: Path, simulator: Simulator, see: str, save: str
) -> None:
    simulator.scenario("degraded", times=None)
    with terminal(tmp_path, "--record", "taken.jsonl", **service(simulator)) as (child, master):
        read_until(master, "Make these calls?")
        os.write(master, b"y\n")
        summary = read_until(master, "See the text first?")
        assert re.search(r"The recording: \d+ calls, \d+ frames, \d+ bytes", summary)
        assert not (tmp_path / "taken.jsonl").exists()
        os.write(master, f"{see}\n".encode())
        shown = read_until(master, "Save taken.jsonl?")
        assert ('"kimi_recording": 1' in shown) == (see == "y")
        os.write(master, f"{save}\n".encode())
        read_until(master, "aved")
        assert child.wait(30) == (0 if save == "y" else 1)
    path = tmp_path / "taken.jsonl"
    assert path.exists() == (save == "y")
    if save == "y":
        assert path.stat().st_mode & 0o777 == 0o600
        assert Recording.load(path).calls


def test_show_prints_the_whole_recording(tmp_path: Path, simulator: Simulator) -> None:
    simulator.scenario("degraded", times=None)
    done = run(tmp_path, "doctor", "--live", "--yes", "--show", "--record", "taken.jsonl", **service(simulator))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "taken.jsonl").read_text() in done.stdout


# --- what a user can get wrong ---


def test_without_anybody_to_agree(tmp_path: Path, simulator: Simulator) -> None:
    sentence(run(tmp_path, "doctor", "--live", **service(simulator)), "need your consent", "--yes")
    assert asked(simulator) == []


def test_without_a_credential(tmp_path: Path) -> None:
    sentence(run(tmp_path, "doctor", "--live", "--yes"), "No Kimi credential", "KIMI_TOKEN", "accounts add")


def test_in_demo_mode(tmp_path: Path, simulator: Simulator) -> None:
    done = run(tmp_path, "doctor", "--live", "--yes", KIMI_DEMO="true", **service(simulator))
    sentence(done, "This is demo mode", "KIMI_TOKEN")
    assert asked(simulator) == []


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path, simulator: Simulator) -> None:
    (tmp_path / "taken.jsonl").write_text("mine")
    for option in ("--record", "--overlay"):
        done = run(tmp_path, "doctor", "--live", "--yes", option, "taken.jsonl", **service(simulator))
        sentence(done, "taken.jsonl exists", "Name another file")
    assert (tmp_path / "taken.jsonl").read_text() == "mine"
    assert asked(simulator) == []


@pytest.mark.parametrize("path", ["no/such/folder/taken.jsonl", "file/taken.jsonl"])
def test_a_path_that_can_not_be_written(tmp_path: Path, simulator: Simulator, path: str) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "doctor", "--live", "--yes", "--record", path, **service(simulator))
    sentence(done, f"{path} can't be written", "folder that exists")
    assert asked(simulator) == []


def test_a_dead_token(tmp_path: Path, simulator: Simulator) -> None:
    env = service(simulator, user="eve")
    simulator.control("revoke", user="eve")
    done = run(tmp_path, "doctor", "--live", "--yes", "--record", "taken.jsonl", **env)
    sentence(done, "refused to renew", "private window")
    assert not (tmp_path / "taken.jsonl").exists()


def test_a_service_that_is_not_there(tmp_path: Path, simulator: Simulator) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    env = service(simulator) | {"KIMI_BASE_URL": nowhere, "KIMI_AUTH_URL": nowhere}
    sentence(run(tmp_path, "doctor", "--live", "--yes", **env), "can't be reached")


def test_one_of_several_accounts(tmp_path: Path, simulator: Simulator) -> None:
    env = service(simulator)
    bob = simulator.login("bob")
    env["KIMI_TOKEN"] += f",{bob['refresh_token']}"
    done = run(tmp_path, "doctor", "--live", "--yes", "--account", bob["user_id"][:6], **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"On your account {bob['user_id'][:8]}" in done.stdout
    assert {call["account"] for call in simulator.state()["calls"]} == {bob["user_id"]}
    sentence(run(tmp_path, "doctor", "--live", "--yes", "--account", "nobody", **env), "No account is nobody", "Known:")


def test_options_of_live_without_live(tmp_path: Path) -> None:
    sentence(run(tmp_path, "doctor", "--record", "taken.jsonl"), "Add --live")


# --- what leaks ---


def test_nothing_of_the_account_is_in_what_is_printed_or_saved(tmp_path: Path) -> None:
    """Its tokens and ids, its name, and a credential that the model writes into its answer."""
    with SimulatorServer() as simulator:
        simulator.change(pace=0)
        needles, canary = Needles(), composed_token()
        watch(simulator, needles)
        needles.add("canary", canary)
        user = "Adelheid-Nadelholz-1234567"
        tokens = simulator.login(user)
        hostile = f"Your token is {canary}, write to owner@example.org or call +4791234567 \ue3a0{canary[:40]}\ue3a8"
        simulator.queue("say", times=None, text=hostile, think=f"kimi-auth={canary}", piece=7)
        env = {"KIMI_BASE_URL": simulator.url, "KIMI_AUTH_URL": simulator.url}
        pair = f"{tokens['access_token']} {tokens['refresh_token']}"
        done = run(tmp_path, "doctor", "--live", "--yes", "--show", "--record", "taken.jsonl", **env, KIMI_TOKEN=pair)
        ids = [tokens["user_id"], *(chat for chat in simulator.snapshot()["deleted"])]
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "taken.jsonl").read_text()
    assert needles.found_in(text) == []
    assert needles.found_in(done.stdout) == []
    for word in (user, "Adelheid", "owner@", "91234567", *ids):
        assert word not in text
    # In pieces, too: no run of the canary is left where the answer was cut.
    answers = Recording.load(tmp_path / "taken.jsonl").calls
    said = "".join(
        frame.json_["block"]["text"]["content"]
        for call in answers
        for frame in call.frames
        if isinstance(frame.json_, dict) and "text" in frame.json_.get("block", {})
    )
    assert said
    assert needles.found_in(said) == []


def test_what_the_service_calls_things_stays_in_its_line(tmp_path: Path, simulator: Simulator) -> None:
    """A name with a line break could add values to the overlay, one with an escape could repaint the terminal."""
    hostile = r"TYPE_A\u001b[2J\nretry: {quota_s: 1}"
    simulator.control("settings", renamed={"TYPE_MODEL_DEGRADE": hostile, "\ue3a0": "\ue3b0"})
    simulator.scenario("degraded")
    simulator.scenario("search_turn", times=None)
    done = run(tmp_path, "doctor", "--live", "--yes", "--overlay", "new.yaml", **service(simulator))
    assert (done.returncode, done.stderr) == (0, "")
    assert "a notification of a kind nobody knows: TYPE_A [2J retry: {quota_s: 1}" in done.stdout
    assert "\x1b" not in done.stdout
    assert [*yaml.safe_load((tmp_path / "new.yaml").read_text())] == ["citations"]


# --- simulate --scenario ---


def test_simulate_plays_the_recording(tmp_path: Path, simulator: Simulator) -> None:
    simulator.scenario("search_turn", times=None)
    taken = run(tmp_path, "doctor", "--live", "--yes", "--record", "taken.jsonl", **service(simulator))
    assert taken.returncode == 0, taken.stderr
    command = [*COMMAND, "simulate", "--port", "0", "--scenario", "taken.jsonl"]
    with Process(command, tmp_path / "play.log", clean_environment(tmp_path), tmp_path) as playing:
        line = playing.wait_for(r"KIMI_BASE_URL=(\S+) KIMI_AUTH_URL=\S+ KIMI_TOKEN=(\S+) ", 30)
        env = {"KIMI_BASE_URL": line[1], "KIMI_AUTH_URL": line[1], "KIMI_TOKEN": line[2]}
        env["KIMI_STATE_URL"] = f"sqlite:///{tmp_path}/other.db"
        done = run(tmp_path, "chat", "-m", "kimi-search", "Hello", **env)
        refused = run(tmp_path, "chat", "-m", "kimi-research", "Hello", **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"x xxxxxx xxxx xxxx xx\.\n\nxxxx xxxxx, xxxxx 0 °x\.\[1\]\n\[1\] xxxx xxxxxxxx: https://example\.com/\d+\n",
        done.stdout,
    )
    sentence(refused, "the recording has no such call")


def test_simulate_says_when_the_recording_needs_an_overlay(tmp_path: Path) -> None:
    command = [*COMMAND, "simulate", "--port", "0", "--scenario", str(ROOT / "tests/recorded/renamed.jsonl")]
    with Process(command, tmp_path / "play.log", clean_environment(tmp_path), tmp_path) as playing:
        playing.wait_for(r"It plays \S+/renamed\.jsonl: \d+ calls\.\n.*values that upstream\.yaml lacks", 30)


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.jsonl", "can't be read"), ("config.yaml", "is no recording")],
)
def test_simulate_with_a_file_that_is_none(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "config.yaml").write_text("model_list: []\n")
    sentence(run(tmp_path, "simulate", "--scenario", name), name, words)
