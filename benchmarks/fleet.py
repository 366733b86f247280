"""What a fleet costs: a visit to a board, reading and judging a history, keeping it.

    python benchmarks/fleet.py [--visits 5] [--history 365] [--json]

The board is an agent of this machine on loopback, so `board_seconds` are those of this machine; the time this
process computes for each visit is what a controller pays, however slow its boards are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from device_bench.client import AgentBench
from device_bench.connection import AgentAddress
from device_bench.known_models import KNOWN_MODELS
from device_bench.pinned import fetch_certificate
from device_bench.protocol import Failure, RuntimeName
from device_bench.wire import Pairing
from pipeline.fleet.history import FleetMeasurement, Watched
from pipeline.fleet.history_store import HistoryStore
from pipeline.fleet.rounds import findings_of
from pipeline.fleet.visit import visit

SERVE = "from device_bench.cli import main; main()"


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--history", type=int, default=365)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made, seconds, own_seconds = _visits(Path(folder), given.visits)
        figures = {
            "visits": len(made),
            "board_seconds_per_visit": seconds / len(made),
            "controller_cpu_seconds_per_visit": own_seconds / len(made),
            "bytes_per_visit": sum(len(one.model_dump_json()) for one in made) / len(made),
            **_history(Path(folder) / "store.sqlite", made[0], given.history),
        }
    if given.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name:36s} {value:.4g}")
    return 0


def _visits(folder: Path, count: int) -> tuple[list[FleetMeasurement], float, float]:
    words = [sys.executable, "-c", SERVE]
    init = [*words, "init", "--state", str(folder / "agent"), "--name", "127.0.0.1", "--json"]
    pairing = Pairing.from_line(json.loads(subprocess.check_output(init))["pairing"])
    serve = [*words, "serve", "--state", str(folder / "agent"), "--host", "127.0.0.1", "--port", "0"]
    with (folder / "log").open("wb") as log:
        agent = subprocess.Popen(serve, stdout=log, stderr=log, env=dict(os.environ))
    try:
        url = _url(folder / "log", agent)
        certificate = fetch_certificate(url, pairing.fingerprint)
        bench = AgentBench(AgentAddress(url=url, token=pairing.token, certificate=certificate))
        model = next(m.path for m in KNOWN_MODELS if m.file == "float.tflite")
        watched = Watched(
            release="net",
            sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
            device="board",
            runtime=RuntimeName.LITERT,
        )
        made: list[FleetMeasurement] = []
        started, busy = time.monotonic(), time.process_time()
        for number in range(count):
            found = visit(bench, model, watched, f"round-{number}", lambda: datetime.now(UTC))
            if isinstance(found, Failure):
                sys.exit(f"{found.kind}: {found.message}")
            made.append(found)
        return made, time.monotonic() - started, time.process_time() - busy
    finally:
        agent.terminate()
        agent.wait()


def _url(log: Path, agent: subprocess.Popen[bytes]) -> str:
    while agent.poll() is None:
        found = re.search(r"serving on (https://\S+:\d+),", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    sys.exit(f"the agent did not start: {log.read_text()}")


def _history(store: Path, visited: FleetMeasurement, days: int) -> dict[str, float]:
    """A year of daily visits to one board, written and judged."""
    with HistoryStore(store) as history:
        started = time.monotonic()
        for day in range(days):
            update = {"round_id": f"day-{day}", "measured_at": visited.measured_at + timedelta(days=day)}
            history.add(visited.model_copy(update=update))
        written = time.monotonic() - started
        # Once for the libraries.
        findings_of(history, [visited.watched])
        started = time.monotonic()
        findings_of(history, [visited.watched])
        judged = time.monotonic() - started
    return {
        "write_ms_per_visit": 1000 * written / days,
        f"judge_ms_of_{days}_visits": 1000 * judged,
        "store_bytes_per_visit": store.stat().st_size / days,
    }


if __name__ == "__main__":
    sys.exit(main())
