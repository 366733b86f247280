"""Optuna's tree-structured Parzen estimator over accuracy and latency at once.

Bergstra et al., NeurIPS 2011; for several objectives Ozaki et al., GECCO 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.optuna_study import OptunaSearch

# Optuna's own default; until then plans come at random.
STARTUP_TRIALS = 10


class TpePolicy:
    """New plans where good trials are denser than poor ones."""

    name = "tpe"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` plans from the densities that the history gives.

        Raises:
            MissingExtraError: Optuna is not installed.
        """
        return OptunaSearch(context, history, _sampler, STARTUP_TRIALS).propose(count)


def _sampler(optuna: Any, seed: int) -> Any:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1)
