"""Polynomial companding: quantize f(w), not w, for a rising polynomial f that gives dense values more levels.

f(x) = Σ cᵢ (1 − (1 − x)^dᵢ) of x = |w| / max|w|, with no cᵢ below zero and Σ cᵢ = 1, rises from 0 to 1. Its
slope is fitted to the cube root of the weights' density, where many levels make the least squared error
(Gersho and Gray, "Vector Quantization and Signal Compression", 1992, section 5.6). Levels are spaced evenly
in f and inverted by a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.base import check_bits, checked, packed_bytes, straight_through

BITS = range(2, 9)
# The higher the degree, the steeper at zero, where weights are dense.
DEGREES = (1, 2, 4, 8, 16)
GRID = 1024


@dataclass(frozen=True)
class Companding:
    """One polynomial for a layer.

    Args:
        bits: 2 to 8, one of which is the sign.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        check_bits("companding", self.bits, BITS)

    @classmethod
    def of(cls, form: WeightForm) -> Companding:
        """The quantizer of a plan's form."""
        return cls(form.bits)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        largest = float(values.abs().max())
        if largest == 0.0:
            return straight_through(weight, values)
        share = (values.abs() / largest).double().flatten().numpy()
        coefficients = fitted(share)
        top = 2 ** (self.bits - 1) - 1
        level = np.round(companded(share, coefficients) * top) / top
        grid = np.linspace(0.0, 1.0, GRID)
        back = np.interp(level, companded(grid, coefficients), grid)
        found = torch.from_numpy(back).reshape(values.shape).to(values.dtype) * values.sign() * largest
        return straight_through(weight, found)

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Levels, the coefficients and the largest weight."""
        return packed_bytes(weight.numel(), self.bits) + 4 * (len(DEGREES) + 1)


def companded(share: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """f(x) = Σ cᵢ (1 − (1 − x)^dᵢ) with Σ cᵢ = 1: from f(0) = 0 to f(1) = 1, rising.

    Args:
        share: |w| / max|w|, from 0 to 1.
        coefficients: [len(DEGREES)], none below zero.
    """
    powers = np.stack([1.0 - (1.0 - share) ** degree for degree in DEGREES], axis=-1)
    result: np.ndarray = powers @ coefficients
    return result


def fitted(share: np.ndarray) -> np.ndarray:
    """Coefficients whose slope comes near the cube root of the density, where error is least for many levels.

    Args:
        share: |w| / max|w| of all weights.
    """
    density, edges = np.histogram(share, 64, (0.0, 1.0), density=True)
    centres = (edges[1:] + edges[:-1]) / 2
    slopes = np.stack([degree * (1.0 - centres) ** (degree - 1) for degree in DEGREES], axis=-1)
    found, _ = nnls(slopes, np.cbrt(density))
    total = found.sum()
    if total <= 0.0:
        found, total = np.eye(len(DEGREES))[0], 1.0
    result: np.ndarray = found / total
    return result
