"""Proof that a file is what it claims: exported, run by the target's own runtime, judged and timed there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import numpy as np
from torch import nn

from device_bench.bench import steadiest
from device_bench.errors import RunError
from device_bench.protocol import BenchRequest, Failure, Measurement, Rounds, TimingPolicy
from exporters import exporter_for
from exporters.base import Artifact, ArtifactMetadata, Precision
from exporters.exactness import check_exactness
from exporters.parity import Tolerance, check_parity, to_layout
from exporters.quantization import quantization_for
from exporters.saturation import saturates
from pipeline.data.base import Dataset, Split
from pipeline.evaluation import score
from pipeline.plan import CompressionPlan
from pipeline.result import Entry, Exactness, Parity, Speedup
from pipeline.target import Target
from pipeline.target_bench import bench_for, insist
from pipeline.trained_range import read_ranges

CALIBRATION_SAMPLES = 256
PARITY_SAMPLES = 512
# Every tensor on the way is kept for each.
EXACTNESS_SAMPLES = 64
PROOF_TIMING = TimingPolicy()
PROOF_ROUNDS = Rounds()
SUFFIX: Mapping[tuple[str, Precision], str] = {
    ("onnx", "float32"): "model.onnx",
    ("onnx", "int8"): "model.int8.onnx",
    ("tflite", "float32"): "model.tflite",
    ("tflite", "int8"): "model.int8.tflite",
}
# With weights of 7 bits.
REDUCED = "model.int8.reduced.onnx"


@dataclass
class Prover:
    """Exports modules of one task and proves the files, each once.

    Args:
        dataset: gives calibration samples, the search split for parity, and the metric.
        task_fingerprint: goes into every file.
        units: layer → its unit, as `exporters.profile.units_of_layers` gives it; goes into every file.
    """

    dataset: Dataset
    task_fingerprint: str
    units: Mapping[str, str] = field(default_factory=dict)
    _calibration: np.ndarray | None = field(default=None, init=False)
    _known_to_saturate: dict[str, bool] = field(default_factory=dict, init=False)

    @property
    def calibration(self) -> np.ndarray:
        """Preprocessed training samples to set quantization ranges by, float32 [n, ...]."""
        if self._calibration is None:
            self._calibration = self.dataset.calibration(CALIBRATION_SAMPLES)
        return self._calibration

    def export_for(self, target: Target, module: nn.Module, folder: Path, plan: CompressionPlan) -> Artifact:
        """The INT8 file of `module` for one target.

        Where the target's products of 8 bits overflow, a file with weights of 7 bits is made as well, and the
        one that is better on the search split is taken.
        """
        plain = self.export(module, folder, target.artifact_format, "int8", plan)
        if plain.format != "onnx" or not self._saturates(target):
            return plain
        reduced = self.export(module, folder, "onnx", "int8", plan, reduced=True)
        known = self.dataset.metric
        split = self.dataset.search.spread(PARITY_SAMPLES)
        scores = [self.metric(each, target, split) for each in (plain, reduced)]
        return plain if known.drop(*scores) >= 0.0 else reduced

    def _saturates(self, target: Target) -> bool:
        """Whether the target's products of 8 bits overflow, found out once."""
        if target.name not in self._known_to_saturate:
            with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
                self._known_to_saturate[target.name] = saturates(
                    lambda path, inputs: _predicted(path, target, inputs), Path(folder)
                )
        return self._known_to_saturate[target.name]

    def export(
        self,
        module: nn.Module,
        folder: Path,
        form: str,
        precision: Precision,
        plan: CompressionPlan,
        *,
        reduced: bool = False,
    ) -> Artifact:
        """Write `module`, which `plan` made, to `folder` under its usual name.

        A file that is there with its record is kept.

        Args:
            reduced: with weights of 7 bits, under a name of its own.
        """
        path = folder / (REDUCED if reduced else SUFFIX[form, precision])
        record = folder / f".{path.name}.json"
        if path.exists() and record.exists():
            # The run may have been moved since, or is worked on from another folder.
            known = Artifact.model_validate_json(record.read_text(encoding="utf-8"))
            return known.model_copy(update={"path": str(path)})
        folder.mkdir(parents=True, exist_ok=True)
        metadata = ArtifactMetadata(
            plan_id=plan.plan_id,
            task_fingerprint=self.task_fingerprint,
            labels=self.dataset.labels,
            heads=self.dataset.heads,
            preprocessing=self.dataset.preprocessing,
            units=dict(self.units),
        )
        quantization = quantization_for(plan, self.units, module, read_ranges(folder))
        quantization = replace(quantization, reduced=reduced)
        exporter = exporter_for(form)
        artifact = exporter.export(module, path, precision, self.calibration, metadata, quantization)
        record.write_text(artifact.model_dump_json(), encoding="utf-8")
        return artifact

    def metric(self, artifact: Artifact, target: Target, split: Split) -> float:
        """The task's metric of the file itself on `split`, run by the target's runtime."""
        return score(
            self.dataset.metric, self.outputs(artifact, target, split.x), split.y, self.dataset.heads
        )

    def outputs(self, artifact: Artifact, target: Target, raw: np.ndarray) -> np.ndarray:
        """What the file itself gives for raw samples [n, ...], run by the target's runtime; float32 [n, k].

        Raises:
            RunError: it does not run there.
        """
        inputs = to_layout(self.dataset.preprocessing.apply(raw), artifact.input_layout)
        return _predicted(Path(artifact.path), target, inputs)

    def parity(self, artifact: Artifact, module: nn.Module, target: Target) -> Parity:
        """How far the file's outputs are from torch's on samples of the search split.

        What an INT8 file loses against torch is a finding, judged by the budget; a float file that leaves
        torch is an error.
        """
        search = self.dataset.search
        inputs = self.dataset.preprocessing.apply(search.x[:PARITY_SAMPLES])
        metric, heads = self.dataset.metric, self.dataset.heads
        return check_parity(
            artifact,
            module,
            inputs,
            search.y[:PARITY_SAMPLES],
            lambda outputs, truth: score(metric, outputs, truth, heads),
            lambda given: _predict(artifact, target, given),
            tolerance=Tolerance(int8_drop=inf, higher_is_better=metric.higher_is_better),
            heads=heads,
        )

    def exactness(self, artifact: Artifact, module: nn.Module) -> Exactness:
        """How exactly an INT8 file computes what its numbers say, on samples of the search split."""
        inputs = self.dataset.preprocessing.apply(self.dataset.search.spread(EXACTNESS_SAMPLES).x)
        return check_exactness(artifact, module, self.calibration, inputs)

    def entry(
        self, artifact: Artifact, target: Target, test: Split, root: Path, parity: Parity | None
    ) -> tuple[Entry, Measurement]:
        """The file's line in the result: metric on the test split, and a full measurement on the target."""
        request = request_for(artifact.path, target)
        outcome = insist(lambda: bench_for(target).measure(request))
        if isinstance(outcome, Failure):
            raise RunError(
                f"{artifact.path} cannot be measured on {target.name}: {outcome.kind}: {outcome.message}"
            )
        entry = Entry(
            accuracy=self.metric(artifact, target, test),
            p50_ms=outcome.latency.p50_ms,
            p90_ms=outcome.latency.p90_ms,
            p50_low_ms=outcome.latency.p50_low_ms,
            p50_high_ms=outcome.latency.p50_high_ms,
            peak_memory_bytes=outcome.memory.peak_bytes,
            artifact_bytes=artifact.file_bytes,
            artifact=str(Path(artifact.path).relative_to(root)),
            settled=outcome.settled,
            conditions=outcome.conditions,
            parity=parity,
            float_operators=artifact.float_operators,
            warnings=outcome.warnings,
        )
        return entry, outcome


