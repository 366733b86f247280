"""The policy that ships as the default: of the trained ones, the one that did best on held-out tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.policy_file import SHIPPED_FOLDER, SUFFIX, load_policy_file

META = "meta"


class MetaPolicy:
    """The policy that comes with the package as the default; of whatever learner did best.

    Raises:
        BadInputError: it is missing, damaged or of another version.
    """

    name = META

    def __init__(self) -> None:
        from pipeline.policy import policy_of

        self._best = policy_of(load_policy_file(SHIPPED_FOLDER / f"{META}{SUFFIX}"))

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """What the best policy proposes."""
        return self._best.propose(context, history, count)

    def attribute(
        self, context: PolicyContext, history: Sequence[Trial], plan: CompressionPlan
    ) -> Mapping[str, Mapping[str, float]]:
        """What the best policy decides by; empty where it cannot tell."""
        told = getattr(self._best, "attribute", None)
        return {} if told is None else cast("Mapping[str, Mapping[str, float]]", told(context, history, plan))
