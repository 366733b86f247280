"""`edgeloop runs compare`: two runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.errors import BadInputError
from flows.runs.folders import find_run
from flows.runs.report import finished
from pipeline.report.wording import bytes_text, duration, milliseconds, signed
from pipeline.result import Speedup
from pipeline.run_comparison import RunComparison, TargetComparison, compare_results

NOTHING = "—"


def compare_runs(first: str, second: str, runs: Path, *, as_json: bool) -> int:
    """Show what the second run found beside what the first did.

    Raises:
        BadInputError: one of them is not there or not finished, or both are the same.
    """
    paths = (find_run(first, runs), find_run(second, runs))
    if paths[0].resolve() == paths[1].resolve():
        raise BadInputError(f"{first} and {second} are the same run, {paths[0].name}; give two")
    found = compare_results(finished(paths[0]), finished(paths[1]))
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
        return 0
    _show(Console(), found)
    return 0


def _show(console: Console, found: RunComparison) -> None:
    _say(console, f"A: {found.a}\nB: {found.b}")
    spent = [NOTHING if value is None else duration(value) for value in (found.seconds.a, found.seconds.b)]
    _say(console, f"trials: {found.trials.a:.0f} and {found.trials.b:.0f}; time: {spent[0]} and {spent[1]}")
    if not found.same_model_and_data:
        _say(console, "The two are of different models or data: scores do not compare.")
    for name, one in found.targets.items():
        console.print()
        console.print(_table(name, one, found.metric))
        for line in _remarks(one):
            _say(console, line)
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
    met = ["met" if one else "missed" for one in found.budget_met]
    speeds = [NOTHING if one is None else _speedup(one) for one in found.speedup_vs_plain_int8]
    difference = (found.score.b or 0.0) - (found.score.a or 0.0)
    table.add_row("budget", *met, "")
    table.add_row(escape(metric), f"{found.score.a:.2f}", f"{found.score.b:.2f}", _plus(difference))
    table.add_row("lost", f"{signed(found.lost.a or 0.0, 2)}", f"{signed(found.lost.b or 0.0, 2)}", "")
    table.add_row("vs plain INT8", *speeds, "" if found.faster is None else _speedup(found.faster))
    for heading, pair, text in (
        ("p50", found.p50_ms, milliseconds),
        ("p50 of plain INT8", found.plain_p50_ms, milliseconds),
        ("peak memory", found.peak_memory_bytes, _bytes),
        ("file", found.artifact_bytes, _bytes),
    ):
        values = [NOTHING if value is None else text(value) for value in (pair.a, pair.b)]
        table.add_row(heading, *values, "" if pair.ratio is None else f"{pair.ratio:.2f}×")
    return table


def _remarks(found: TargetComparison) -> list[str]:
    """What the figures mean, which plans they are of, and what else was different."""
    lines = []
    if found.faster is not None:
        lines.append(_faster_in_words(found.faster))
    else:
        lines.append(
            "The p50s were taken at two times, and plain INT8 is not the same file in both runs: how much of "
            "the difference is the machine's is not known. `edgeloop bench FILE --compare FILE` tells."
        )
    if found.same_plan:
        lines.append("Both chose the same plan.")
    for unit, pair in found.kept.items():
        lines.append(f"  {unit}: {_share(pair.a)} in A, {_share(pair.b)} in B")
    lines += [
        f"{name}: {words.a or NOTHING} in A, {words.b or NOTHING} in B"
        for name, words in found.conditions.items()
    ]
    return lines


def _faster_in_words(found: Speedup) -> str:
    if found.low <= 1.0 <= found.high:
        return (
            "By way of plain INT8, measured in the same rounds by each run, no difference in speed is shown."
        )
    way = "faster" if found.ratio > 1 else "slower"
    factor = found.ratio if found.ratio > 1 else 1 / found.ratio
    return (
        f"By way of plain INT8, which each run measured in the same rounds, B's file is {factor:.2f}× {way}."
    )


def _share(kept: float | None) -> str:
    return "removed" if not kept else f"{100 * kept:.0f} %"


def _speedup(found: Speedup) -> str:
    return f"{found.ratio:.2f}× ({found.low:.2f}–{found.high:.2f})"


def _plus(value: float) -> str:
    return f"+{value:.2f}" if value > 0 else signed(value, 2)


def _bytes(value: float) -> str:
    return bytes_text(int(value))


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
