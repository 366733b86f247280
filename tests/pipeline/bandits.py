"""Bernoulli bandits in lanes: a task is a few pulls of arms whose chances are drawn anew for each task."""

from __future__ import annotations

import numpy as np

from device_bench.errors import BadInputError
from pipeline.environment.contract import Choices, Observation, Spec, TimeStep


class Bandits:
    """The family that RL² was first shown on: chances of arms are uniform, an episode is one pull."""

    def __init__(self, lanes: int, arms: int, pulls: int, seed: int) -> None:
        self._lanes, self._arms, self._pulls, self._seed = lanes, arms, pulls, seed

    @property
    def lanes(self) -> int:
        return self._lanes

    @property
    def spec(self) -> Spec:
        return Spec(features=1, options=self._arms, option_features=self._arms)

    def reset(self) -> TimeStep:
        self._rng = np.random.default_rng(self._seed)
        no = np.zeros(self._lanes, np.bool_)
        return TimeStep(self._new_task(), np.zeros(self._lanes, np.float32), no, no, ~no)

    def step(self, actions: Choices) -> TimeStep:
        if np.shape(actions) != (self._lanes,) or actions.dtype.kind != "i":
            raise BadInputError(f"actions must be {self._lanes} whole numbers")
        if not ((actions >= 0) & (actions < self._arms)).all():
            raise BadInputError("the mask allows arms only")
        chance = self._chances[np.arange(self._lanes), actions]
        reward = (self._rng.random(self._lanes) < chance).astype(np.float32)
        self._pulled += 1
        no = np.zeros(self._lanes, np.bool_)
        if self._pulled == self._pulls:
            return TimeStep(self._new_task(), reward, ~no, no, ~no)
        return TimeStep(self._seen(), reward, ~no, no, no)

    def _new_task(self) -> Observation:
        self._chances = self._rng.random((self._lanes, self._arms))
        self._pulled = 0
        return self._seen()

    def _seen(self) -> Observation:
        shape = (self._lanes, self._arms)
        return Observation(
            np.zeros((self._lanes, 1), np.float32),
            np.tile(np.eye(self._arms, dtype=np.float32), (self._lanes, 1, 1)),
            np.ones(shape, np.bool_),
            np.zeros(shape, np.float32),
        )
