"""What a person sees while a run goes on, and the table at its end."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.result import Entry, RunResult, TargetResult


class Screen:
    """A live line per stage: what it is, how far, what is best so far, and the time left.

    Where output is not a terminal, each stage's beginning and end is one plain line instead.
    """

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self._folder = folder
        self._best = ""
        self._task: TaskID | None = None
        self._name = ""
        self._total = 1.0
        self._progress = Progress(
            TextColumn("[bold]{task.description:<10}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self._live = Live(self._drawn(), console=console, refresh_per_second=4, transient=True)
        self._alive = console.is_terminal
        self._told = -1
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        self._console.print(f"run folder: {self._folder}")
        if self._alive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alive:
            self._live.stop()

    def stage(self, name: str, total: float) -> None:
        """A stage begins; the one before it is finished."""
        self._finish()
        self._name, self._total, self._told = name, max(total, 1e-9), -1
        self._task = self._progress.add_task(name, total=total, text="")
        if not self._alive:
            self._console.print(f"{name} …", highlight=False)
        self._draw()

    def advance(self, done: float, text: str = "") -> None:
        """`done` steps of the stage are finished."""
        if self._task is None:
            return
        self._progress.update(self._task, completed=done, text=text)
        quarter = int(4 * done / self._total)
        if not self._alive and quarter > self._told:
            self._told = quarter
            self._console.print(
                f"  {self._name}: {text or f'{100 * done / self._total:.0f} %'}", highlight=False
            )
        self._draw()

    def best(self, text: str) -> None:
        """The best so far stands below the stages."""
        self._best = text
        if not self._alive:
            self._console.print(f"  best so far: {text}", highlight=False)
        self._draw()

    def note(self, text: str) -> None:
        """A note stays on the screen above the live lines, and goes into the report."""
        self.notes.append(text)
        self._console.print(f"note: {text}", highlight=False)

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=self._total)
            self._progress.stop_task(self._task)

    def _draw(self) -> None:
        if self._alive:
            self._live.update(self._drawn())

    def _drawn(self) -> Group:
        return Group(self._progress, Text(f"best so far: {self._best}" if self._best else "", style="green"))


def show_result(console: Console, result: RunResult, folder: Path) -> None:
    """A table of float, plain INT8 and chosen for each target, the verdict, and the files."""
    console.print()
    for name, found in result.targets.items():
        console.print(_table(name, found, result.metric))
    if result.budget_met:
        console.print("[green]budget met[/green] on every target")
    for name, found in result.targets.items():
        for miss in found.misses:
            console.print(f"[yellow]budget missed[/yellow] on {name}: {miss}")
    console.print(f"{result.trials} trials in {result.seconds:.0f} s; files in {folder}:")
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        console.print(f"  {path.name}", highlight=False)


def _table(name: str, found: TargetResult, metric: str) -> Table:
    table = Table(title=name, title_justify="left", title_style="bold")
    table.add_column("artifact")
    for heading in (metric, "p50 ms", "p90 ms", "peak MiB", "KiB", "vs plain INT8"):
        table.add_column(heading, justify="right", no_wrap=True)
    speed = found.speedup_vs_plain_int8
    ratio = "" if speed is None else f"{speed.ratio:.2f}× ({speed.low:.2f}–{speed.high:.2f})"
    rows = [
        ("float", found.float, ""),
        ("plain INT8", found.plain_int8, "1.00×"),
        ("chosen", found.chosen, ratio),
    ]
    for label, entry, versus in rows:
        if entry is not None:
            table.add_row(*_cells(label, entry, versus))
    return table


def _cells(label: str, entry: Entry, versus: str) -> tuple[str, ...]:
    return (
        label + ("" if entry.settled else " *did not settle*"),
        f"{entry.accuracy:.2f}",
        f"{entry.p50_ms:.3f}",
        f"{entry.p90_ms:.3f}",
        f"{entry.peak_memory_bytes / 2**20:.1f}",
        f"{entry.artifact_bytes / 2**10:.0f}",
        versus,
    )
