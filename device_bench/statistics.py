"""What follows from raw samples: percentiles, intervals, and whether the measurement settled.

Percentiles are of type 7 of Hyndman & Fan (1996), numpy's default. Intervals are percentile bootstrap
intervals (Efron & Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import Latency

_NS_PER_MS = 1e6
_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)

# The stretches whose medians must agree for a measurement to have settled, and by how much.
_STRETCHES = 4
SETTLED_WITHIN = 0.05

# Iglewicz & Hoaglin (1993): the modified z-score scales the median absolute deviation by 0.6745, the 0.75
# quantile of the normal distribution. The limit is hyperfine's: ten standard deviations of a normal sample.
_MAD_TO_SIGMA = 0.6745
_OUTLIER_SCORE = 10.0
# Some outliers are always there; a warning is due when they are more than this share.
_OUTLIER_SHARE = 0.02


# The ratio of medians is given up only where this interval (in percentiles) of the ratio of means excludes
# it, and it lies further off than that; with fewer rounds there is no such interval.
_DISPROOF = (0.05, 99.95)
_DISPROOF_APART = 0.01
_FEWEST_TO_DISPROVE = 6


class Ratio(NamedTuple):
    """A ratio with its 95 % interval. `of_means`: of mean times, since something took turns with the runs."""

    ratio: float
    low: float
    high: float
    of_means: bool = False


def latency(samples_ns: Sequence[int], seed: int = 0) -> Latency:
    """Derive a `Latency` from raw durations in ns.

    `std_ms` has n − 1 in its denominator and is 0 for a single sample.

    Raises:
        ValueError: there are no samples.
    """
    samples = np.asarray(samples_ns, dtype=np.float64)
    if samples.size == 0:
        raise ValueError("samples_ns must hold at least one sample; got none")
    p50, p90, p95, p99 = np.percentile(samples, [50, 90, 95, 99]) / _NS_PER_MS
    low, high = median_interval(samples, seed)
    return Latency(
        samples=samples.size,
        min_ms=samples.min() / _NS_PER_MS,
        mean_ms=samples.mean() / _NS_PER_MS,
        std_ms=samples.std(ddof=1) / _NS_PER_MS if samples.size > 1 else 0.0,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        p50_low_ms=low / _NS_PER_MS,
        p50_high_ms=high / _NS_PER_MS,
    )


def median_interval(samples: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the median, in the unit of `samples` [n].

    No resample is built. Drawing n values with replacement from n sorted ones draws n uniform ranks, and the
    k-th smallest of n uniforms is Beta(k, n − k + 1) (David & Nagaraja 2003, section 2.3): the median of a
    resample is the sample at that rank. For even n the upper of the two middle ranks is drawn given the
    lower one u: u + (1 − u) · Beta(1, n − k).
    """
    rng = np.random.default_rng(seed)
    ordered = np.sort(samples)
    n = ordered.size
    k = (n + 1) // 2
    lower = rng.beta(k, n - k + 1, size=_RESAMPLES)
    medians = ordered[_rank(lower, n)]
    if n % 2 == 0:
        upper = lower + (1 - lower) * rng.beta(1, n - k, size=_RESAMPLES)
        medians = (medians + ordered[_rank(upper, n)]) / 2
    low, high = np.percentile(medians, _INTERVAL)
    return float(low), float(high)


def _rank(uniform: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    return np.minimum((uniform * n).astype(np.int64), n - 1)


def ratio_of_rounds(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], seed: int = 0) -> Ratio:
    """The speed of two artifacts from interleaved rounds.

    Each round gives median(first) / median(second); the ratio is the median over rounds. Both halves of a
    round ran next to each other, so a drift of the machine cancels. The interval resamples rounds, not
    samples: samples of one round depend on each other, and rounds are the highest level that was repeated
    (Kalibera & Jones 2013, "Rigorous benchmarking in reasonable time", section 9).

    Where another process takes turns with the runs, a run lasts its own time plus a whole number of the
    scheduler's slices: medians then jump by a slice, to another ratio altogether. Mean times stay in
    proportion, and are noisier on a quiet machine. So the two are compared as in Hausman (1978,
    "Specification tests in econometrics"): the precise estimate holds unless the one that is right in both
    cases excludes it; then mean(first) / mean(second) of each round is used instead.

    Args:
        first: per round the durations of the first artifact, in ns.
        second: the same for the second; as many rounds.

    Returns:
        The ratio, above 1 where the second is faster, with its 95 % interval.
    """
    pairs = list(zip(first, second, strict=True))
    by_medians = np.array([np.median(a) / np.median(b) for a, b in pairs], dtype=np.float64)
    by_means = np.array([np.mean(a) / np.mean(b) for a, b in pairs], dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(pairs), size=(_RESAMPLES, len(pairs)))
    precise, safe = float(np.median(by_medians)), float(np.median(by_means))
    lowest, highest = np.percentile(np.median(by_means[drawn], axis=1), _DISPROOF)
    of_means = (
        len(pairs) >= _FEWEST_TO_DISPROVE
        and not lowest <= precise <= highest
        and abs(precise - safe) > _DISPROOF_APART * safe
    )
    chosen = by_means if of_means else by_medians
    low, high = np.percentile(np.median(chosen[drawn], axis=1), _INTERVAL)
    return Ratio(safe if of_means else precise, float(low), float(high), of_means)


def drift_note(samples_ns: Sequence[int]) -> str | None:
    """Why a measurement did not settle, or None if it did.

    Settled: the medians of four equal stretches, in the order they were taken, lie within 5 % of the whole.
    """
    samples = np.asarray(samples_ns, dtype=np.float64)
    if samples.size < 2 * _STRETCHES:
        return None
    medians = [float(np.median(part)) for part in np.array_split(samples, _STRETCHES)]
    spread = (max(medians) - min(medians)) / float(np.median(samples))
    if spread <= SETTLED_WITHIN:
        return None
    return (
        f"did not settle: the p50 of its quarters ran from {min(medians) / _NS_PER_MS:.4g} to "
        f"{max(medians) / _NS_PER_MS:.4g} ms ({100 * spread:.0f} % apart); measure again on a quieter machine"
    )


def outlier_note(samples_ns: Sequence[int]) -> str | None:
    """What to know about outliers (modified z-score above 10), or None where they are few."""
    samples = np.asarray(samples_ns, dtype=np.float64)
    median = np.median(samples)
    deviation = float(np.median(np.abs(samples - median)))
    if deviation == 0.0:
        return None
    scores = _MAD_TO_SIGMA * np.abs(samples - median) / deviation
    share = float(np.mean(scores > _OUTLIER_SCORE))
    if share <= _OUTLIER_SHARE:
        return None
    return (
        f"{100 * share:.1f} % of the samples are outliers: something else ran meanwhile; trust p50, not p99"
    )
