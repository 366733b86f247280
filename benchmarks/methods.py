"""What each compression method does to accuracy, measured latency, memory and size: one line a method.

    python benchmarks/methods.py --data-root DATA [--model resnet20] [--method …] [--samples 2000] [--json
    FILE]

Every line is one plan, applied to the whole network at once, with batch norms re-estimated and nothing
trained, unless `--epochs` asks for it. Latency is a ratio to plain INT8 of the same model, by interleaved
rounds in the same run. Where other work on the machine made its 95 % interval wider than a twentieth of it,
whatever it is, the rounds are made again, up to four times, and those with the narrowest interval stand; one
that stays wide is printed with it. Accuracy is that of the file itself, run by its runtime on test samples.
"stored" is what the weights take in the form the method gives them; the file holds them as INT8 all the
same, so where it is smaller than the file's share, that is size on paper until a runtime reads the form.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from device_bench.bench import STEADY_WIDTH
from device_bench.errors import EdgeloopError
from device_bench.protocol import Rounds
from exporters.candidates import ShapeBench
from exporters.profile import units_of_layers
from exporters.proof import Prover, speedup
from pipeline.data import load_dataset
from pipeline.data.base import Split
from pipeline.methods.corrections import make_corrections_
from pipeline.methods.layer_methods import hold_, layer_choices, release_, stored_bytes
from pipeline.methods.recovery import Lesson, recover_
from pipeline.methods.teacher import RememberingTeacher
from pipeline.methods.views import Views
from pipeline.model import load_model
from pipeline.plan import CompressionPlan
from pipeline.pretraining import trained_weights
from pipeline.search import Workbench
from pipeline.space import PlanSpace
from pipeline.target import find_target
from pipeline.task import ModelSpec, Task
from pipeline.tracing import trace

# Model: data set, and weights below DATA where there are some; else it is trained on first use.
MODELS = {
    "resnet20": ("cifar10-jpeg", "weights/resnet20_cifar10_jpeg.safetensors"),
    "dscnn": ("spoken-digits", None),
    "mobilenetv2": ("digits", None),
    "vit": ("digits", None),
}
TARGETS = ("local-onnxruntime", "local-litert")
KEEP = 0.75
ROUNDS = Rounds(count=16, seconds=0.1)
ATTEMPTS = 4


def every(**choice: Any) -> dict[str, Any]:
    """A plan that asks the same of every layer it is legal for."""
    return {"layers": {"*": choice}}


def weights(method: str, bits: int) -> dict[str, Any]:
    """A plan whose weights all take one form."""
    return every(weights={"method": method, "bits": bits})


METHODS: dict[str, dict[str, Any]] = {
    "plain INT8": {},
    "calibration: percentile": {"calibration": "percentile"},
    "calibration: entropy": {"calibration": "entropy"},
    "calibration: mse": {"calibration": "mse"},
    "equalisation": {"corrections": ["equalisation"]},
    "bias correction": {"corrections": ["bias_correction"]},
    "equalisation, bias correction": {"corrections": ["equalisation", "bias_correction"]},
    "dynamic ranges": every(precision="dynamic"),
    "float16": every(precision="float16"),
    "int16 activations": every(precision="int16x8"),
    "int4 weights": every(precision="int4"),
    "prune 25 %, magnitude": {"importance": "magnitude"},
    "prune 25 %, magnitude L1": {"importance": "magnitude_l1"},
    "prune 25 %, Taylor": {"importance": "taylor"},
    "prune 25 %, batch norm": {"importance": "batch_norm"},
    "prune 25 %, contribution": {"importance": "contribution"},
    "prune 25 %, random": {"importance": "random"},
    "depth: one block": {},
    "low rank: channel, half": every(low_rank={"kind": "channel", "ratio": 0.5}),
    "low rank: channel, a quarter": every(low_rank={"kind": "channel", "ratio": 0.25}),
    "low rank: spatial, half": every(low_rank={"kind": "spatial", "ratio": 0.5}),
    "low rank: svd, half": every(low_rank={"kind": "svd", "ratio": 0.5}),
    "sparsity 50 %": every(sparsity=0.5),
    "sparsity 50 %, soft": every(sparsity=0.5, soft=True),
    "uniform, 4 bits": weights("uniform", 4),
    "network-wide, 8 bits": weights("network_wide", 8),
    "interval-wise, 6 bits": weights("interval", 6),
    "piecewise, 4 bits": weights("piecewise", 4),
    "powers of two, 2 × 4 bits": weights("power_of_two", 8),
    "codebook, 5 bits": weights("codebook", 5),
    "companding, 4 bits": weights("companding", 4),
    "ternary": weights("ternary", 2),
    "binary": weights("binary", 1),
    "quantization-aware, 1 epoch": {"recovery": {"quantization_epochs": 1.0}},
}


class Bench:
    """One model with all that its lines share.

    Args:
        name: of `MODELS`.
        samples: of the test split.
        epochs: of recovery for each line.
    """

    def __init__(self, name: str, root: Path, folder: Path, samples: int, epochs: float) -> None:
        data, path = MODELS[name]
        self.name, self.folder, self.epochs = name, folder, epochs
        self.dataset = load_dataset(data, root)
        spec = ModelSpec(
            source=name, input_shape=self.dataset.input_shape, outputs=self.dataset.outputs,
            weights=None if path is None else str(root / path),
        )  # fmt: skip
        if spec.weights is None:
            found = trained_weights(spec, self.dataset, 0, lambda share, text: None)
            spec = spec.model_copy(update={"weights": str(found)})
        self.module = load_model(spec)
        self.graph = trace(self.module, spec.input_shape)
        targets = tuple(map(find_target, TARGETS))
        shapes = ShapeBench(self.module, self.graph, targets, self.dataset.calibration(), folder)
        space = PlanSpace.of(self.graph, max(target.width_step for target in targets))
        task = Task(model=spec, data=self.dataset.name, targets=targets)
        self.bench = Workbench(task, self.dataset, self.module, self.graph, space, shapes)
        self.prover = Prover(self.dataset, "", units_of_layers(self.graph))
        self.test: Split = self.dataset.test.open().spread(samples)
        self.views = Views(self.dataset, 0)
        self.plain = {
            form: self._export(CompressionPlan(), self.module, form, "plain") for form in FORMS.values()
        }

    def rows(self, method: str) -> list[dict[str, Any]]:
        """One line for each target.

        Raises:
            EdgeloopError: the method is not for this model; says why.
        """
        plan = self.bench.settled(self._plan(method))
        module = self.bench.build(plan)
        folder = f"{method}".replace("/", "-")
        choices = layer_choices(plan, self.graph)
        self._train_(module, plan, folder)
        make_corrections_(module.eval(), plan, self.graph, torch.from_numpy(self.prover.calibration))
        stored = stored_bytes(module, choices)
        found = []
        for target_name, form in FORMS.items():
            target = find_target(target_name)
            artifact = self._export(plan, module, form, folder)
            speed = speedup(self.plain[form], artifact, target, ROUNDS, ATTEMPTS)
            found.append(
                {
                    "method": method,
                    "model": self.name,
                    "target": target_name,
                    "accuracy": self.prover.metric(artifact, target, self.test),
                    "speedup": speed.ratio,
                    "speedup_low": speed.low,
                    "speedup_high": speed.high,
                    "file_bytes": artifact.file_bytes,
                    "stored_bytes": sum(stored.values()) or None,
                    "float_operators": len(artifact.float_operators),
                }
            )
        return found

    def _plan(self, method: str) -> CompressionPlan:
        plan = CompressionPlan.model_validate(METHODS[method])
        if method.startswith("prune"):
            units = self.bench.space.uniform(KEEP).units
            return plan.model_copy(update={"units": units})
        if method.startswith("depth"):
            middle = self.bench.space.removable[len(self.bench.space.removable) // 2 :][:1]
            if not middle:
                raise EdgeloopError(f"{self.name} has no block that may go")
            return plan.model_copy(update={"removed": middle})
        return plan

    def _train_(self, module: torch.nn.Module, plan: CompressionPlan, folder: str) -> None:
        from pipeline.methods.quantization_aware import train_aware_
        from pipeline.trained_range import FINGERPRINT_SAMPLES, write_ranges

        choice = plan.recovery.model_copy(update={"epochs": self.epochs})
        teacher = RememberingTeacher(self.module, len(self.views), None)
        lesson = Lesson(self.dataset, self.views, teacher, choice)
        if self.epochs > 0:
            hold_(module, layer_choices(plan, self.graph))
            recover_(module, lesson, lambda share, text: None)
            release_(module)
        if choice.quantization_epochs > 0:
            samples = torch.from_numpy(self.prover.calibration[:FINGERPRINT_SAMPLES])
            ranges = train_aware_(module, lesson, samples, (), lambda share, text: None)
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
            write_ranges(ranges, self.folder / folder)

    def _export(self, plan: CompressionPlan, module: torch.nn.Module, form: str, folder: str) -> Any:
        return self.prover.export(module, self.folder / folder, form, "int8", plan)


FORMS = {"local-onnxruntime": "onnx", "local-litert": "tflite"}


def main() -> int:
    """Measure and print; what is not for a model is listed with its reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--model", action="append", choices=list(MODELS))
    parser.add_argument("--method", action="append", choices=list(METHODS))
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=0.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    console, rows, failed = Console(width=150), [], []
    for name in given.model or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(name, given.data_root, Path(folder), given.samples, given.epochs)
            for method in given.method or METHODS:
                try:
                    made = bench.rows(method)
                except EdgeloopError as error:
                    failed.append({"method": method, "model": name, "reason": str(error)})
                    console.print(f"{name}: {method}: not for it: {error}", style="dim", highlight=False)
                    continue
                rows += made
                console.print(f"{name}: {method}: {_in_words(made)}", highlight=False)
                if given.json is not None:
                    given.json.write_text(json.dumps({"rows": rows, "not_for_it": failed}, indent=2) + "\n")
    console.print(_table(rows))
    return 0


def _in_words(made: list[dict[str, Any]]) -> str:
    return "; ".join(f"{row['accuracy']:.2f}, {_ratio(row)} on {row['target']}" for row in made)


def _ratio(row: dict[str, Any]) -> str:
    ratio, low, high = row["speedup"], row["speedup_low"], row["speedup_high"]
    return f"{ratio:.2f}x" if high - low <= STEADY_WIDTH * ratio else f"{ratio:.2f}x ({low:.2f}-{high:.2f})"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "model", "method", "target", "accuracy", "vs plain INT8", "file KiB", "stored KiB", "float ops"
    )
    for row in rows:
        stored = "" if row["stored_bytes"] is None else f"{row['stored_bytes'] / 1024:.0f}"
        speed = f"{row['speedup']:.2f}x ({row['speedup_low']:.2f}-{row['speedup_high']:.2f})"
        cells = (row["model"], row["method"], row["target"].removeprefix("local-"), f"{row['accuracy']:.2f}")
        table.add_row(
            *cells, speed, f"{row['file_bytes'] / 1024:.0f}", stored, str(row["float_operators"] or "")
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
