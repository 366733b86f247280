"""Proves that an artifact computes what torch computes, on held-out inputs and in its own runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from device_bench.protocol import Failure
from exporters.base import Artifact, Layout
from pipeline.data.heads import columns
from pipeline.errors import ExportError
from pipeline.result import Parity

Metric = Callable[[np.ndarray, np.ndarray], float]
Predict = Callable[[np.ndarray], np.ndarray | Failure]

TORCH_BATCH = 256


class ParityError(ExportError):
    """An artifact's output left what torch computes."""


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may leave torch.

    Args:
        float_error: largest difference of a float artifact's output, relative to the largest output (or to 1
            where all are smaller): what float32 sums in another order may differ by.
        int8_drop: how much worse, in the metric's own units, an INT8 artifact may be.
        higher_is_better: the metric's direction.
    """

    float_error: float = 1e-3
    int8_drop: float = 2.0
    higher_is_better: bool = True


def check_parity(
    artifact: Artifact,
    module: torch.nn.Module,
    inputs: np.ndarray,
    labels: np.ndarray,
    metric: Metric,
    predict: Predict,
    *,
    tolerance: Tolerance = Tolerance(),
    heads: tuple[int, ...] = (),
) -> Parity:
    """Run an artifact and its module on the same samples.

    Args:
        artifact: what an exporter made of `module`.
        module: in evaluation mode.
        inputs: preprocessed held-out samples, float32 [n, *input_shape], channels first.
        labels: what is to be predicted, [n], or [n, heads].
        metric: (outputs [n, ...], labels [n]) → figure.
        predict: runs the artifact in its runtime: float32 [n, ...] in the artifact's layout → its outputs,
            or the failure that a bench gave back.
        tolerance: how far they may differ.
        heads: classes of each of several tasks that the outputs answer side by side.

    Raises:
        ParityError: they differ by more, or the artifact does not run; with figures or the runtime's words.
    """
    expected = _torch_outputs(module, inputs)
    got = predict(to_layout(inputs, artifact.input_layout))
    if isinstance(got, Failure):
        raise ParityError(f"{artifact.path} does not run ({got.kind.value}): {got.message}")
    if got.shape != expected.shape:
        raise ParityError(f"{artifact.path} gives outputs of shape {got.shape}, torch {expected.shape}")
    errors = np.abs(got - expected)
    parity = Parity(
        max_error=float(errors.max()),
        mean_error=float(errors.mean()),
        top1_agreement=_agreement(expected, got, heads),
        metric_torch=float(metric(expected, labels)),
        metric_artifact=float(metric(got, labels)),
        samples=len(inputs),
    )
    _judge(artifact, parity, float(np.abs(expected).max()), tolerance)
    return parity


def to_layout(inputs: np.ndarray, layout: Layout) -> np.ndarray:
    """Samples [n, *input_shape], channels first, as contiguous float32 in an artifact's layout."""
    moved = inputs.transpose(0, 2, 3, 1) if layout == "NHWC" else inputs
    return np.ascontiguousarray(moved, np.float32)


def _torch_outputs(module: torch.nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        parts = [
            module(torch.from_numpy(inputs[start : start + TORCH_BATCH])).float().numpy()
            for start in range(0, len(inputs), TORCH_BATCH)
        ]
    return np.concatenate(parts)


def _agreement(expected: np.ndarray, got: np.ndarray, heads: tuple[int, ...]) -> float | None:
    """Share of samples, in percent, for which both name the same class; None for a single output.

    Of several heads it is the mean of theirs.
    """
    if expected.ndim != 2 or expected.shape[1] < 2:
        return None
    same = [(expected[:, part].argmax(1) == got[:, part].argmax(1)).mean() for part in columns(heads)]
    return 100.0 * float(np.mean(same))


def _judge(artifact: Artifact, parity: Parity, largest: float, tolerance: Tolerance) -> None:
    # A comparison that is false for NaN: an artifact that gives NaN has no parity.
    if artifact.precision == "float32":
        allowed = tolerance.float_error * max(1.0, largest)
        if not parity.max_error <= allowed:
            raise ParityError(
                f"{artifact.path} differs from torch by {parity.max_error:.3g}; at most {allowed:.3g} is "
                "allowed. The export computes something else: report it with the model"
            )
        return
    drop = parity.metric_torch - parity.metric_artifact
    drop = drop if tolerance.higher_is_better else -drop
    if not drop <= tolerance.int8_drop:
        raise ParityError(
            f"{artifact.path} has {parity.metric_artifact:.4g} where torch has {parity.metric_torch:.4g}; "
            f"at most {tolerance.int8_drop:g} worse is allowed. Give more calibration samples, or keep this "
            "model in float"
        )
