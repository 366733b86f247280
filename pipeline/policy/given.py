"""No search: the one plan that the user wrote."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext


class GivenPolicy:
    """Proposes its plan once, and nothing after it."""

    name = "given"

    def __init__(self, plan: CompressionPlan) -> None:
        self._plan = plan

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """The plan, if nothing was tried yet.

        Raises:
            PlanError: it does not fit the model; names the unit, block or layer, and the reason.
        """
        return [] if history or count < 1 else [self._plan.checked(context.graph)]
