"""The benchmark still runs; how fast is its own business."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.loop import Curves

from ..harness import ROOT


def measured(*names: str) -> str:
    """The table of a short run."""
    only = [word for name in names for word in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", *only],
        cwd=ROOT,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_the_decoder_figure_prints_its_table() -> None:
    table = measured("decoder")
    assert "decoder per frame, text" in table
    assert "decoder per frame, mixed" in table


def test_the_service_is_asked_no_more_than_needed_before_an_answer_begins() -> None:
    """A count, not a time: it is the same on every machine."""
    rows = [line for line in measured("trips").splitlines() if "round trips, " in line and "limit" not in line]
    assert [line.split()[2:4] for line in rows if "ours:" not in line] == [["Connect", "1.00"], ["REST", "2.00"]]


def test_both_curves_are_plotted() -> None:
    """At the first turns they are one."""
    turns = range(1, 13)
    plot = Curves(continuing=(1024,) * 12, flattening=tuple(turn * 1024 for turn in turns)).plot().splitlines()
    assert plot[1] == "    12 |           o"
    assert plot[6] == "     7 |      o     "
    assert plot[12] == "     1 |o***********"
    assert plot[13] == "  turn 1          12"