def request_for(path: str, target: Target) -> BenchRequest:
    """What to ask a bench for to run a file as `target` would."""
    return BenchRequest(
        path=path,
        runtime=target.runtime,
        accelerator=target.accelerator,
        threads=target.threads,
        timing=PROOF_TIMING,
    )


def speedup(
    slow: Artifact, fast: Artifact, target: Target, rounds: Rounds | None = None, attempts: int = 1
) -> Speedup:
    """How many times faster `fast` is than `slow` on `target`, by interleaved rounds.

    Args:
        rounds: `PROOF_ROUNDS` where none are given.
        attempts: how often at most they are made where other work disturbs them, see `steadiest`.

    Raises:
        RunError: one of them does not run there.
    """
    first, second = request_for(slow.path, target), request_for(fast.path, target)
    bench = bench_for(target)
    outcome = steadiest(
        lambda: insist(lambda: bench.compare(first, second, rounds or PROOF_ROUNDS)), attempts
    )
    if isinstance(outcome, Failure):
        raise RunError(f"comparison on {target.name} failed: {outcome.kind}: {outcome.message}")
    return Speedup(ratio=outcome.speedup, low=outcome.low, high=outcome.high, rounds=outcome.rounds)


def _predicted(path: Path, target: Target, inputs: np.ndarray) -> np.ndarray:
    outputs = insist(lambda: bench_for(target).predict(request_for(str(path), target), inputs))
    if isinstance(outputs, Failure):
        raise RunError(f"{path} does not run on {target.name}: {outputs.kind}: {outputs.message}")
    return outputs


def _predict(artifact: Artifact, target: Target, inputs: np.ndarray) -> np.ndarray | Failure:
    request = request_for(artifact.path, target)
    return insist(lambda: bench_for(target).predict(request, inputs))
