"""The contract between what acts and what is acted in: a few arrays a step, for many lanes at once.

A lane plays episode after episode. Episodes of one task follow each other; where a lane goes on to another
task, its time step says so, and a learner forgets. Nothing here knows about plans: bandits obey it as well.
After dm_env (DeepMind, 2019), whose `reset` and `step` these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Choices = NDArray[np.int64]


@dataclass(frozen=True)
class Spec:
    """Sizes: of the state, of the most options there are, and of what is told of each option."""

    features: int
    options: int
    option_features: int


@dataclass(frozen=True)
class Observation:
    """What every lane sees before it chooses one of its options.

    `features` float32 [lanes, features]; `options` float32 [lanes, options, option features]; `mask` bool
    [lanes, options], at least one of them allowed; `prior` float32 [lanes, options], log-odds of a choice
    that knows nothing but the rules of thumb, 0 where there are none.
    """

    features: Floats
    options: Floats
    mask: Flags
    prior: Floats


@dataclass(frozen=True)
class TimeStep:
    """What came of an action, and what is seen next; every array is [lanes].

    `reward`: of the action before. `last`: that action ended an episode. `failed`: that episode has no
    outcome; its reward is 0 and nothing is to be learned from it. `fresh`: the observation is the first one
    of another task.
    """

    observation: Observation
    reward: Floats
    last: Flags
    failed: Flags
    fresh: Flags


class Environment(Protocol):
    """Lanes that are played side by side."""

    @property
    def lanes(self) -> int:
        """How many."""
        ...

    @property
    def spec(self) -> Spec:
        """What observations look like."""
        ...

    def reset(self) -> TimeStep:
        """Begin anew in every lane; the same again after each reset."""
        ...

    def step(self, actions: Choices) -> TimeStep:
        """Take one option in every lane, int64 [lanes]; an episode that ends is followed by the next.

        Raises:
            BadInputError: actions of another shape, or one that the mask does not allow.
        """
        ...
