"""The benchmark still runs; how fast is its own business."""

from __future__ import annotations

import os
import subprocess
import sys

from ..harness import ROOT


def test_the_decoder_figure_prints_its_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", "decoder"],
        cwd=ROOT,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    assert "decoder per frame, text" in done.stdout
    assert "decoder per frame, mixed" in done.stdout
