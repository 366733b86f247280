"""What INT8 and pruning cost in accuracy, on whole test splits, beside Torch-Pruning's own pruner.

    python benchmarks/quality.py --data-root DATA [--part int8] [--part pruning] [--epochs 10] [--json FILE]

int8: float, plain INT8 and, where that loses more than its limit allows, calibration by squared error and
one epoch of quantization-aware training, for each model on both runtimes.

pruning: ResNet-20 at half its multiplications, recovered for `--epochs` at most and stored as INT8. Ours
takes, one after the other, the residual block or the half of an inner width that costs least on the search
split for the work it saves. Torch-Pruning's is its `MagnitudePruner` with global ranking. Both stop at half
the work and are recovered alike, from the same teacher.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from exporters.profile import units_of_layers
from exporters.proof import Prover
from pipeline.cuts import Cutter
from pipeline.data import load_dataset
from pipeline.data.base import Dataset, Split
from pipeline.dependency import OptionAPruner
from pipeline.evaluation import evaluate
from pipeline.methods.batch_norm import reestimate_
from pipeline.methods.quantization_aware import train_aware_
from pipeline.methods.recovery import Lesson, native_bf16, recover_
from pipeline.methods.teacher import RememberingTeacher
from pipeline.methods.views import Views
from pipeline.model import load_model
from pipeline.plan import CompressionPlan, RecoveryChoice
from pipeline.pretraining import trained_weights
from pipeline.space import PlanSpace
from pipeline.target import find_target
from pipeline.task import ModelSpec
from pipeline.tracing import trace
from pipeline.trained_range import FINGERPRINT_SAMPLES, write_ranges
from pipeline.zoo.resnet import OptionAShortcut

FORMS = {"local-onnxruntime": "onnx", "local-litert": "tflite"}
# Model, data set, weights below DATA (None: trained on first use), and points that plain INT8 may lose.
INT8 = (
    ("resnet20", "cifar10-jpeg", "weights/resnet20_cifar10_jpeg.safetensors", 0.3),
    ("resnet32", "cifar10-jpeg", "weights/resnet32_cifar10.safetensors", 0.3),
    ("dscnn", "spoken-digits", None, 1.0),
    ("mobilenetv2", "digits", None, 1.0),
)
PRUNING_LIMIT = 0.9
HALF = 0.5


class Subject:
    """A model with its data, exported and judged as files."""

    def __init__(self, name: str, data: str, weights: str | None, root: Path, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.dataset: Dataset = load_dataset(data, root)
        spec = ModelSpec(
            source=name, input_shape=self.dataset.input_shape, outputs=self.dataset.outputs,
            weights=None if weights is None else str(root / weights),
        )  # fmt: skip
        if spec.weights is None:
            found = trained_weights(spec, self.dataset, 0, lambda share, text: None)
            spec = spec.model_copy(update={"weights": str(found)})
        self.module = load_model(spec)
        self.graph = trace(self.module, spec.input_shape)
        self.test: Split = self.dataset.test.open()
        self.views = Views(self.dataset, 0)
        self.prover = Prover(self.dataset, "", units_of_layers(self.graph))
        self.float = evaluate(self.module, self.test, self.dataset.metric, self.dataset.preprocessing)

    def int8(self, module: nn.Module, plan: CompressionPlan, label: str) -> dict[str, float]:
        """The metric of the INT8 file on the test split, by target."""
        folder = self.folder / self.name / label
        found = {}
        for target, form in FORMS.items():
            artifact = self.prover.export(module, folder, form, "int8", plan)
            found[target] = self.prover.metric(artifact, find_target(target), self.test)
        return found

    def recovered(self, module: nn.Module, epochs: float, console: Console) -> nn.Module:
        """The module after so many epochs with the original as its teacher."""
        teacher = RememberingTeacher(self.module, len(self.views), None, bf16=native_bf16())
        lesson = Lesson(self.dataset, self.views, teacher, RecoveryChoice(epochs=epochs))
        report = recover_(module, lesson, lambda share, text: None)
        console.print(f"  recovered in {report.seconds:.0f} s, last loss {report.last_loss:.3f}", style="dim")
        return module

    def aware(self, module: nn.Module, label: str) -> None:
        """One epoch of quantization-aware training, its ranges beside the file that will be made."""
        teacher = RememberingTeacher(self.module, len(self.views), None)
        lesson = Lesson(self.dataset, self.views, teacher, RecoveryChoice(quantization_epochs=1.0))
        samples = torch.from_numpy(self.prover.calibration[:FINGERPRINT_SAMPLES])
        ranges = train_aware_(module, lesson, samples, (), lambda share, text: None)
        folder = self.folder / self.name / label
        folder.mkdir(parents=True, exist_ok=True)
        write_ranges(ranges, folder)


def macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications of one sample, counted from the operators that run."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(module).eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def int8_rows(root: Path, folder: Path, console: Console) -> list[dict[str, Any]]:
    """One line for each model, way and target."""
    rows = []
    for name, data, weights, limit in INT8:
        subject = Subject(name, data, weights, root, folder)
        ways: dict[str, tuple[nn.Module, CompressionPlan]] = {"plain": (subject.module, CompressionPlan())}
        found = subject.int8(*ways["plain"], "plain")
        if any(subject.float - accuracy > limit for accuracy in found.values()):
            trained = copy.deepcopy(subject.module)
            subject.aware(trained, "aware")
            ways |= {
                "mse": (subject.module, CompressionPlan(calibration="mse")),
                "aware": (trained, CompressionPlan()),
            }
        for way, (module, plan) in ways.items():
            for target, accuracy in (found if way == "plain" else subject.int8(module, plan, way)).items():
                rows.append(_row(subject, way, target, accuracy, limit, 1.0))
                console.print(_in_words(rows[-1]), highlight=False)
    return rows


def pruning_rows(
    root: Path, folder: Path, epochs: float, ways: list[str], console: Console
) -> list[dict[str, Any]]:
    """Ours and Torch-Pruning's at half the multiplications."""
    name, data, weights, _ = INT8[0]
    subject = Subject(name, data, weights, root, folder)
    shape = subject.dataset.input_shape
    whole = macs(subject.module, shape)
    rows = []
    makers = {
        "ours": ("blocks and half widths (ours)", _ours),
        "theirs": ("Torch-Pruning, global magnitude", _theirs),
    }
    for way, make in (makers[name] for name in ways):
        module, plan = make(subject, whole)
        reestimate_(module, subject.dataset.train.spread(1000).x, subject.dataset.preprocessing)
        share = macs(module, shape) / whole
        subject.recovered(module, epochs, console)
        for target, accuracy in subject.int8(module, plan, way).items():
            rows.append(_row(subject, way, target, accuracy, PRUNING_LIMIT, share))
            console.print(_in_words(rows[-1]), highlight=False)
    return rows


