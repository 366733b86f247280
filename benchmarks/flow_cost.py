"""What Prefect costs: seconds of a task run that does nothing, on a temporary server here (SQLite).

python benchmarks/flow_cost.py [--tasks 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from flows.compression.start import prepare_prefect


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    server = prepare_prefect()
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    if server is not None:
        server.wait_ready()
    ready = time.monotonic() - began

    @task(cache_policy=NO_CACHE, persist_result=False)
    def nothing() -> None:
        return

    @flow
    def many() -> tuple[float, float]:
        nothing()
        started, busy = time.monotonic(), time.process_time()
        for _ in range(given.tasks):
            nothing()
        return time.monotonic() - started, time.process_time() - busy

    seconds, own = many()
    figures = {
        "server_start_seconds": ready,
        "task_run_ms": 1000 * seconds / given.tasks,
        "task_run_own_cpu_ms": 1000 * own / given.tasks,
    }
    if given.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name:24s} {value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
