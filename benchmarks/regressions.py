"""Visits of the fleet benchmark on this machine: twenty without a change, then some of a slower file.

    python benchmarks/regressions.py --runtime litert --visits 20 --slower 1.15

The slower file computes the same network on a picture that is higher by so much that its MACs grow by the
factor that is asked for; its own slowdown is measured by interleaved rounds and printed beside what the
regression test says. Other work on the machine is part of the trial.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import stdev
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from device_bench.bench import LocalBench
from device_bench.protocol import BenchRequest, Comparison, Failure, RuntimeName
from exporters import exporter_for
from exporters.base import ArtifactMetadata
from pipeline.fleet.history import FleetMeasurement, Watched
from pipeline.fleet.regression import Figure, State, judge
from pipeline.fleet.visit import ROUNDS, visit
from pipeline.target import LOCAL_TARGETS
from pipeline.zoo import build

ROWS = 64


def main() -> int:
    """Make the visits and print what was found after each; 1 if it was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runtime", choices=["onnxruntime", "litert"], default="litert")
    parser.add_argument("--visits", type=int, default=20)
    parser.add_argument("--after", type=int, default=3)
    parser.add_argument("--slower", type=float, default=1.15)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    runtime = RuntimeName(given.runtime)
    with TemporaryDirectory() as folder:
        usual = _file(Path(folder) / "usual", runtime, ROWS)
        slower = _file(Path(folder) / "slower", runtime, round(ROWS * given.slower))
        planted = LocalBench().compare(_request(slower, runtime), _request(usual, runtime), ROUNDS)
        if not isinstance(planted, Comparison):
            print(f"the two files cannot be compared: {planted.message}")
            return 1
        visits = _visits(usual, runtime, given.visits, [], given.json)
        calm = visits[:]
        visits = _visits(slower, runtime, given.after, visits, given.json)
    alarms = sum(_state(calm[:end]) is State.WORSE for end in range(1, len(calm) + 1))
    caught = next(
        (k for k in range(1, given.after + 1) if _state(visits[: len(calm) + k]) is State.WORSE), None
    )
    spread = stdev(np.log([one.cost for one in calm]))
    if given.json:
        keys = {"alarms": alarms, "caught_after": caught, "spread": spread, "planted": planted.speedup}
        print(json.dumps(keys | {"runtime": runtime.value, "visits": len(calm)}, indent=1))
    else:
        print(f"{alarms} alarms in {len(calm)} visits without a change; spread {100 * spread:.1f} %")
        print(f"slower by {100 * (planted.speedup - 1):.1f} %: caught after {caught or 'no'} visits")
    return 0 if alarms == 0 and caught is not None else 1


def _state(visits: list[FleetMeasurement]) -> State:
    found = judge(visits, Figure.LATENCY)
    assert found is not None
    return found.state


def _visits(
    path: Path, runtime: RuntimeName, count: int, before: list[FleetMeasurement], quiet: bool
) -> list[FleetMeasurement]:
    name = Watched(release="net", sha256="0" * 64, device="local", runtime=runtime)
    visits = before[:]
    for _ in range(count):
        made = visit(LocalBench(), path, name, f"round-{len(visits)}", lambda: datetime.now(UTC))
        if isinstance(made, Failure):
            sys.exit(f"{made.kind}: {made.message}")
        visits.append(made)
        found = judge(visits, Figure.LATENCY)
        assert found is not None
        ratio = "" if found.ratio is None else f", {found.ratio:.3f} ({found.low:.3f}-{found.high:.3f})"
        line = f"{len(visits):3d}  p50 {made.measurement.latency.p50_ms:.4f} ms, beside the reference "
        if not quiet:
            print(f"{line}{made.cost:.3f}: {found.state}{ratio}", flush=True)
    return visits


def _request(path: Path, runtime: RuntimeName) -> BenchRequest:
    return BenchRequest(path=str(path), runtime=runtime)


def _file(folder: Path, runtime: RuntimeName, rows: int) -> Path:
    """A small network on pictures of so many rows, INT8."""
    torch.manual_seed(0)
    shape = (3, rows, 32)
    module: nn.Module = build("cnn", shape, 10).eval()
    form = LOCAL_TARGETS[f"local-{runtime.value}"].artifact_format
    samples = np.random.default_rng(0).random((8, *shape), dtype=np.float32)
    folder.mkdir()
    path = folder / f"model.{form}"
    exporter_for(form).export(module, path, "int8", samples, ArtifactMetadata())
    return path


if __name__ == "__main__":
    sys.exit(main())
