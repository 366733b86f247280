"""Quantization ranges from calibration samples: min-max, percentile, entropy or mean squared error.

Every tensor keeps its smallest and largest value and a histogram of fixed size, so memory grows with the
number of tensors and not with that of the samples. The samples pass twice: once for the bounds, once for
what lies between them.

- percentile: what remains when (1 − p) / 2 of the values is cut off at either end.
- mse: values are cut off at ±t; the t for which Σ (x − Q(x))² is least.
- entropy: the same for the t for which KL(P ‖ Q) is least, P being the histogram with what lies outside
  counted at its ends and Q the histogram that the levels can tell apart (Migacz, "8-bit Inference with
  TensorRT", 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import ExportError
from pipeline.layer_choice import CalibrationMethod

Range = tuple[float, float]
# One pass over all samples: the values of each tensor, a few samples at a time.
Pass = Callable[[], Iterable[Mapping[str, np.ndarray]]]

BINS = 2048
SHRINKS = np.linspace(1.0, 0.05, 96)
LEVELS = 256


@dataclass
class Histogram:
    """How often a tensor's values fell where, between bounds that are known beforehand.

    Args:
        low, high: the smallest and the largest value.
        counts: float64 [BINS].
    """

    low: float
    high: float
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, values: np.ndarray) -> None:
        """Count more values; none lies outside the bounds."""
        if self.high > self.low:
            self.counts += np.histogram(values, BINS, (self.low, self.high))[0]

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin."""
        width = (self.high - self.low) / BINS
        return self.low + width * (np.arange(BINS) + 0.5)


def find_ranges(
    passes: Pass, method: CalibrationMethod = "minmax", percentile: float = 99.99
) -> dict[str, Range]:
    """The range of each tensor, zero always within.

    Args:
        passes: called once for "minmax", twice for the others; gives the same values each time.
        percentile: the share of values to keep, in percent.

    Raises:
        ExportError: a value is not finite; names the tensor.
    """
    bounds = _bounds(passes())
    if method == "minmax":
        return {name: _with_zero(*found) for name, found in bounds.items()}
    histograms = {name: Histogram(*found) for name, found in bounds.items()}
    for values in passes():
        for name, array in values.items():
            histograms[name].add(array)
    return {name: _with_zero(*range_of(found, method, percentile)) for name, found in histograms.items()}


def range_of(found: Histogram, method: CalibrationMethod, percentile: float = 99.99) -> Range:
    """The range that the method makes of one histogram."""
    if found.high <= found.low or method == "minmax":
        return found.low, found.high
    if method == "percentile":
        return _percentile(found, percentile)
    cost = _squared_error if method == "mse" else _divergence
    if method == "entropy":
        found = _without_zero(found)
    whole = max(-found.low, found.high)
    ranges = [_with_zero(max(found.low, -s * whole), min(found.high, s * whole)) for s in SHRINKS]
    return min(ranges, key=lambda each: cost(found, *each))


def _bounds(batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for values in batches:
        for name, array in values.items():
            low, high = float(array.min()), float(array.max())
            if not np.isfinite(low) or not np.isfinite(high):
                raise ExportError(
                    f"calibration makes tensor {name!r} infinite or not a number; look for NaN in the "
                    "samples and for weights that are not finite"
                )
            known = found.get(name, (low, high))
            found[name] = (min(known[0], low), max(known[1], high))
    return found


def _percentile(found: Histogram, percentile: float) -> Range:
    below = np.cumsum(found.counts) / found.counts.sum()
    cut = (1.0 - percentile / 100.0) / 2.0
    edges = np.linspace(found.low, found.high, BINS + 1)
    first = int(np.searchsorted(below, cut, side="right"))
    last = int(np.searchsorted(below, 1.0 - cut, side="left"))
    return float(edges[first]), float(edges[min(last + 1, BINS)])


def _squared_error(found: Histogram, low: float, high: float) -> float:
    step = (high - low) / (LEVELS - 1)
    zero = round(-low / step)
    values = found.centres
    level = np.clip(np.round(values / step) + zero, 0, LEVELS - 1)
    return float((found.counts * (values - (level - zero) * step) ** 2).sum())


def _without_zero(found: Histogram) -> Histogram:
    """The histogram with as many zeros as values next to them: a zero is stored exactly, whatever the range.

    Half of what a ReLU leaves is zero. Spread over the bins that share a level with it, that alone would call
    for the narrowest range there is.
    """
    counts = found.counts.copy()
    zero = int(np.argmin(np.abs(found.centres)))
    beside = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < BINS]
    counts[zero] = min(counts[zero], float(np.mean(beside)))
    return Histogram(found.low, found.high, counts)


def _divergence(found: Histogram, low: float, high: float) -> float:
    inside = (found.centres >= low) & (found.centres <= high)
    kept = found.counts[inside]
    if kept.size < LEVELS:
        return float("inf")
    clipped = kept.copy()
    clipped[0] += found.counts[found.centres < low].sum()
    clipped[-1] += found.counts[found.centres > high].sum()
    # What the levels can tell apart: each spreads its mass evenly over the bins of it that hold any.
    level = (np.arange(kept.size) * LEVELS) // kept.size
    mass = np.bincount(level, kept, LEVELS)
    taken = np.bincount(level, kept > 0, LEVELS)
    spread = np.where(kept > 0, mass[level] / np.maximum(taken[level], 1.0), 0.0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    seen = p > 0
    # A bin that only holds what was cut off has no level of its own; it may not cost everything.
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-9))).sum())


def _with_zero(low: float, high: float) -> Range:
    return min(low, 0.0), max(high, 0.0)
