"""How a benchmark says what was asked, what it measured and whether that was reached."""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Figure(NamedTuple):
    """One line of the table asked / measured / reached. `details`: the numbers behind `measured`."""

    what: str
    asked: str
    measured: str
    reached: bool
    details: dict[str, object]


def show(figures: list[Figure], title: str) -> None:
    """Draw the table."""
    table = Table("what", "asked", "measured", "reached", title=title)
    for figure in figures:
        table.add_row(figure.what, figure.asked, figure.measured, "yes" if figure.reached else "NO")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def finish(figures: list[Figure], title: str, as_json: bool) -> int:
    """Print JSON or the table; exit code 1 if anything was missed."""
    if as_json:
        print(json.dumps([figure._asdict() for figure in figures], indent=2))
    else:
        show(figures, title)
    return 0 if all(figure.reached for figure in figures) else 1
