"""Lagrange multipliers for constraints that no space can hold by construction, such as peak memory.

For min f(x) subject to g_i(x) <= 0 the multipliers climb the dual function,

    lambda_i <- min(MOST, max(0, lambda_i + rate * g_i(x)))     x a minimiser of f + penalty   (dual ascent)
    penalty(x) = sum_i lambda_i * max(0, g_i(x))

(Arrow, Hurwicz and Uzawa, 1958; for policies Tessler et al., ICLR 2019.) Here g is a figure over its limit,
less 1: negative is what is left of the limit. Room that is left earns nothing: with x scored by max(0, g)
every lambda above the saddle point's has the same minimiser, so a multiplier that went too high does no harm,
and a plan that undercuts one limit cannot buy the excess over another with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

from device_bench.errors import BadInputError

# A constraint that nothing meets would drive its multiplier up for ever; so much outweighs any score.
MOST = 1e3


@dataclass(frozen=True)
class Multipliers:
    """One multiplier a constraint, by its name; a constraint that was never violated has none.

    Args:
        rate: how far a violation of 1 (twice the limit) lifts its multiplier.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.5

    def __post_init__(self) -> None:
        if not (isfinite(self.rate) and self.rate > 0.0):
            raise BadInputError(f"rate of the multipliers must be above 0; got {self.rate}")

    def updated(self, violations: Mapping[str, float]) -> Multipliers:
        """The multipliers after one step of dual ascent.

        Args:
            violations: figure over limit, less 1, by constraint; negative where room is left. A constraint
                not named keeps its multiplier.

        Raises:
            BadInputError: a violation is not a number.
        """
        moved = {
            name: min(MOST, max(0.0, self.values.get(name, 0.0) + self.rate * _number(name, excess)))
            for name, excess in violations.items()
        }
        return replace(self, values={**self.values, **moved})

    def penalty(self, violations: Mapping[str, float]) -> float:
        """What to take off a score, at least 0; the excess of each constraint by its multiplier."""
        return sum(
            self.values.get(name, 0.0) * max(0.0, _number(name, excess))
            for name, excess in violations.items()
        )


def mean_violations(outcomes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean over many outcomes of each constraint they name: what a batch's update takes."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        for name, excess in outcome.items():
            found.setdefault(name, []).append(_number(name, excess))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _number(name: str, excess: float) -> float:
    if not isfinite(excess):
        raise BadInputError(
            f"the violation of {name} must be a number; got {excess}: record that trial as failed instead"
        )
    return excess
