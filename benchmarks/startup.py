"""How long a command line takes to help, and a run to reach its first trial.

    python benchmarks/startup.py [--repeats 7]

The first trial's time is that of the embedded default (cnn on digits), Prefect's temporary server included,
with the model's weights in the cache.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

HELP_LIMITS = {"edgeloop": 0.5, "device-bench": 0.3}
FIRST_TRIAL_LIMIT = 25.0


def help_seconds(program: str, repeats: int) -> float:
    """Median seconds of `program --help`."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([program, "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def first_trial_seconds() -> float:
    """Seconds from the command to the first line of trials.jsonl; the run is then interrupted."""
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        run = subprocess.Popen(
            ["edgeloop", "compress", "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while run.poll() is None:
                if any(log.stat().st_size for log in Path(out).glob("*/trials.jsonl")):
                    return time.perf_counter() - started
                time.sleep(0.05)
        finally:
            run.terminate()
            run.wait(timeout=60)
    raise SystemExit("the run ended before its first trial")


def main() -> int:
    """Measure and print; exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    rows = [
        (f"{program} --help", help_seconds(program, repeats), limit) for program, limit in HELP_LIMITS.items()
    ]
    first_trial_seconds()  # fills the caches: the limit is that of a warm machine
    rows.append(("command to first trial", first_trial_seconds(), FIRST_TRIAL_LIMIT))
    table = Table("what", "seconds", "limit")
    for what, seconds, limit in rows:
        table.add_row(what, f"{seconds:.2f}", f"{limit:.1f}")
    Console().print(table)
    return 0 if all(seconds <= limit for _, seconds, limit in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
