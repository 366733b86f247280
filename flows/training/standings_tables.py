"""Standings of policies as tables on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.tables.comparison import Interval
from pipeline.tables.contest import Contest, play
from pipeline.tables.standings import Standings


def played(contest: Contest, jobs: int, console: Console) -> Standings:
    """The contest, with a bar for who watches."""
    with Progress(
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", style="dim"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("loading", total=None)
        return play(
            contest,
            jobs,
            lambda done, total, last: bar.update(task, completed=done, total=total, description=last),
        )


def show_standings(console: Console, standings: Standings, *, each_task: bool) -> None:
    """Shares of the best known hypervolume: one table a task where asked, and their mean."""
    if each_task:
        for task in standings.tasks:
            console.print(_table(standings, task, [task]))
    title = f"mean over {len(standings.tasks)} tasks"
    console.print(_table(standings, title, standings.tasks))
    console.print(
        f"share of the best known hypervolume after so many trials, ± 95 % interval over {_seeds(standings)} "
        "seeds",
        style="dim",
    )


def _table(standings: Standings, title: str, tasks: Sequence[str]) -> Table:
    checkpoints = standings.checkpoints()
    table = Table("policy", *(f"{count}" for count in checkpoints), title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for policy in standings.policies:
        cells = [_cell(standings.mean(policy, count, tasks)) for count in checkpoints]
        table.add_row("/".join(Path(policy).parts[-2:]), *cells)
    return table


def _cell(found: Interval) -> str:
    reach = (found.high - found.low) / 2
    return f"{found.mean:.3f} ±{reach:.3f}" if reach >= 0.0005 else f"{found.mean:.3f}"


def _seeds(standings: Standings) -> int:
    return len({curve.seed for curve in standings.curves})
