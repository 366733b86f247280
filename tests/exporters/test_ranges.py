from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from exporters.ranges import BINS, Histogram, find_ranges, range_of
from pipeline.errors import ExportError
from pipeline.layer_choice import CalibrationMethod

METHODS: tuple[CalibrationMethod, ...] = ("minmax", "percentile", "entropy", "mse")


def passes(values: np.ndarray, parts: int = 4) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    return lambda: ({"x": part} for part in np.array_split(values, parts))


def with_outlier() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=100_000)
    values[7] = 40.0
    return values.astype(np.float32)


def error(values: np.ndarray, low: float, high: float) -> float:
    """The mean squared error of uint8, worked out without the histogram."""
    step = (high - low) / 255
    zero = np.round(-low / step)
    levels = np.clip(np.round(values / step) + zero, 0, 255)
    return float(np.mean((values - (levels - zero) * step) ** 2))


def test_minmax_is_what_there_is_and_zero_is_always_within() -> None:
    assert find_ranges(passes(np.float32([1.0, 2.0, 5.0, 3.0]))) == {"x": (0.0, 5.0)}
    assert find_ranges(passes(np.float32([-4.0, -2.0, -1.0, -3.0]))) == {"x": (-4.0, 0.0)}


def test_percentile_is_numpys_to_a_bin() -> None:
    values = with_outlier()
    low, high = find_ranges(passes(values), "percentile", 99.0)["x"]
    width = float(np.ptp(values)) / BINS
    assert low == pytest.approx(float(np.quantile(values, 0.005)), abs=2 * width)
    assert high == pytest.approx(float(np.quantile(values, 0.995)), abs=2 * width)


def test_mse_beats_every_other_range_of_its_grid() -> None:
    values = with_outlier()
    low, high = find_ranges(passes(values), "mse")["x"]
    found = error(values, low, high)
    others = [error(values, max(float(values.min()), -t), t) for t in np.linspace(2.0, 40.0, 39)]
    # The histogram stands for the values, so the two may differ by what a bin hides.
    assert found <= 1.05 * min(others)
    assert found < error(values, float(values.min()), float(values.max()))


def test_an_outlier_does_not_set_the_range() -> None:
    low, high = find_ranges(passes(with_outlier()), "entropy")["x"]
    assert -5.0 < low < -2.0
    assert 2.0 < high < 10.0


def test_zeros_of_a_relu_do_not_narrow_the_range() -> None:
    values = np.maximum(np.random.default_rng(1).normal(size=50_000), 0.0).astype(np.float32)
    low, high = find_ranges(passes(values), "entropy")["x"]
    assert low == 0.0
    assert high > 0.6 * values.max()


@pytest.mark.parametrize("method", METHODS)
def test_parts_make_no_difference(method: CalibrationMethod) -> None:
    values = with_outlier()
    assert find_ranges(passes(values, 1), method) == find_ranges(passes(values, 9), method)


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_tensor_has_its_one_value_as_range(method: CalibrationMethod) -> None:
    assert find_ranges(passes(np.full(8, 3.0, np.float32)), method) == {"x": (0.0, 3.0)}
    assert find_ranges(passes(np.zeros(8, np.float32)), method) == {"x": (0.0, 0.0)}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_named(bad: float) -> None:
    with pytest.raises(ExportError, match="tensor 'x' infinite or not a number"):
        find_ranges(passes(np.float32([1.0, bad, 2.0, 0.0])), "mse")


def test_memory_does_not_grow_with_the_samples() -> None:
    found = Histogram(-1.0, 1.0)
    for _ in range(5):
        found.add(np.random.default_rng(0).uniform(-1, 1, 10_000))
    assert found.counts.shape == (BINS,)
    assert found.counts.sum() == 50_000
    assert range_of(found, "minmax") == (-1.0, 1.0)