def _ours(subject: Subject, whole: int) -> tuple[nn.Module, CompressionPlan]:
    """Step by step the block or half width that costs least for the work it saves, until half is gone."""
    data, shape = subject.dataset, subject.dataset.input_shape
    cutter, sample = Cutter(subject.module, subject.graph), data.search.spread(1000)
    space = PlanSpace.of(subject.graph, 8)
    plan, work = CompressionPlan(), whole
    score = evaluate(subject.module, sample, data.metric, data.preprocessing)
    while work > HALF * whole:
        tried = []
        for candidate in _one_step_from(plan, subject, space):
            module = cutter.cut(candidate)
            saved = work - macs(module, shape)
            if saved <= 0:
                continue
            reestimate_(module, data.train.spread(500).x, data.preprocessing)
            found = evaluate(module, sample, data.metric, data.preprocessing)
            tried.append(((score - found) / saved, found, work - saved, candidate))
        _, score, work, plan = min(tried, key=lambda each: each[0])
    return cutter.cut(plan), plan


def _one_step_from(plan: CompressionPlan, subject: Subject, space: PlanSpace) -> list[CompressionPlan]:
    """One block less, or one unit inside a block at half its width."""
    keep = {name: choice.keep_ratio for name, choice in plan.units.items()}
    inside = {name for block in subject.graph.blocks for name in block.units}
    blocks = [b.name for b in subject.graph.blocks if b.name not in plan.removed]
    units = [
        name for name in space.widths if name in inside - space.inside(plan.removed) and name not in keep
    ]
    return [
        *(space.plan(keep, (*plan.removed, block)) for block in blocks),
        *(space.plan(keep | {unit: 0.5}, plan.removed) for unit in units),
    ]


def _theirs(subject: Subject, whole: int) -> tuple[nn.Module, CompressionPlan]:
    """The library's own pruner, step by step until half the work is gone."""

    module = copy.deepcopy(subject.module)
    shape = subject.dataset.input_shape
    steps = 100
    pruner = tp.pruner.MagnitudePruner(
        module, torch.zeros(2, *shape),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True, pruning_ratio=0.9, iterative_steps=steps,
        ignored_layers=[module.linear],
        customized_pruners={OptionAShortcut: OptionAPruner()},
    )  # fmt: skip
    for _ in range(steps):
        pruner.step()
        if macs(module, shape) <= HALF * whole:
            break
    return module, CompressionPlan()


def _row(
    subject: Subject, way: str, target: str, accuracy: float, limit: float, share: float
) -> dict[str, Any]:
    drop = subject.float - accuracy
    return {
        "model": subject.name, "data": subject.dataset.name, "way": way, "target": target,
        "float": subject.float, "int8": accuracy, "drop": drop, "limit": limit, "macs_share": share,
        "reached": drop <= limit,
    }  # fmt: skip


def _in_words(row: dict[str, Any]) -> str:
    verdict = "reached" if row["reached"] else "missed"
    return (
        f"{row['model']}, {row['way']}, {row['target']}: {row['float']:.2f} -> {row['int8']:.2f} "
        f"({-row['drop']:+.2f}, at most -{row['limit']} asked: {verdict}), {row['macs_share']:.0%} of MACs"
    )


def main() -> int:
    """Measure and print; exit code 1 if ours misses a figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--part", action="append", choices=["int8", "pruning"])
    parser.add_argument("--way", action="append", choices=["ours", "theirs"], help="of pruning")
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    console, rows = Console(width=150), []
    with tempfile.TemporaryDirectory() as folder:
        if "int8" in (given.part or ["int8"]):
            rows += int8_rows(given.data_root, Path(folder), console)
        if "pruning" in (given.part or ["pruning"]):
            rows += pruning_rows(
                given.data_root, Path(folder), given.epochs, given.way or ["ours", "theirs"], console
            )
    if given.json is not None:
        given.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    # Another's pruner is there to compare with, and misses nothing of ours.
    own = [row for row in rows if not row["way"].startswith("Torch-Pruning")]
    best = {(row["model"], row["target"]): False for row in own}
    for row in own:
        best[row["model"], row["target"]] |= row["reached"]
    return 0 if all(best.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
