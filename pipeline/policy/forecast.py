"""What the plan-value network predicts once it was adapted, corrected by what its errors on trials say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.experience import Trial
from pipeline.policy.plan_features import PlanFeatures
from pipeline.policy.plan_search import Outlook
from pipeline.policy.plan_value import Parameters, PlanBatch, trusted
from pipeline.policy.planner import LEAST_SEEN_GAIN, MOST_SEEN_GAIN, Tried
from pipeline.policy.residual_kernel import GAIN_NOISE, Errors, ResidualKernel
from pipeline.tables.codec import Options

LEAST_TOTAL = 1e-3
# So many of the last trials the network adapts to.
MOST_SUPPORT = 24
# The sums of effects follow the trials already; of what the kernel would correct besides, half is right. Half
# did better than all and none on families left out of training.
KERNEL_TRUST = 0.5

Adapt = Callable[[PlanBatch], Parameters]


@dataclass(frozen=True)
class Trained:
    """What was meta-learned besides the network's parameters.

    `kernels`: of what is predicted wrong, of ln T and of ln r. `trust`: how much of the network's corrections
    to measured single effects counts.
    """

    kernels: tuple[ResidualKernel, ResidualKernel]
    trust: float


@dataclass(frozen=True)
class Forecast:
    """A plan-value network that was adapted, corrected by what its errors on the task's trials say."""

    parameters: Parameters
    trained: Trained
    features: PlanFeatures
    trials: tuple[Trial, ...]
    errors: tuple[Errors, Errors]

    @classmethod
    def of(
        cls,
        adapt: Adapt,
        trained: Trained,
        features: PlanFeatures,
        tried: Tried,
    ) -> Forecast:
        """The forecast after trials."""
        if not len(tried.rows):
            batch = PlanBatch.of(features, tried.rows)
            parameters = adapt(batch)
            errors = errors_of(parameters, trained.trust, features, (tried.rows, batch))
            return cls(parameters, trained, features, (), errors)
        rows, support = support_of(features, tried)
        parameters = adapt(support)
        errors = errors_of(parameters, trained.trust, features, (rows, support))
        return cls(parameters, trained, features, tried.trials, errors)

    def outlook(self, rows: Options) -> Outlook:
        """What plans [n, positions] are predicted to do."""
        batch = PlanBatch.of(self.features, rows, self.trials)
        with torch.no_grad():
            total, log_ratio, damage = trusted(self.parameters, batch, self.trained.trust)
        roots, leaving = damage.double().sqrt().numpy(), 1.0 - self.features.codec.keep_of(rows)
        wrong, spread = self.trained.kernels[0].posterior(self.errors[0], roots, leaving)
        slow, _ = self.trained.kernels[1].posterior(self.errors[1], roots, leaving)
        return Outlook(
            total.double().numpy() * np.exp(KERNEL_TRUST * wrong),
            KERNEL_TRUST * spread,
            np.exp(log_ratio.double().numpy() + KERNEL_TRUST * slow),
            np.zeros(len(rows)),
        )


def errors_of(
    parameters: Parameters, trust: float, features: PlanFeatures, plans: tuple[Options, PlanBatch]
) -> tuple[Errors, Errors]:
    """What is predicted wrong of plans (rows and batch) whose outcomes are known: of ln T, and of ln r."""
    rows, outcomes = plans
    with torch.no_grad():
        total, log_ratio, damage = trusted(parameters, outcomes, trust)
    roots, leaving = damage.double().sqrt().numpy(), 1.0 - features.codec.keep_of(rows)
    true = -np.log(np.clip(outcomes.gain.double().numpy(), LEAST_SEEN_GAIN, MOST_SEEN_GAIN))
    wrong = np.log(true) - np.log(total.double().numpy() + LEAST_TOTAL)
    slow = (outcomes.log_ratio - log_ratio).double().numpy()
    return (
        Errors(roots, leaving, wrong, GAIN_NOISE / true),
        Errors(roots, leaving, slow, np.zeros(len(slow))),
    )


def support_of(features: PlanFeatures, tried: Tried) -> tuple[Options, PlanBatch]:
    """The last trials, each as it looked when only the others were known: rows and batch."""
    rows, trials = tried.rows[-MOST_SUPPORT:], tried.trials[-MOST_SUPPORT:]
    batch = PlanBatch.of(features, rows).after_each_other(features, rows, trials)
    return rows, batch.with_outcomes(tried.gains[-MOST_SUPPORT:], np.log(tried.costs[-MOST_SUPPORT:]))
