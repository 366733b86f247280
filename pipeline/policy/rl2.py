"""RL² on real trials: a recurrent policy that goes on where its last trials left it (Duan et al., 2016).

`pipeline.learning.rl2` has the algorithm, `pipeline.policy.rl2_training` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.policy_file import PolicyFile, shipped_policy
from pipeline.policy.sequential import SequentialPlayer


class Rl2Policy:
    """Plays on from what the history has left in its state.

    Args:
        trained: the parameters; those that come with the package where none are given.

    Raises:
        BadInputError: none come with the package yet.
    """

    name = "rl2"

    def __init__(self, trained: PolicyFile | None = None) -> None:
        self._trained = shipped_policy(self.name) if trained is None else trained

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` plans: what it likes best first, then what it draws."""
        return self._player.propose(context, history, count)

    @cached_property
    def _player(self) -> SequentialPlayer:
        return SequentialPlayer.of(self._trained)
