"""Recurrent policies on real trials: they go on where the last trials left their state.

RL² (Duan et al., 2016) was trained by what its plans earned, the recurrent learner by records of plans that
did well: `pipeline.learning.rl2` and `.recurrent` have the algorithms, `rl2_training` and
`recurrent_training` beside this train them. How a trained network is played is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext
from pipeline.policy.policy_file import PolicyFile, shipped_policy
from pipeline.policy.sequential import SequentialPlayer


class PlayedPolicy:
    """Plays on from what the history has left in its state.

    Args:
        trained: the parameters; those that come with the package where none are given.

    Raises:
        BadInputError: none come with the package yet.
    """

    name: ClassVar[str]

    def __init__(self, trained: PolicyFile | None = None) -> None:
        self._trained = shipped_policy(self.name) if trained is None else trained

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` plans: what it likes best first, then what it draws."""
        return self._player.propose(context, history, count)

    @cached_property
    def _player(self) -> SequentialPlayer:
        return SequentialPlayer.of(self._trained)


class Rl2Policy(PlayedPolicy):
    """Trained to earn most over the episodes of a task."""

    name = "rl2"


class RecurrentPolicy(PlayedPolicy):
    """Trained to build the plan that most likely makes the front of the history grow most."""

    name = "recurrent"
