"""Whether one policy is better than another, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_bench.errors import BadInputError

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
RESAMPLES = 99_999


@dataclass(frozen=True)
class Interval:
    """A mean and where it is, at `CONFIDENCE`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to. `difference`: ours less theirs, the mean over tasks and seeds."""

    difference: float
    p: float
    tasks: int
    seeds: int

    @property
    def better(self) -> bool:
        """True if ours is better and chance alone would seldom make it look so."""
        return self.difference > 0.0 and self.p < SIGNIFICANT


def interval_of(values: Sequence[float]) -> Interval:
    """The mean of one value a seed, and Student's t interval of it (n − 1 degrees of freedom).

    One value alone, or equal ones, make an interval without width.

    Raises:
        BadInputError: no values.
    """
    from scipy.stats import t

    if not values:
        raise BadInputError("an interval needs at least one value; got none")
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    reach = error * float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) if error > 0 else 0.0
    return Interval(mean, mean - reach, mean + reach)


def compare(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Verdict:
    """Paired permutation test of ours against theirs, by task one value a seed.

    Under the null hypothesis the sign of each pair's difference is a coin's. Seeds of one task are not
    independent (a policy without chance gives all of them alike), so all of a task are flipped together
    (Fisher, "The Design of Experiments", 1935, chapter 3): one-sided, exact for up to 16 tasks. With fewer
    than five tasks no p is below 0.05, whatever the difference.

    Raises:
        BadInputError: no tasks, or not the same tasks and seeds on both sides.
    """
    from scipy.stats import permutation_test

    shapes = [{task: len(values) for task, values in side.items()} for side in (ours, theirs)]
    if not ours or shapes[0] != shapes[1] or 0 in shapes[0].values():
        raise BadInputError(
            f"a comparison needs the same tasks and seeds on both sides; got {shapes[0]} and {shapes[1]}"
        )
    tasks = sorted(ours)
    first = np.array([np.mean(ours[task]) for task in tasks])
    second = np.array([np.mean(theirs[task]) for task in tasks])
    difference = float((first - second).mean())
    if len(tasks) == 1:
        # Two signs and one task: a coin decides.
        p = 0.5 if difference > 0 else 1.0
    else:
        found = permutation_test(
            (first, second),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            alternative="greater",
            rng=np.random.default_rng(0),
        )
        p = float(found.pvalue)
    return Verdict(difference, p, len(tasks), min(shapes[0].values()))
