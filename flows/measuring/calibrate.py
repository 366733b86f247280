"""`edgeloop calibrate`: makes the latency model of a target and says how far off it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from device_bench.errors import BadInputError
from device_bench.screen import wide_console
from exporters.calibration import Calibrator, summarize
from pipeline.latency_model.records import Errors, Summary
from pipeline.latency_model.store import CalibrationFile, calibration_path
from pipeline.target import find_target
from pipeline.target_bench import bench_for, check_real

# Compressed copies of each network of the zoo that the model is judged by.
CHECK_PLANS = 3


def calibrate_target(name: str, minutes: float, *, resume: bool, as_json: bool) -> int:
    """Measure designed nets on the target for that long, then compressed models of the zoo, and show errors.

    Returns:
        0.

    Raises:
        BadInputError: an unknown target, an emulated one, or one that takes no INT8 files; no time; a
            calibration that cannot be gone on with.
        RunError: the target cannot measure.
    """
    if not minutes > 0:
        raise BadInputError(f"minutes must be above 0; got {minutes:g}")
    target = find_target(name)
    console = wide_console(stderr=as_json)
    check_real(target)
    path = calibration_path(target.name)
    with _progress(console, minutes * 60) as (tell, step):
        calibrator = Calibrator(target, bench_for(target, tell), tell)
        file = calibrator.open(path, resume=resume)
        step("nets", minutes * 60)
        calibrator.measure_nets(file, minutes * 60)
        step("zoo", None)
        calibrator.measure_checks(file, CHECK_PLANS)
        step("fit", None)
        tell(f"cross-validating {len(file.of_role('train'))} nets")
        summary = summarize(file)
    if as_json:
        sys.stdout.write(summary.model_dump_json(indent=2) + "\n")
    show_summary(console, file, summary)
    return 0


def show_summary(console: Console, file: CalibrationFile, summary: Summary) -> None:
    """Errors of each kind of net and on the zoo, and where the calibration lies."""
    header = file.header
    table = Table(
        title=f"latency model of {header.target} ({header.runtime.value} {header.runtime_version}, "
        f"{header.threads} thread(s))",
        title_justify="left",
    )
    for heading in ("judged by", "models", "±5 %", "±10 %", "±20 %", "median error", "bias", "rank"):
        table.add_column(heading, justify="left" if heading == "judged by" else "right")
    for kind, errors in summary.by_kind.items():
        table.add_row(*_row(f"nets: {kind}", errors), end_section=kind == "all")
    for family, errors in summary.by_family.items():
        table.add_row(*_row(f"compressed: {family}", errors))
    console.print(table)
    low, high = summary.spread
    console.print(
        f"Nets are cross-validated; nothing is learned from compressed models. Nine of ten nets took "
        f"{low:.2f} to {high:.2f} times what was predicted.",
        highlight=False,
    )
    console.print(f"Kept at {file.path}", highlight=False, markup=False, soft_wrap=True)


def _row(name: str, errors: Errors) -> tuple[str, ...]:
    rank = "" if errors.spearman is None else f"{errors.spearman:.3f}"
    shares = (f"{share:.0%}" for share in (errors.within_5, errors.within_10, errors.within_20))
    return (name, str(errors.nets), *shares, f"{errors.median:.1%}", f"{errors.bias:+.1%}", rank)


Tell = Callable[[str], None]
Step = Callable[[str, float | None], None]


@contextmanager
def _progress(console: Console, seconds: float) -> Iterator[tuple[Tell, Step]]:
    """A bar that runs with the time given to the nets; `tell` changes its text, `step` its stage."""
    columns = (
        TextColumn("{task.fields[stage]}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("the first net", total=seconds, stage="start")
        started = time.monotonic()

        def tell(text: str) -> None:
            progress.update(task, description=text, completed=time.monotonic() - started)

        def step(stage: str, total: float | None) -> None:
            nonlocal started
            started = time.monotonic()
            progress.reset(task, total=total, stage=stage)

        yield tell, step
