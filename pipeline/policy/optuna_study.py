"""A search by Optuna: what its samplers share when they propose plans.

A plan is one whole number a unit (the place of its width among those allowed, which are ordered) and one
choice a removable block. The objectives, both to be small, are the drop before recovery and the mean
logarithm of latency over plain INT8's. The first plans are drawn from the space itself, light and heavy ones
alike: Optuna's own random start would remove about half of the blocks in nearly every plan. The study is
built anew from the history at each call, so a resumed run goes on as if it had never been cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, log
from typing import Any

from device_bench.errors import MissingExtraError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.random_search import RandomPolicy, drawn_besides

# Asked so often for each plan wanted, the sampler keeps to what it knows; the rest is drawn at random.
ASKS_PER_PLAN = 20


@dataclass(frozen=True)
class OptunaSearch:
    """Proposes plans by one of Optuna's samplers.

    Args:
        sampler: makes it from the module `optuna` and a seed.
        startup: so many trials come at random before the sampler is asked.
        attributes: what the sampler keeps with a finished trial, from how many were placed before it.
    """

    context: PolicyContext
    history: Sequence[Trial]
    sampler: Callable[[Any, int], Any]
    startup: int
    attributes: Callable[[int], Mapping[str, Any]] = lambda place: {}

    def propose(self, count: int) -> list[CompressionPlan]:
        """Up to `count` new plans by the sampler; at random what it no longer varies.

        Raises:
            MissingExtraError: Optuna is not installed.
        """
        if len(self.history) < self.startup:
            return RandomPolicy().propose(self.context, self.history, count)
        study = self._study()
        novelty = Novelty(self.history)
        plans: list[CompressionPlan] = []
        for _ in range(ASKS_PER_PLAN * count):
            if len(plans) == count:
                return plans
            plan = self._plan(study.ask(self._distributions).params)
            if novelty.admits(plan):
                plans.append(plan)
        return plans + drawn_besides(self.context, self.history, plans, count - len(plans))

    def _study(self) -> Any:
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise MissingExtraError("optuna", "pipeline") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = (self.context.seed + len(self.history)) % 2**32
        study = optuna.create_study(sampler=self.sampler(optuna, seed), directions=["minimize", "minimize"])
        for place, (plan, values) in enumerate(self._placed()):
            study.add_trial(
                optuna.trial.create_trial(
                    params=self._parameters(plan),
                    distributions=self._distributions,
                    values=values,
                    system_attrs=dict(self.attributes(place)),
                )
            )
        return study

    def _placed(self) -> list[tuple[CompressionPlan, tuple[float, float]]]:
        """The tried plans of this space, with their objectives."""
        found = [(trial.plan, self._values(trial)) for trial in self.history]
        return [(p, values) for p, values in found if values is not None and self.context.space.contains(p)]

    def _values(self, trial: Trial) -> tuple[float, float] | None:
        """Both objectives; None if the trial failed or was not measured on every target."""
        if trial.failure is not None or trial.accuracy is None or not isfinite(trial.accuracy):
            return None
        speedups = [self.context.speedup(trial, target.name) for target in self.context.targets]
        measured = [speedup for speedup in speedups if speedup is not None]
        if len(measured) < len(speedups):
            return None
        return self.context.drop(trial.accuracy), -sum(map(log, measured)) / len(measured)

    @cached_property
    def _distributions(self) -> dict[str, Any]:
        """Widths as places among those allowed; a block as 1 where it is gone."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        space = self.context.space
        widths = {f"unit:{n}": IntDistribution(0, len(c) - 1) for n, c in space.choices.items()}
        return widths | {f"block:{n}": CategoricalDistribution((0, 1)) for n in space.removable}

    def _parameters(self, plan: CompressionPlan) -> dict[str, int]:
        space = self.context.space
        widths = {f"unit:{name}": c.index(plan.keep_ratio(name)) for name, c in space.choices.items()}
        return widths | {f"block:{name}": int(name in plan.removed) for name in space.removable}

    def _plan(self, parameters: Mapping[str, int]) -> CompressionPlan:
        space = self.context.space
        keep = {name: ratios[parameters[f"unit:{name}"]] for name, ratios in space.choices.items()}
        return space.plan(keep, [name for name in space.removable if parameters[f"block:{name}"]])
