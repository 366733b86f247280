"""Shows a profile as a table in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.protocol import Profile
from device_bench.screen import wide_console

OTHER = "other"
_BAR_CELLS = 10
# What borders, times, shares and bars take of a line.
_FIXED_CELLS = 43
_LEAST_ROOM = 12


def show_profile(
    title: str, profile: Profile, *, slowest_first: bool = False, console: Console | None = None
) -> None:
    """Print each operator with its time and its share of the whole, what is left, and every warning."""
    console = console or wide_console()
    table = Table(title=title, title_justify="left")
    table.add_column("operator", no_wrap=True)
    table.add_column("name", no_wrap=True)
    for heading in ("ms", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    operators = profile.operators
    room = console.width - _FIXED_CELLS - max(len(each.operator) for each in operators)
    if slowest_first:
        operators = tuple(sorted(operators, key=lambda each: each.ms, reverse=True))
    for each in operators:
        figures = _figures(each.ms, profile.whole_ms)
        table.add_row(escape(each.operator), escape(_end_of(each.name, room)), *figures)
    table.add_row(OTHER, "", *_figures(profile.other_ms, profile.whole_ms), style="dim", end_section=True)
    table.add_row("whole", profile.method, *_figures(profile.whole_ms, profile.whole_ms), style="bold")
    console.print(table)
    for warning in profile.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


def _end_of(name: str, room: int) -> str:
    """What tells operators apart is at the end of their names; the beginning is the same for all."""
    room = max(room, _LEAST_ROOM)
    return name if len(name) <= room else "…" + name[1 - room :]


def _figures(ms: float, whole_ms: float) -> tuple[str, str, str]:
    """Time, share and a bar as long as the share."""
    share = ms / whole_ms
    return f"{ms:.4f}", f"{share:.1%}", "█" * round(max(0.0, min(1.0, share)) * _BAR_CELLS)
