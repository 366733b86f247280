"""Piecewise uniform quantization: fine steps in the dense middle, coarse ones in the tails.

Half of the levels serve |w| ≤ p, half what lies beyond (Fang et al., "Post-training Piecewise Linear
Quantization for Deep Neural Networks", ECCV 2020); p is the breakpoint of a grid with the least squared
error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.base import check_bits, checked, packed_bytes, straight_through

BITS = range(3, 17)
BREAKPOINTS = 40


@dataclass(frozen=True)
class Piecewise:
    """Two steps for one layer.

    Args:
        bits: 3 to 16, of which one says which piece and one is the sign.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        check_bits("piecewise", self.bits, BITS)

    @classmethod
    def of(cls, form: WeightForm) -> Piecewise:
        """The quantizer of a plan's form."""
        return cls(form.bits)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        largest = float(values.abs().max())
        if largest == 0.0:
            return straight_through(weight, values)
        points = [largest * (i + 1) / (BREAKPOINTS + 1) for i in range(BREAKPOINTS)]
        candidates = [self.with_breakpoint(values, point) for point in points]
        best = min(candidates, key=lambda found: float(((found - values) ** 2).sum()))
        return straight_through(weight, best)

    def with_breakpoint(self, values: torch.Tensor, point: float) -> torch.Tensor:
        """Values whose middle ends at ±`point`, without gradient."""
        size, sign = values.abs(), values.sign()
        # Levels of either piece on one side of zero.
        levels = 2 ** (self.bits - 2)
        fine = point / (levels - 1)
        coarse = (float(size.max()) - point) / levels
        middle = torch.clamp(torch.round(size / fine), 0, levels - 1) * fine
        tail = point + torch.clamp(torch.round((size - point) / max(coarse, 1e-30)), 1, levels) * coarse
        return sign * torch.where(size <= point + coarse / 2, middle, tail)

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Levels, the breakpoint and the largest weight."""
        return packed_bytes(weight.numel(), self.bits) + 8
