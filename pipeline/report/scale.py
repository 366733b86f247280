"""Axes: values to drawing units, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] in the data's unit to [start, stop] in drawing units."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Where `value` is drawn, to a tenth of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)


@dataclass(frozen=True)
class LogScale:
    """As `Scale`, but equal distances are equal ratios. All values are above zero."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Where `value` is drawn, to a tenth of a unit."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + share * (self.stop - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """One tick: where it is drawn, and what stands beside it."""

    position: float
    label: str


def nice_step(span: float, count: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that cuts `span` into about `count` parts.

    After Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990.
    """
    rough = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    fraction = rough / power
    nearest = 1.0 if fraction < 1.5 else 2.0 if fraction < 3.5 else 5.0 if fraction < 7.5 else 10.0
    return nearest * power


def padded(values: Sequence[float], share: float) -> tuple[float, float]:
    """The range of `values` widened by `share` of itself on both ends.

    A range without width is widened by a tenth of its value, or by 1 around zero.
    """
    low, high = min(values), max(values)
    margin = (high - low) * share
    if margin <= 0:
        margin = abs(low) * 0.1 or 1.0
    return low - margin, high + margin


def ticks(scale: Scale, count: int) -> tuple[Tick, ...]:
    """Ticks at round numbers inside the scale's range."""
    step = nice_step(scale.high - scale.low, count)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return tuple(
        Tick(scale(index * step), f"{index * step:.{decimals}f}".replace("-", "−"))
        for index in range(first, last + 1)
    )


# Mantissas of the ticks of a logarithmic axis, from the sparsest set to the densest.
_MANTISSAS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))


def log_ticks(scale: LogScale, count: int) -> tuple[Tick, ...]:
    """Ticks of the sparsest round numbers that give `count` or more; linear steps in a short range."""
    lowest, highest = math.floor(math.log10(scale.low)), math.floor(math.log10(scale.high))
    for mantissas in _MANTISSAS:
        values = [m * 10.0**power for power in range(lowest, highest + 1) for m in mantissas]
        values = [value for value in values if scale.low <= value <= scale.high]
        if len(values) >= count:
            return tuple(Tick(scale(value), f"{value:.10g}") for value in values)
    step = nice_step(scale.high - scale.low, count + 1)
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return tuple(Tick(scale(i * step), f"{i * step:.6g}") for i in range(max(1, first), last + 1))
