"""Every figure of docs/measuring.md, in one go: about 20 minutes on a machine that does nothing else.

    python benchmarks/measuring.py [--core N] [--markdown] [--json]

`overhead.py` is bound to one core (the last one); `busy.py` and `agent.py` go where the system puts them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from figures import Figure, finish

# Script and whether it is bound to one core.
_SCRIPTS = {"overhead.py": True, "busy.py": False, "agent.py": False}
_FOLDER = Path(__file__).parent


def figures_of(script: str, cores: set[int]) -> list[Figure]:
    """Run one benchmark on these cores and read its figures."""
    os.sched_setaffinity(0, cores)
    print(f"{script} ...", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, _FOLDER / script, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        return [Figure(**fields) for fields in json.loads(done.stdout)]
    except ValueError as error:
        raise SystemExit(f"{script} ended with {done.returncode} and no figures") from error


def markdown(figures: dict[str, list[Figure]]) -> str:
    """The table of docs/measuring.md."""
    lines = ["| what | asked | measured | command |", "|---|---|---|---|"]
    for script, rows in figures.items():
        for row in rows:
            missed = "" if row.reached else " **missed**"
            lines.append(
                f"| {row.what} | {row.asked} | {row.measured}{missed} | `python benchmarks/{script}` |"
            )
    return "\n".join(lines)


def main() -> int:
    """Measure and print; exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = os.sched_getaffinity(0)
    parser.add_argument("--core", type=int, default=max(cores), help="where overhead.py runs")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/measuring.md")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = {
        script: figures_of(script, {given.core} if bound else cores) for script, bound in _SCRIPTS.items()
    }
    rows = [row for found in figures.values() for row in found]
    if given.markdown:
        print(markdown(figures))
        return 0 if all(row.reached for row in rows) else 1
    return finish(rows, "Measuring", given.json)


if __name__ == "__main__":
    sys.exit(main())
