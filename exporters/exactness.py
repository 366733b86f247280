"""How exactly an INT8 file computes what its numbers say: against torch with the very same numbers.

Torch computes in floats with every stored tensor rounded to the file's own steps. End to end, a value that
lies near the middle between two steps is rounded to one side here and to the other there, and each operator
hands such differences on, so deep networks part by more than a step although every operator is exact. So
each operator is also judged alone: torch is given what the file computed up to there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from exporters.base import Artifact, Layout
from exporters.parity import to_layout
from exporters.quantization import same_values
from exporters.stored_numbers import StoredTensor, onnx_tensors, tflite_tensors
from exporters.to_onnx import to_float_onnx
from exporters.to_tflite import to_float_tflite
from pipeline.errors import ExportError
from pipeline.methods.quantization_aware import AwareModule
from pipeline.result import Exactness
from pipeline.trained_range import FINGERPRINT_SAMPLES, fingerprint_of

# Equal but for the order of float sums.
ONE_STEP = 1.001
# Percent of values within a step, below which torch and the file are said to part.
PARTED_BELOW = 99.9


@dataclass(frozen=True)
class _Point:
    """A tensor that both torch and the file have: where it is in torch, and what the file has for it."""

    label: str
    step: float
    values: torch.Tensor


def check_exactness(
    artifact: Artifact, module: nn.Module, calibration: np.ndarray, inputs: np.ndarray
) -> Exactness:
    """Compare an INT8 file whose layers are all INT8 with torch, on this machine's integer kernels.

    Args:
        module: what the file was exported from, in evaluation mode.
        calibration: what its ranges were set by, float32 [n, *input_shape], channels first.
        inputs: preprocessed, float32 [m, *input_shape], channels first.

    Raises:
        ExportError: the file's output is no tensor of torch's.
    """
    path, layout = Path(artifact.path), artifact.input_layout
    if artifact.format == "onnx":
        tensors = onnx_tensors(to_float_onnx(module, calibration), path, calibration, inputs)
    else:
        content = to_float_tflite(module, calibration)
        tensors = tflite_tensors(content, path, to_layout(calibration, layout), to_layout(inputs, layout))
    shown = torch.from_numpy(calibration[:FINGERPRINT_SAMPLES])
    aware = AwareModule(module, shown)
    points = _common_points(aware, tensors, shown, (len(inputs), layout))
    if aware.points[-1] not in points:
        raise ExportError(
            f"what torch gives in the end is none of the 8-bit tensors of {path}; leave --exactness out"
        )
    together = _shares(aware, points, torch.from_numpy(inputs), forced=False)
    alone = _shares(aware, points, torch.from_numpy(inputs), forced=True)
    parted = [points[name].label for name, share in together.items() if share < PARTED_BELOW]
    least = min(alone, key=lambda name: alone[name])
    return Exactness(
        within_one_step=together[aware.points[-1]],
        parts_at=parted[0] if parted else None,
        least_alone=alone[least],
        least_alone_at=points[least].label,
        operators=len(points),
        samples=len(inputs),
    )


def _common_points(
    aware: AwareModule, tensors: Mapping[str, StoredTensor], samples: torch.Tensor, made: tuple[int, Layout]
) -> dict[str, _Point]:
    """Give torch the file's steps; the tensors that both have, in the network's order.

    A tensor that the file does not store (its kernel computes it and what follows as one) is left unrounded.

    Args:
        samples: what the tensors' fingerprints are of.
        made: how many samples the tensors' values are of, and in which layout.
    """
    found = {}
    count, layout = made
    for name, plain in aware.plain_values(samples).items():
        point = aware.point(name)
        told = [t for t in tensors.values() if same_values(t.fingerprint, fingerprint_of(plain))]
        point.bypassed = not told
        for tensor in told:
            point.set_range(tensor.low, tensor.high)
            values = _as_torch_has_it(tensor.values, (count, *plain.shape[1:]), layout)
            if values is not None:
                found[name] = _Point(aware.label(name), tensor.step, torch.from_numpy(values))
                break
    return found


def _as_torch_has_it(values: np.ndarray, shape: tuple[int, ...], layout: Layout) -> np.ndarray | None:
    """The file's tensor in torch's layout; None where it is another tensor with the same values."""
    if layout == "NHWC" and values.ndim == 4:
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if [n for n in values.shape if n > 1] == [n for n in shape if n > 1]:
        return values.reshape(shape)
    return None


def _shares(
    aware: AwareModule, points: Mapping[str, _Point], inputs: torch.Tensor, *, forced: bool
) -> dict[str, float]:
    """Percent of each tensor's values that are within one step of the file's.

    Args:
        forced: go on with the file's values behind every tensor, so that each operator is judged alone.
    """
    shares: dict[str, float] = {}
    handles = []
    for name, point in points.items():

        def compare(
            layer: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor,
            name: str = name, point: _Point = point,
        ) -> torch.Tensor | None:  # fmt: skip
            near = (output - point.values).abs() <= ONE_STEP * point.step
            shares[name] = 100.0 * float(near.float().mean())
            return point.values if forced else None

        handles.append(aware.point(name).register_forward_hook(compare))
    try:
        with torch.no_grad():
            aware.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return shares
