"""Where the time of one trial goes: ResNet-20, plan to measurement, without recovery.

    python benchmarks/trial_cost.py --data-root DATA [--plans 6]

Each plan is random, so no shape was measured before. The limit is 6 s beyond the accuracy evaluation on ONNX
Runtime. The traced exports of the original are made before the clock starts, as in a run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from exporters.candidates import ShapeBench
from pipeline.data import load_dataset
from pipeline.model import load_model
from pipeline.plan import CompressionPlan
from pipeline.search import Workbench
from pipeline.space import PlanSpace
from pipeline.target import find_target
from pipeline.task import ModelSpec, Task
from pipeline.tracing import trace

LIMIT_SECONDS = 6.0


def workbench(root: Path, target: str, folder: Path) -> Workbench:
    """ResNet-20 with its weights, ready for trials on one target."""
    dataset = load_dataset("cifar10-jpeg", root)
    weights = str(root / "weights" / "resnet20_cifar10_jpeg.safetensors")
    spec = ModelSpec(
        source="resnet20", weights=weights, input_shape=dataset.input_shape, outputs=dataset.outputs
    )
    module = load_model(spec)
    graph = trace(module, spec.input_shape)
    found = find_target(target)
    bench = ShapeBench(module, graph, (found,), dataset.calibration(), folder)
    task = Task(model=spec, data=dataset.name, targets=(found,))
    return Workbench(task, dataset, module, graph, PlanSpace.of(graph, found.width_step), bench)


def main() -> int:
    """Measure and print; exit code 1 if the limit is missed on ONNX Runtime."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--plans", type=int, default=6)
    given = parser.parse_args()
    table = Table("target", "build s", "export s", "measure s", "beyond accuracy s", "accuracy s", "limit s")
    worst = 0.0
    for name in ("local-onnxruntime", "local-litert"):
        with tempfile.TemporaryDirectory() as folder:
            bench = workbench(given.data_root, name, Path(folder))
            bench.bench.measure(bench.module, CompressionPlan())
            rng = np.random.default_rng(0)
            rows = [one(bench, bench.space.sample(rng)) for _ in range(given.plans)]
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        beyond = medians[0] + medians[1] + medians[2]
        worst = max(worst, beyond) if name == "local-onnxruntime" else worst
        table.add_row(
            name, *(f"{value:.2f}" for value in (*medians[:3], beyond, medians[3])), f"{LIMIT_SECONDS:.0f}"
        )
    Console().print(table)
    return 0 if worst <= LIMIT_SECONDS else 1


def one(bench: Workbench, plan: CompressionPlan) -> tuple[float, float, float, float]:
    """Seconds of build, export, measurement and accuracy for one plan."""
    assert isinstance(bench.bench, ShapeBench)
    bench.bench.seconds.clear()
    started = time.monotonic()
    module = bench.build(plan)
    built = time.monotonic()
    bench.judge(module, bench.dataset.search)
    judged = time.monotonic()
    bench.bench.measure(module, plan)
    spent = bench.bench.seconds
    export = sum(seconds for what, seconds in spent.items() if what.startswith("export"))
    return built - started, export, time.monotonic() - judged - export, judged - built


if __name__ == "__main__":
    sys.exit(main())
