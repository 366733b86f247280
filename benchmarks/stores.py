"""What a trial costs in the store: to write, by one process and by several at once, to read, and to keep.

    python benchmarks/stores.py [--store URL] [--trials 1000] [--writers 4] [--json]

Without --store it makes a SQLite file in a temporary folder. A database given by URL must be an empty one of
its own: what is written there stays.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from pipeline.database import store_status
from pipeline.database_link import DatabaseLink
from pipeline.experience import ExperienceStore, Trial
from pipeline.plan import CompressionPlan, UnitChoice


def trial(number: int) -> Trial:
    """A trial of a network with 20 units on two targets."""
    units = {f"layer{index // 6 + 1}.{index % 6}.conv1": UnitChoice(keep_ratio=0.5) for index in range(20)}
    return Trial(
        number=number,
        plan=CompressionPlan(units=units),
        origin="meta",
        accuracy=80.0 + number % 7,
        latency_ms={"pi4-litert": 1.0 / 3.0, "local-litert": 1.0 / 7.0},
        peak_memory_bytes={"pi4-litert": 4 << 20, "local-litert": 4 << 20},
        artifact_bytes={"pi4-litert": 300_000, "local-litert": 300_000},
        seconds={"build": 0.31, "measure": 2.14},
    )


def write(where: str, run: str, count: int) -> list[float]:
    """Seconds that each of `count` trials took to be kept."""
    seconds = []
    with ExperienceStore(where) as store:
        for number in range(count):
            made = trial(number)
            started = time.perf_counter()
            store.add(run, "task", made)
            seconds.append(time.perf_counter() - started)
    return seconds


def ready(where: str) -> None:
    """Load what a writer needs; long enough that each process of a pool is asked once."""
    with ExperienceStore(where):
        time.sleep(0.5)


def together(where: str, writers: int, count: int) -> tuple[float, list[float]]:
    """Trials a second of all writers together, and the seconds of each trial."""
    orders = [(where, f"of {writers}, {index}", count) for index in range(writers)]
    with multiprocessing.get_context("spawn").Pool(writers) as pool:
        # The processes are up before the clock runs.
        pool.map(ready, [where] * writers, chunksize=1)
        started = time.perf_counter()
        found = pool.starmap(write, orders, chunksize=1)
        wall = time.perf_counter() - started
    return writers * count / wall, [one for seconds in found for one in seconds]


def kept_bytes(where: str) -> int:
    """What the database takes on its disk."""
    link = DatabaseLink(where)
    try:
        with link.engine.connect() as connection:
            if link.is_file:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                return Path(where).stat().st_size
            return int(
                connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
            )
    finally:
        link.close()


def measure(where: str, count: int, writers: int) -> dict[str, float | int | str]:
    """Every figure of one store."""
    with ExperienceStore(where) as store:
        if store.entries():
            sys.exit(f"{store.where} has trials in it; give an empty database")
    empty = kept_bytes(where)
    alone = write(where, "alone", count)
    rate, crowded = together(where, writers, count // writers)
    grown = kept_bytes(where) - empty
    with ExperienceStore(where) as store:
        started = time.perf_counter()
        entries = store.entries()
        read = time.perf_counter() - started
    return {
        "store": store_status(where).where,
        "trials": len(entries),
        "write_p50_ms": 1e3 * statistics.median(alone),
        "write_p99_ms": 1e3 * statistics.quantiles(alone, n=100)[98],
        "writers": writers,
        "together_per_second": rate,
        "together_p50_ms": 1e3 * statistics.median(crowded),
        "read_us_per_trial": 1e6 * read / len(entries),
        "bytes_per_trial": round(grown / len(entries)),
    }


def main() -> None:
    """Measure one store and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", help="an empty database; default: a SQLite file")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = asked.store or str(Path(folder) / "experience.sqlite")
        found = measure(where, asked.trials, asked.writers)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:20s} {value:.3f}" if isinstance(value, float) else f"{name:20s} {value}")


if __name__ == "__main__":
    main()
