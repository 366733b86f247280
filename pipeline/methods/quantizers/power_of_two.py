"""Sums of signed powers of two, the error of one weight carried on to the next: shifts instead of products.

w ≈ Σ ±2^k with `terms` terms, each the power of two nearest to what the ones before it left (Zhou et al.,
"Incremental Network Quantization", ICLR 2017, for one term). What rounding leaves of a weight is added to
the next one of the same output channel before that is rounded, as in error diffusion (Floyd and Steinberg,
1976), so the sum over a channel is nearly kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.base import (
    by_channel,
    check_bits,
    checked,
    packed_bytes,
    straight_through,
)

BITS = range(2, 9)


@dataclass(frozen=True)
class PowerOfTwo:
    """Powers from 2^(top − 2^(bits−1) + 2) to 2^top, where 2^top is the one nearest to the largest weight.

    Args:
        bits: of one term: its sign and its power, one of which is zero.
        terms: how many powers are summed.
        carry: whether a weight's error is carried on.
    """

    bits: int = 4
    terms: int = 2
    carry: bool = True

    def __post_init__(self) -> None:
        check_bits("power_of_two", self.bits, BITS)

    @classmethod
    def of(cls, form: WeightForm) -> PowerOfTwo:
        """The quantizer of a plan's form, whose bits are those of the whole weight."""
        # Below four bits a term, two have too few powers between them: one with all the bits loses less.
        return cls(form.bits // 2, 2) if form.bits >= 8 else cls(form.bits, 1)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        largest = values.abs().max()
        if float(largest) == 0.0:
            return straight_through(weight, values)
        top = int(torch.round(torch.log2(largest)))
        bottom = top - (2 ** (self.bits - 1) - 2)
        channels = by_channel(values, per_channel=True)
        found = torch.empty_like(channels)
        error = torch.zeros(len(channels))
        for place in range(channels.shape[1]):
            wanted = channels[:, place] + (error if self.carry else 0.0)
            found[:, place] = self._sum(wanted, bottom, top)
            error = wanted - found[:, place]
        return straight_through(weight, found.reshape(values.shape))

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Signs and powers, and the largest power."""
        return packed_bytes(weight.numel() * self.terms, self.bits) + 1

    def _sum(self, wanted: torch.Tensor, bottom: int, top: int) -> torch.Tensor:
        found = torch.zeros_like(wanted)
        for _ in range(self.terms):
            found = found + nearest_power(wanted - found, bottom, top)
        return found


def nearest_power(values: torch.Tensor, bottom: int, top: int) -> torch.Tensor:
    """The nearest of 0 and ±2^bottom … ±2^top."""
    size = values.abs()
    # Halfway between two powers is 1.5 times the smaller, so the logarithm is not what to round.
    lower = torch.exp2(torch.floor(torch.log2(size.clamp_min(2.0 ** (bottom - 1)))))
    power = torch.where(size >= 1.5 * lower, 2 * lower, lower).clamp(2.0**bottom, 2.0**top)
    return torch.where(size < 2.0 ** (bottom - 1), torch.zeros_like(size), power) * values.sign()
