"""Interval-wise quantization: the range is cut in K intervals, each with its own mean and its own step.

Within an interval, w ≈ m + s · round((w − m) / s), clipped to the levels that the interval has: the mean of
its weights is stored exactly, so the sum over an interval is nearly kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.base import check_bits, checked, packed_bytes, straight_through

BITS = range(3, 17)
INTERVALS = 4


@dataclass(frozen=True)
class Interval:
    """`intervals` equal stretches from the smallest to the largest weight, 2^bits / intervals levels each.

    Args:
        bits: 3 to 16, of which the first two say which interval.
        intervals: a power of two below 2^bits.
    """

    bits: int = 8
    intervals: int = INTERVALS

    def __post_init__(self) -> None:
        check_bits("interval", self.bits, BITS)

    @classmethod
    def of(cls, form: WeightForm) -> Interval:
        """The quantizer of a plan's form."""
        return cls(form.bits)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight).flatten()
        low, high = float(values.min()), float(values.max())
        place = ((values - low) / max(high - low, 1e-30) * self.intervals).long().clamp(0, self.intervals - 1)
        found = values.clone()
        half = 2**self.bits // self.intervals // 2
        for interval in range(self.intervals):
            inside = place == interval
            if inside.any():
                found[inside] = _around_mean(values[inside], half)
        return straight_through(weight, found.reshape(weight.shape))

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Levels, and a mean and a step for each interval."""
        return packed_bytes(weight.numel(), self.bits) + 8 * self.intervals


def _around_mean(values: torch.Tensor, half: int) -> torch.Tensor:
    """m + s · round((w − m) / s) with levels from −half to half − 1."""
    mean = values.mean()
    below, above = float(mean - values.min()), float(values.max() - mean)
    step = max(below / half, above / max(half - 1, 1), 1e-30)
    return mean + step * torch.clamp(torch.round((values - mean) / step), -half, half - 1)
