"""Rounds of figures -> a table with limits."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from .figures import Bed, Figure, Pair


async def run(figures: Sequence[Figure], rounds: int) -> bool:
    """Measure and print; whether every limit was met."""
    progress = Console(stderr=True, highlight=False)
    results: dict[str, list[Pair]] = {figure.name: [] for figure in figures}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kimi-bench-") as folder:
        bed = Bed(Path(folder))
        try:
            for number in range(1, rounds + 1):
                for figure in figures:
                    if figure.rounds is not None and number > figure.rounds:
                        continue
                    if sys.stderr.isatty():
                        progress.print(f"round {number}/{rounds}: {figure.title} ...", style="dim")
                    results[figure.name].append(await figure.measure(bed))
        finally:
            bed.stop()
    table, good = _table(figures, results)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    console.print(table)
    if bed.curves is not None:
        console.print(bed.curves.plot() + "\n", markup=False)
    console.print(
        f"ours: kimi/, theirs: openai/ on the same proxy (decoder: slicing + orjson; start: bare litellm; "
        f"memory: a provider that does nothing; round trips: an API of one call; "
        f"upload: the whole history in each message; "
        f"redirector: mitmdump with the least script). "
        f"Medians of {rounds} round{'s' * (rounds > 1)}, {time.monotonic() - began:.0f} s.",
        soft_wrap=True,
    )
    return good


def _table(figures: Sequence[Figure], results: dict[str, list[Pair]]) -> tuple[Table, bool]:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    for title in ("ours", "theirs", "ratio", "spread", "limit", ""):
        table.add_column(title, justify="right", no_wrap=True)
    good = True
    for figure in figures:
        pairs = results[figure.name]
        values = [figure.compared(pair) for pair in pairs]
        value = statistics.median(values)
        met = figure.met(value)
        good = good and met
        sign = "+" if figure.difference else ""
        table.add_row(
            figure.title,
            f"{_short(statistics.median(p[0] for p in pairs))} {figure.unit}",
            f"{_short(statistics.median(p[1] for p in pairs))} {figure.unit}",
            f"{value:{sign}.2f}",
            f"{min(values):{sign}.2f} .. {max(values):{sign}.2f}",
            figure.shown_limit,
            "ok" if met else "MISSED",
        )
    return table, good


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
