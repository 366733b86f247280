"""How good a compressed model is: how fast and small it became, within what the budget allows.

    score = mean over targets of ln(base latency / latency)
          + MEMORY_WEIGHT * mean over targets of ln(base memory / memory)
          - ACCURACY_WEIGHT * share of the allowed drop that is used up
    total = 1 + score / (1 + |score|)                       every constraint is met: total in (0, 2)
    total = -2 - sum of violations + score / (1 + |score|)  otherwise: total below 0

A budget is a constraint, so x / (1 + |x|), which only rises, keeps any feasible model above all infeasible
ones. Latencies enter as logarithms, as in MnasNet's weighted product (Tan et al., CVPR 2019, eq. 2): twice as
fast is worth the same on a slow target and on a fast one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log

from pydantic import Field

from device_bench.errors import BadInputError
from device_bench.protocol import Measurement, Record
from pipeline.data.base import Metric
from pipeline.task import Budget

ACCURACY_WEIGHT = 0.1
MEMORY_WEIGHT = 0.1
# Differences of a few pages are noise of the allocator; this much is added to both sides of a ratio.
MEMORY_GRAIN_BYTES = 1 << 20
# An accuracy that meets the limit up to rounding meets it.
TOLERANCE = 1e-9


class Baseline(Record):
    """What a compressed model is compared with on one target.

    `accuracy`: the float model's metric on the split that judges. The rest is of the plain INT8 export.
    """

    target: str
    accuracy: float
    metric: Metric = Metric.ACCURACY
    latency_ms: float = Field(gt=0)
    peak_memory_bytes: int


class RewardParts(Record):
    """A reward and what it is made of, by target where a target has its own share.

    `accuracy`, `speed` and `memory` are the weighted terms of the score. `violations` has, for each
    constraint that is missed, the excess as a share of its limit; it is empty for a feasible model.
    """

    accuracy: float
    speed: dict[str, float]
    memory: dict[str, float]
    violations: dict[str, float]
    total: float

    @property
    def feasible(self) -> bool:
        """True if every constraint of the budget is met."""
        return not self.violations


def reward(
    accuracy: float,
    measurements: Mapping[str, Measurement],
    budget: Budget,
    baselines: Sequence[Baseline],
) -> RewardParts:
    """The reward of a model that was really measured on every target.

    Args:
        accuracy: the task's metric of the compressed model, on the split its baseline was judged on.
        measurements: by the name of the target, one for each baseline.
        budget: the constraints.
        baselines: one for each target.

    Raises:
        BadInputError: a measurement is missing, left over or of an emulated device, or a figure not finite.
    """
    _check(accuracy, measurements, baselines)
    share = 1.0 / len(baselines)
    used = max(_used_drop(accuracy, budget, baseline) for baseline in baselines)
    speed, memory = {}, {}
    violations = {"max_drop": used - 1.0} if used > 1.0 else {}
    for baseline in baselines:
        found = measurements[baseline.target]
        speed[baseline.target] = share * log(baseline.latency_ms / found.latency.p50_ms)
        before, after = (
            max(peak, 0) + MEMORY_GRAIN_BYTES
            for peak in (baseline.peak_memory_bytes, found.memory.peak_bytes)
        )
        memory[baseline.target] = MEMORY_WEIGHT * share * log(before / after)
        violations |= _violations(found, budget, baseline)
    term = -ACCURACY_WEIGHT * min(max(used, 0.0), 1.0)
    score = term + sum(speed.values()) + sum(memory.values())
    squashed = score / (1.0 + abs(score))
    total = -2.0 - sum(violations.values()) + squashed if violations else 1.0 + squashed
    return RewardParts(accuracy=term, speed=speed, memory=memory, violations=violations, total=total)


def _used_drop(accuracy: float, budget: Budget, baseline: Baseline) -> float:
    """The drop as a share of the allowed one; where none is allowed, 1 plus the drop in points."""
    drop = baseline.metric.drop(baseline.accuracy, accuracy)
    if drop <= budget.max_drop + TOLERANCE:
        return min(1.0, drop / budget.max_drop) if budget.max_drop > 0 else 0.0
    return drop / budget.max_drop if budget.max_drop > 0 else 1.0 + drop


def _violations(found: Measurement, budget: Budget, baseline: Baseline) -> dict[str, float]:
    """What a measurement misses, as shares of the limits, by "constraint on target"."""
    latency = found.latency.p50_ms
    limits = {
        "max_latency_ms": (latency, budget.max_latency_ms),
        "min_speedup": (latency, baseline.latency_ms / budget.min_speedup if budget.min_speedup else None),
        "max_peak_memory_bytes": (found.memory.peak_bytes, budget.max_peak_memory_bytes),
        "max_artifact_bytes": (found.memory.file_bytes, budget.max_artifact_bytes),
    }
    return {
        f"{name} on {baseline.target}": value / limit - 1.0
        for name, (value, limit) in limits.items()
        if limit is not None and value > limit
    }


def _check(accuracy: float, measurements: Mapping[str, Measurement], baselines: Sequence[Baseline]) -> None:
    expected = sorted(baseline.target for baseline in baselines)
    if not expected or sorted(measurements) != expected:
        raise BadInputError(
            f"a reward needs one measurement for each baseline; got measurements of {sorted(measurements)} "
            f"and baselines of {expected}"
        )
    if not isfinite(accuracy):
        raise BadInputError(f"accuracy must be finite; got {accuracy}: record the trial as failed instead")
    for name, found in measurements.items():
        if found.conditions.device.emulated:
            raise BadInputError(
                f"the measurement of {name} is from an emulated device ({found.conditions.device.hostname}), "
                "whose times are no reward; measure on a real one"
            )
        if not (isfinite(found.latency.p50_ms) and found.latency.p50_ms > 0):
            raise BadInputError(f"p50 of {name} must be above 0 ms; got {found.latency.p50_ms}")
