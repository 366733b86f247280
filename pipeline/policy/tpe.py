"""Optuna's tree-structured Parzen estimator over accuracy and latency at once.

Bergstra et al., NeurIPS 2011; for several objectives Ozaki et al., GECCO 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log
from typing import Any

from device_bench.errors import MissingExtraError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.random_search import RandomPolicy

# Optuna's own default; until then it samples at random.
STARTUP_TRIALS = 10
# Asked so often for each plan wanted, the sampler keeps to what it knows; the rest is drawn at random.
ASKS_PER_PLAN = 20


class TpePolicy:
    """Rebuilds Optuna's study from the history at each call, so a resumed run goes on as if never cut."""

    name = "tpe"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """New plans where good trials are denser than poor ones.

        Raises:
            MissingExtraError: Optuna is not installed.
        """
        study = _study(context, history)
        novelty = Novelty(history)
        plans: list[CompressionPlan] = []
        for _ in range(ASKS_PER_PLAN * count):
            if len(plans) == count:
                return plans
            plan = _plan(context, study.ask(_distributions(context)).params)
            if novelty.admits(plan):
                plans.append(plan)
        return plans + _drawn(context, history, plans, count - len(plans))


def _study(context: PolicyContext, history: Sequence[Trial]) -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "pipeline") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=(context.seed + len(history)) % 2**32, n_startup_trials=STARTUP_TRIALS
    )
    study = optuna.create_study(sampler=sampler, directions=["minimize", "minimize"])
    for trial in history:
        values = _values(context, trial)
        if context.space.contains(trial.plan) and values is not None:
            study.add_trial(
                optuna.trial.create_trial(
                    params=_parameters(context, trial.plan),
                    distributions=_distributions(context),
                    values=values,
                )
            )
    return study


def _values(context: PolicyContext, trial: Trial) -> tuple[float, float] | None:
    """Drop before recovery and the mean logarithm of latency over plain INT8's; None if it failed."""
    speedups = [context.speedup(trial, target.name) for target in context.targets]
    if trial.failure is not None or trial.accuracy is None or not isfinite(trial.accuracy):
        return None
    measured = [speedup for speedup in speedups if speedup is not None]
    if len(measured) < len(speedups):
        return None
    return context.drop(trial.accuracy), -sum(map(log, measured)) / len(measured)


def _distributions(context: PolicyContext) -> dict[str, Any]:
    """Widths as positions among those allowed, which are ordered; a block as 1 where it is gone."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    widths = {f"unit:{n}": IntDistribution(0, len(c) - 1) for n, c in context.space.choices.items()}
    return widths | {f"block:{n}": CategoricalDistribution((0, 1)) for n in context.space.removable}


def _parameters(context: PolicyContext, plan: CompressionPlan) -> dict[str, int]:
    choices = context.space.choices
    widths = {f"unit:{name}": ratios.index(plan.keep_ratio(name)) for name, ratios in choices.items()}
    return widths | {f"block:{name}": int(name in plan.removed) for name in context.space.removable}


def _plan(context: PolicyContext, parameters: dict[str, int]) -> CompressionPlan:
    keep = {name: ratios[parameters[f"unit:{name}"]] for name, ratios in context.space.choices.items()}
    return context.space.plan(keep, [n for n in context.space.removable if parameters[f"block:{n}"]])


def _drawn(
    context: PolicyContext, history: Sequence[Trial], plans: list[CompressionPlan], count: int
) -> list[CompressionPlan]:
    known = Novelty(history)
    for plan in plans:
        known.admits(plan)
    drawn = RandomPolicy().propose(context, history, count + len(plans))
    return [plan for plan in drawn if known.admits(plan)][:count]
