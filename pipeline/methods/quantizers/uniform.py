"""Uniform affine quantization: q = clip(round(x / s) + z), at one distance from each other all along.

Asymmetric: s = (max − min) / (2^b − 1) and z = round(−min / s), with zero always among the values.
Symmetric: z = 0 and s = max|x| / (2^(b−1) − 1), with 2^b − 1 levels, as integer kernels want their weights
(Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.base import by_channel, check_bits, checked, packed_bytes, straight_through

BITS = range(2, 17)
# A tensor of equal weights, or of zeros, has no step of its own.
LEAST_SCALE = torch.finfo(torch.float32).tiny


def affine_parameters(
    low: torch.Tensor, high: torch.Tensor, bits: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point for values from `low` to `high`, each of any one shape.

    Returns:
        Float scales and whole zero points: levels are 0 to 2^b − 1, or those up to ±(2^(b−1) − 1).
    """
    low, high = low.clamp_max(0.0), high.clamp_min(0.0)
    if symmetric:
        scale = torch.maximum(-low, high) / (2 ** (bits - 1) - 1)
        return scale.clamp_min(LEAST_SCALE), torch.zeros_like(scale)
    scale = ((high - low) / (2**bits - 1)).clamp_min(LEAST_SCALE)
    return scale, torch.round(-low / scale)


def fake_quantize(
    values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, symmetric: bool
) -> torch.Tensor:
    """(clip(round(x / s) + z) − z) · s."""
    top = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    level = torch.clamp(torch.round(values / scale) + zero, -top if symmetric else 0, top)
    return (level - zero) * scale


@dataclass(frozen=True)
class Uniform:
    """One step for a layer, or one for each of its output channels.

    Args:
        bits: 2 to 16.
        symmetric: no zero point.
    """

    bits: int = 8
    per_channel: bool = True
    symmetric: bool = True

    def __post_init__(self) -> None:
        check_bits("uniform", self.bits, BITS)

    @classmethod
    def of(cls, form: WeightForm) -> Uniform:
        """The quantizer of a plan's form."""
        return cls(form.bits, form.per_channel)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        groups = by_channel(values, self.per_channel)
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        scale, zero = affine_parameters(low, high, self.bits, self.symmetric)
        found = fake_quantize(groups, scale, zero, self.bits, self.symmetric)
        return straight_through(weight, found.reshape(values.shape))

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Levels, and a float scale for each group, with its zero point where there is one."""
        groups = len(by_channel(weight, self.per_channel))
        return packed_bytes(weight.numel(), self.bits) + groups * (4 if self.symmetric else 4 + 2)


@dataclass(frozen=True)
class NetworkWide:
    """One step for all layers of a network: that of its largest weight.

    Args:
        bits: 2 to 16.
        largest: the largest |w| of the network; None for that of the tensor at hand.
    """

    bits: int = 8
    largest: float | None = None

    def __post_init__(self) -> None:
        check_bits("network-wide uniform", self.bits, BITS)

    @classmethod
    def of(cls, form: WeightForm) -> NetworkWide:
        """The quantizer of a plan's form, before the network is known."""
        return cls(form.bits)

    def over(self, weights: Mapping[str, torch.Tensor]) -> NetworkWide:
        """The quantizer whose step serves all of these weights."""
        return NetworkWide(self.bits, max(float(checked(weight).abs().max()) for weight in weights.values()))

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        high = values.abs().max() if self.largest is None else torch.tensor(self.largest)
        scale, zero = affine_parameters(-high, high, self.bits, symmetric=True)
        return straight_through(weight, fake_quantize(values, scale, zero, self.bits, symmetric=True))

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Levels; the one scale is counted with each layer."""
        return packed_bytes(weight.numel(), self.bits) + 4
