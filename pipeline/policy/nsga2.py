"""Evolution of plans by Optuna's NSGA-II over accuracy and latency at once.

Deb et al., IEEE Transactions on Evolutionary Computation 2002: parents are the elite by non-dominated
sorting and crowding distance of the last generation and its own parents; children are crossed over and
mutated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.optuna_study import OptunaSearch

# Optuna's default of 50 leaves 200 trials three generations after the one at random; 20 leaves nine.
POPULATION = 20
# Where Optuna's sampler keeps which generation a trial is of.
GENERATION_KEY = "NSGAIISampler:generation"


class Nsga2Policy:
    """Children of the best plans so far; the first generation is drawn at random."""

    name = "nsga2"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` children of the last full generation of the history.

        Raises:
            MissingExtraError: Optuna is not installed.
        """
        return OptunaSearch(context, history, _sampler, POPULATION, _generation).propose(count)


def _sampler(optuna: Any, seed: int) -> Any:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


def _generation(place: int) -> Mapping[str, Any]:
    """A trial's generation: each is as many trials as the population has places."""
    return {GENERATION_KEY: place // POPULATION}
