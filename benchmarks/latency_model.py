"""How far off the latency model is on compressed models of the zoo that it never saw.

    edgeloop calibrate --target local-onnxruntime     # once; and local-litert
    python benchmarks/latency_model.py --plans 10

Plans are drawn at random for all families; their files are INT8 by both exporters. Prints a table, and writes
JSON with --json. Nothing here may be used to tune the model: for that, take another seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from device_bench.bench import LocalBench
from exporters.calibration import Calibrator, errors_by_kind
from pipeline.latency_model.store import CalibrationFile, calibration_path
from pipeline.target import LOCAL_TARGETS

HELD_OUT_SEED = 2026


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", action="append", choices=sorted(LOCAL_TARGETS), help="default: both")
    parser.add_argument(
        "--plans", type=int, default=10, help="compressed copies of each of the seven networks"
    )
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="of the plans")
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    report = {name: judge(name, chosen.plans, chosen.seed) for name in chosen.target or sorted(LOCAL_TARGETS)}
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def judge(name: str, plans: int, seed: int) -> dict[str, object]:
    """Measure held-out models on a target, print the errors and return them."""
    calibration = CalibrationFile.read(calibration_path(name))
    model = calibration.model()
    worker = Calibrator(LOCAL_TARGETS[name], LocalBench(), lambda text: None)
    with tempfile.TemporaryDirectory() as folder:
        held_out = worker.open(Path(folder) / "held-out.jsonl", resume=False)
        worker.measure_checks(held_out, plans, seed)
    nets = held_out.nets
    predictions = [model.predict(net.operators) for net in nets]
    found = errors_by_kind(nets, [prediction.ms for prediction in predictions])
    print(f"{name}: {len(calibration.of_role('train'))} nets learned from, {len(nets)} models held out")
    print("family       models   ±5 %  ±10 %  ±20 %  median    bias   rank")
    for family, errors in found.items():
        rank = "" if errors.spearman is None else f"{errors.spearman:.3f}"
        print(
            f"{family:12} {errors.nets:6} "
            f"{errors.within_5:6.0%} {errors.within_10:6.0%} {errors.within_20:6.0%} "
            f"{errors.median:7.1%} {errors.bias:+7.1%} {rank:>6}"
        )
    return {
        "header": held_out.header.model_dump(mode="json"),
        "errors": {family: errors.model_dump(mode="json") for family, errors in found.items()},
        "models": [
            {"name": net.name, "measured_ms": net.ms, "predicted_ms": told.ms, "outside": told.outside}
            for net, told in zip(nets, predictions, strict=True)
        ],
    }


if __name__ == "__main__":
    main()
