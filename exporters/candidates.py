"""Measures candidates: builds each for every target's runtime, times it there, no shape twice."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from device_bench.errors import UnreachableError
from device_bench.protocol import BenchRequest, Failure, FailureKind, Measurement, Profile, TimingPolicy
from device_bench.storage import write_whole
from exporters import exporter_for
from exporters.base import ArtifactMetadata
from exporters.onnx_int8 import quantize_int8 as quantize_onnx
from exporters.profile import units_of_layers
from exporters.quantization import quantization_for
from exporters.tflite_int8 import quantize_int8 as quantize_tflite
from exporters.to_onnx import write_onnx
from exporters.to_tflite import channels_last, write_tflite
from exporters.traced_onnx import TracedOnnx, TraceError
from exporters.traced_tflite import TracedTflite
from pipeline.errors import ExportError
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.target import Target
from pipeline.target_bench import bench_for, insist

LOG = logging.getLogger(__name__)

# Latency depends on shapes, not on values: a few samples set ranges that are good enough to time with.
TIMING_CALIBRATION_SAMPLES = 8
CANDIDATE_TIMING = TimingPolicy(warmup_seconds=0.2, min_seconds=0.6, max_seconds=10.0)
PROFILE_TIMING = TimingPolicy(warmup_seconds=0.2, min_seconds=0.4, max_seconds=10.0)


@dataclass
class ShapeBench:
    """A `pipeline.search.CandidateBench` that measures on the targets themselves, here or on their boards.

    Args:
        original: the uncompressed module; its export is traced once and reused for every candidate.
        targets: where candidates are measured.
        calibration: preprocessed samples [n, *input_shape].
        folder: measurements are kept here by shape, so that a resumed run goes on without them.

    A target whose board goes away is set aside in `gone`, with what was said of it, and is not asked again:
    the others go on without it.
    """

    original: nn.Module
    graph: ModelGraph
    targets: Sequence[Target]
    calibration: np.ndarray
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    _traced: dict[str, TracedOnnx | TracedTflite] = field(default_factory=dict)
    _untraceable: set[str] = field(default_factory=set)

    def measure(self, module: nn.Module, plan: CompressionPlan) -> Mapping[str, Measurement | Failure]:
        """Latency and memory of `module` on each target; a shape seen before is not measured again.

        Raises:
            UnreachableError: no target is left whose board answers.
        """
        signature = shape_signature(module, self.graph, plan)

        def write(form: str, path: Path) -> None:
            self.write(form, module, plan, path)

        return self.measure_files(signature, write)

    def measure_files(
        self, signature: str, write: Callable[[str, Path], None]
    ) -> Mapping[str, Measurement | Failure]:
        """As `measure`, for files that come from elsewhere.

        Args:
            signature: of the candidate's shapes.
            write: puts the file of a format there; raises ExportError where there is none.

        Raises:
            UnreachableError: no target is left whose board answers.
        """
        found = {}
        for target in self.present:
            try:
                found[target.name] = self._on(target, signature, write)
            except UnreachableError as error:
                self.set_aside(target, error)
        return found

    @property
    def present(self) -> tuple[Target, ...]:
        """The targets whose boards have not gone away."""
        return tuple(target for target in self.targets if target.name not in self.gone)

    def set_aside(self, target: Target, error: UnreachableError) -> None:
        """Go on without a target whose board is gone.

        Raises:
            UnreachableError: it was the last one, which is asked again when somebody tries again.
        """
        if self.present == (target,):
            raise error
        self.gone[target.name] = str(error)
        LOG.warning("%s is set aside: %s", target.name, error)

    def _on(
        self, target: Target, signature: str, write: Callable[[str, Path], None]
    ) -> Measurement | Failure:
        known = self.folder / f"{signature}-{target.name}.json"
        if known.exists():
            return Measurement.model_validate_json(known.read_text(encoding="utf-8"))
        path = self.folder / f"candidate.{target.artifact_format}"
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            write(target.artifact_format, path)
        except ExportError as error:
            return Failure(kind=FailureKind.UNSUPPORTED, message=str(error))
        self._spent(f"export {target.artifact_format}", started)
        started = time.monotonic()
        request = bench_request(path, target, CANDIDATE_TIMING)
        outcome = insist(lambda: bench_for(target).measure(request))
        self._spent(f"measure {target.name}", started)
        if isinstance(outcome, Measurement):
            write_whole(known, outcome.model_dump_json().encode())
        return outcome

    def profile(self, module: nn.Module, plan: CompressionPlan) -> Mapping[str, Profile | Failure]:
        """Where the latency of `module` goes on each target; what was told of a plan before is kept."""
        return {target.name: self._profile_on(target, module, plan) for target in self.present}

    def _profile_on(self, target: Target, module: nn.Module, plan: CompressionPlan) -> Profile | Failure:
        known = self.folder / f"{plan.plan_id}-{target.name}.profile.json"
        if known.exists():
            return Profile.model_validate_json(known.read_text(encoding="utf-8"))
        path = self.folder / f"candidate.{target.artifact_format}"
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            self.write(target.artifact_format, module, plan, path)
        except ExportError as error:
            return Failure(kind=FailureKind.UNSUPPORTED, message=str(error))
        outcome = bench_for(target).profile(bench_request(path, target, PROFILE_TIMING))
        self._spent(f"profile {target.name}", started)
        if isinstance(outcome, Profile):
            write_whole(known, outcome.model_dump_json().encode())
        return outcome

    def write(self, form: str, module: nn.Module, plan: CompressionPlan, path: Path) -> None:
        """Write the INT8 file by the traced export of the original; anew, and said so, where that fails."""
        metadata = ArtifactMetadata(plan_id=plan.plan_id, units=units_of_layers(self.graph))
        stored = quantization_for(plan, metadata.units, module)
        if form not in self._untraceable:
            try:
                if form == "onnx":
                    model = self._onnx().instantiate(module, plan.removed)
                    write_onnx(quantize_onnx(model, self._few(), stored), path, "int8", metadata)
                else:
                    content = self._tflite().instantiate(module, plan.removed)
                    quantized = quantize_tflite(content, channels_last(self._few()), stored)
                    write_tflite(quantized, path, "int8", metadata)
                return
            except TraceError as error:
                LOG.warning("plan %s is exported to %s anew: %s", plan.plan_id, form, error)
                if form not in self._traced:
                    self._untraceable.add(form)
        exporter_for(form).export(module, path, "int8", self._few(), metadata, stored)

    def _onnx(self) -> TracedOnnx:
        found = self._traced.get("onnx")
        if not isinstance(found, TracedOnnx):
            found = self._traced["onnx"] = TracedOnnx.trace(self.original, self.calibration[:2])
        return found

    def _tflite(self) -> TracedTflite:
        found = self._traced.get("tflite")
        if not isinstance(found, TracedTflite):
            found = self._traced["tflite"] = TracedTflite.trace(self.original, self.calibration[:2])
        return found

    def _few(self) -> np.ndarray:
        return self.calibration[:TIMING_CALIBRATION_SAMPLES]

    def _spent(self, what: str, started: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - started


def bench_request(path: Path, target: Target, timing: TimingPolicy) -> BenchRequest:
    """How a candidate's file is run on a target."""
    return BenchRequest(
        path=str(path),
        runtime=target.runtime,
        accelerator=target.accelerator,
        threads=target.threads,
        timing=timing,
    )


def shape_signature(module: nn.Module, graph: ModelGraph, plan: CompressionPlan) -> str:
    """Sixteen hex digits that are the same for modules made of the same layer shapes, stored alike.

    Two blocks of one stage are interchangeable for a runtime: what counts is the multiset of each layer's
    weight shape, stride, groups and output size in the original.
    """
    positions = {layer.name: layer.activation_bytes // max(1, layer.out_size) for layer in graph.layers}
    shapes = sorted(
        (
            type(layer).__name__,
            tuple(layer.weight.shape),
            tuple(getattr(layer, "stride", ())),
            getattr(layer, "groups", 1),
            positions.get(name, 0),
        )
        for name, layer in module.named_modules()
        if isinstance(getattr(layer, "weight", None), torch.Tensor)
    )
    # Which layer is stored otherwise makes a difference, whatever its shape.
    stored = sorted((n, c.precision) for n, c in plan.layers.items() if c.precision not in (None, "int8"))
    told = repr(shapes) + (repr(stored) if stored else "")
    return hashlib.sha256(told.encode()).hexdigest()[:16]
