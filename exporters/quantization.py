"""How an exported file's numbers are stored: ranges, and the precision of each layer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device_bench.protocol import OperatorTime
from exporters.profile import layers_of
from exporters.ranges import Range
from pipeline.errors import ExportError
from pipeline.layer_choice import EVERY, CalibrationMethod, LayerChoice, LayerPrecision
from pipeline.plan import CompressionPlan
from pipeline.trained_range import TrainedRange

if TYPE_CHECKING:
    from torch import nn

# A tensor and its trained range belong together where their values agree; two runtimes sum in another order,
# so equal means within this share of the tensor's span.
SAME_VALUES = 2e-3
# The share of trained ranges that may have no tensor of their own in a file.
MOST_LOST = 0.25
LOG = logging.getLogger(__name__)
# What follows a layer that makes float values computes with them, rather than store them in 8 bits first.
WITHOUT_WEIGHTS: dict[LayerPrecision, LayerPrecision] = {
    "float32": "float32",
    "dynamic": "float32",
    "float16": "float16",
}


@dataclass(frozen=True)
class Quantization:
    """What `quantize_int8` of either format is told beyond the samples.

    Args:
        calibration: how ranges are made of what the samples show.
        percentile: the share of values that "percentile" keeps, in percent.
        layers: the network's layers with weights, in its order; operators are told by their names.
        precisions: of the layers that are not to be INT8.
        trained: ranges to take as they are, where a tensor has one.
        reduced: weights of 7 bits, for processors whose products of 8 bits overflow; ONNX alone knows them.
    """

    calibration: CalibrationMethod = "minmax"
    percentile: float = 99.99
    layers: Sequence[str] = ()
    precisions: Mapping[str, LayerPrecision] = field(default_factory=dict)
    trained: Sequence[TrainedRange] = ()
    reduced: bool = False

    @property
    def is_plain(self) -> bool:
        """True where min-max ranges and INT8 everywhere are all that is asked for."""
        return self.calibration == "minmax" and not self.precisions and not self.trained


PLAIN = Quantization()


def quantization_for(
    plan: CompressionPlan, layers: Iterable[str], module: nn.Module, trained: Sequence[TrainedRange] = ()
) -> Quantization:
    """What the plan says of a module that it made.

    Args:
        layers: those with weights of the original, in its order.
        module: what the plan made of it: some layers are gone, and some have become two.
        trained: the ranges that the module was trained for.
    """
    there = dict(module.named_modules())
    every = plan.layers.get(EVERY, LayerChoice())
    parts = {name: _parts(name, there) for name in layers}
    precisions = {
        part: precision
        for name, made in parts.items()
        if (precision := plan.layers.get(name, every).precision) not in (None, "int8")
        for part in made
    }
    return Quantization(
        plan.calibration,
        layers=[part for made in parts.values() for part in made],
        precisions=precisions,
        trained=trained,
    )


def _parts(layer: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """What stands for a layer: itself, nothing, or the two that it was factorised into."""
    from torch import nn

    found = modules.get(layer)
    if isinstance(found, nn.Sequential):
        return [f"{layer}.{name}" for name, _ in found.named_children()]
    return [] if found is None or isinstance(found, nn.Identity) else [layer]


def precision_of(
    operators: Sequence[OperatorTime], quantization: Quantization, with_weights: Iterable[str]
) -> list[LayerPrecision]:
    """The precision of each operator of a file.

    An operator without weights of its own is float with a layer before it whose results are, and INT8
    otherwise.

    Args:
        with_weights: names of the kinds of operators that have weights.

    Raises:
        ExportError: a layer that has a precision of its own is not found in the file.
    """
    kinds = set(with_weights)
    found: list[LayerPrecision] = []
    met = set()
    for operator, layer in zip(operators, layers_of(operators, list(quantization.layers)), strict=True):
        asked = quantization.precisions.get(layer or "", "int8")
        own = operator.operator in kinds
        if own and layer is not None:
            met.add(layer)
        found.append(asked if own else WITHOUT_WEIGHTS.get(asked, "int8"))
    lost = sorted(set(quantization.precisions) - met)
    if lost:
        raise ExportError(
            f"layers {', '.join(lost)} have a precision of their own and no operator of the file is theirs; "
            "leave their precision out of the plan"
        )
    return found


def matched_ranges(
    trained: Sequence[TrainedRange], prints: Mapping[str, tuple[float, float, float, float]]
) -> dict[str, Range]:
    """The trained range of each tensor that has one.

    Converters move constants from one operator into the next (TFLite's does so with what follows a layer norm
    and with the scale of attention), so a few tensors of what was trained may not be in the file; how many is
    logged. What stands for them there has the range that calibration finds.

    Args:
        prints: `fingerprint_of` each tensor of the file over the same samples.

    Raises:
        ExportError: so many trained ranges belong to no tensor that the file is none of what was trained.
    """
    found: dict[str, Range] = {}
    lost: list[TrainedRange] = []
    for each in trained:
        names = [name for name, known in prints.items() if same_values(known, each.fingerprint)]
        if not names:
            lost.append(each)
        found |= dict.fromkeys(names, (each.low, each.high))
    if len(lost) > MOST_LOST * len(trained):
        raise ExportError(
            f"{len(lost)} of {len(trained)} trained ranges, such as {lost[0].low:.4g} to {lost[0].high:.4g}, "
            "belong to no tensor of the file: the converter has fused or split what they were trained on; "
            "leave quantization-aware training out"
        )
    if lost:
        LOG.warning(
            "%d of %d trained ranges belong to tensors that the converter has fused or split; calibration "
            "finds those of what stands for them in the file",
            len(lost),
            len(trained),
        )
    return found


def same_values(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """True if two fingerprints are of one tensor, but for the order of float sums."""
    span = max(other[1] - other[0], 1e-12)
    near = all(abs(a - b) <= SAME_VALUES * span for a, b in zip(one[:3], other[:3], strict=True))
    return near and abs(one[3] - other[3]) <= SAME_VALUES * max(other[3], span**2)
