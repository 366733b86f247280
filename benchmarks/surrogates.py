"""How well the surrogates of recorded tables rank plans that they have not seen.

    python benchmarks/surrogates.py [--json FILE]

Prints for every table Spearman's rank correlation by five-fold cross-validation over whole plans, of accuracy
and of the latency in each setting, and the shares that reach 0.9 and 0.95.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from device_bench.storage import write_whole
from pipeline.tables.fidelity import Fidelity, fidelity_of
from pipeline.tables.task_table import TaskTable

TABLES = Path(__file__).parents[1] / "policies" / "tables"
WANTED_ACCURACY, WANTED_LATENCY = 0.9, 0.95


def table_of(found: list[Fidelity]) -> Table:
    """One row a recorded table."""
    settings = sorted({name for one in found for name in one.latency})
    table = Table(title="Rank correlation on unseen plans")
    for title in ("table", "plans", "accuracy", *settings):
        table.add_column(title, justify="left" if title == "table" else "right")
    for one in found:
        latency = [f"{one.latency[name]:.3f}" if name in one.latency else "–" for name in settings]
        table.add_row(one.name, str(one.plans), f"{one.accuracy:.3f}", *latency)
    return table


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    console = Console()
    paths = sorted(TABLES.glob("*.safetensors"))
    found = [fidelity_of(TaskTable.load(path)) for path in track(paths, "tables", console=console)]
    console.print(table_of(found))
    accurate = [one.accuracy >= WANTED_ACCURACY for one in found]
    fast = [value >= WANTED_LATENCY for one in found for value in one.latency.values()]
    console.print(
        f"accuracy at least {WANTED_ACCURACY}: {sum(accurate)} of {len(accurate)} tables; "
        f"latency at least {WANTED_LATENCY}: {sum(fast)} of {len(fast)} columns"
    )
    if given.json is not None:
        write_whole(given.json, json.dumps([one.model_dump() for one in found], indent=2).encode() + b"\n")


if __name__ == "__main__":
    main()
