"""Plans at random: the baseline every other policy must beat (Bergstra and Bengio, JMLR 2012)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext

# After so many draws in a row that brought nothing new, the space counts as exhausted.
PATIENCE = 500


class RandomPolicy:
    """Samples the space."""

    name = "random"

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """New plans drawn from the space; the seed and the length of the history decide which."""
        rng = np.random.default_rng((context.seed, len(history)))
        novelty = Novelty(history)
        plans: list[CompressionPlan] = []
        in_vain = 0
        while len(plans) < count and in_vain < PATIENCE:
            plan = context.space.sample(rng)
            if novelty.admits(plan):
                plans.append(plan)
                in_vain = 0
            else:
                in_vain += 1
        return plans


def drawn_besides(
    context: PolicyContext, history: Sequence[Trial], plans: Sequence[CompressionPlan], count: int
) -> list[CompressionPlan]:
    """Up to `count` plans at random besides `plans`: for a policy that has no more of its own."""
    if count <= 0:
        return []
    known = Novelty(history)
    for plan in plans:
        known.admits(plan)
    drawn = RandomPolicy().propose(context, history, count + len(plans))
    return [plan for plan in drawn if known.admits(plan)][:count]
