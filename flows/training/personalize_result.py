"""What `edgeloop personalize` found: the record in `personalized/result.json`, and the table."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from device_bench.protocol import Record


class PersonalizedTarget(Record):
    """One target's INT8 file before and after, in percent of the query, and what it keeps of the run's data.

    `change_low` and `change_high`: 95 % interval of the rise. `search_*`: on the run's own search split, in
    the run's metric, before and after. `prepared`: the learner started from weights prepared on made-up
    users, not from the run's own. `files`: in the run's folder; empty where nothing was kept.
    """

    query_before: float
    query_after: float
    change_low: float
    change_high: float
    search_before: float
    search_after: float
    inner_rate: float
    prepared: bool
    kept: bool
    files: tuple[str, ...] = ()


class Personalization(Record):
    """The whole of `personalized/result.json`."""

    run_id: str
    samples: str
    learner: str
    episodes: int
    steps: int
    shots: int
    support: int
    query: int
    seed: int
    targets: dict[str, PersonalizedTarget]


def show_personalization(console: Console, found: Personalization, folder: Path) -> None:
    """A table of before and after, and where the files are."""
    how = f"{found.learner}, {found.episodes} made-up users, {found.shots} shots a class"
    table = Table(title=f"INT8 files on your query samples: {how}", title_justify="left", title_style="bold")
    table.add_column("target", overflow="fold")
    for heading in ("before %", "after %", "change (95 %)", "run's data", "kept"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in found.targets.items():
        table.add_row(
            name,
            f"{one.query_before:.1f}",
            f"{one.query_after:.1f}",
            f"{one.query_after - one.query_before:+.1f} ({one.change_low:+.1f} … {one.change_high:+.1f})",
            f"{one.search_before:.1f} → {one.search_after:.1f}",
            "yes" if one.kept else "no",
        )
    console.print(table)
    for name, one in found.targets.items():
        if not one.kept:
            why = "worse on the query; use the run's own model"
            console.print(f"[yellow]not kept[/yellow] on {name}: {why}", highlight=False)
    summary = f"{found.support} samples to adapt to, {found.query} to judge by; {folder}:"
    console.print(summary, highlight=False, soft_wrap=True, markup=False)
    for one in found.targets.values():
        for file in one.files:
            console.print(f"  {file}", highlight=False, markup=False)
