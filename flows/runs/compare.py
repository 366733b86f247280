"""`edgeloop runs compare`: two runs side by side, in the terminal and as a page."""

from __future__ import annotations

import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.errors import BadInputError
from device_bench.screen import wide_console
from flows.compression.report_files import run_samples
from flows.runs.folders import find_run
from flows.runs.report import finished
from pipeline.report import write_comparison
from pipeline.report.comparison_words import (
    comparison_rows,
    condition_rows,
    plan_rows,
    run_rows,
    speed_in_words,
)
from pipeline.run_comparison import RunComparison, TargetComparison, compare_results


def compare_runs(names: tuple[str, str], runs: Path, html: Path | None, *, as_json: bool) -> int:
    """Show what the second run found beside what the first did; `html`: a page to write as well.

    Raises:
        BadInputError: one of them is not there or not finished, or both are the same.
        RunError: the page cannot be written.
    """
    paths = [find_run(name, runs) for name in names]
    if paths[0].resolve() == paths[1].resolve():
        raise BadInputError(f"{names[0]} and {names[1]} are the same run, {paths[0].name}; give two")
    a, b = map(finished, paths)
    found = compare_results(a, b)
    if html is not None:
        write_comparison((a, b), (run_samples(paths[0], a), run_samples(paths[1], b)), html)
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
        return 0
    console = wide_console()
    _show(console, found)
    if html is not None:
        _say(console, f"as a page: {html}")
    return 0


def _show(console: Console, found: RunComparison) -> None:
    _say(console, f"A: {found.a}\nB: {found.b}")
    _say(console, "; ".join(f"{what}: {a} and {b}" for what, a, b in run_rows(found)))
    if not found.same_model_and_data:
        _say(console, "The two are of different models or data: scores do not compare.")
    for name, one in found.targets.items():
        console.print()
        console.print(_table(name, one, found.metric))
        _remark(console, one)
    for letter, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            _say(console, f"only in {letter}: {', '.join(names)}")


def _table(name: str, found: TargetComparison, metric: str) -> Table:
    """The chosen files' figures."""
    table = Table(title=escape(name), title_justify="left", title_style="bold")
    table.box, table.pad_edge, table.show_edge = box.SIMPLE_HEAD, False, False
    table.add_column("chosen file")
    for heading in ("A", "B", "B to A"):
        table.add_column(heading, justify="right")
    for row in comparison_rows(found, metric):
        table.add_row(*map(escape, row))
    return table


def _remark(console: Console, found: TargetComparison) -> None:
    """What the figures mean, which plans they are of, and what else was different."""
    _say(console, speed_in_words(found))
    if found.same_plan:
        _say(console, "Both chose the same plan.")
    for unit, a, b in plan_rows(found):
        _say(console, f"  {unit}: {a} in A, {b} in B")
    for what, a, b in condition_rows(found):
        _say(console, f"{what}: {a} in A, {b} in B")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
