"""RL²: a recurrent policy whose state lives across the episodes of one task (Duan et al., 2016).

    u_t = (state_t, what is told of the action a_{t−1}, r_{t−1}, whether an episode ended)
    h_t = GRU(h_{t−1}, u_t),  forgotten only where another task begins;  a_t ~ π(· | h_t)

The outer algorithm is PPO on the sum of rewards over all episodes of a task, so that trying something out
pays if later episodes gain from it: the fast learner is in the state. `Memory.EPISODE` is its ablation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from device_bench.errors import BadInputError
from pipeline.environment.contract import Environment, Observation, Spec, TimeStep
from pipeline.learning.adam import AdamState, adam_start
from pipeline.learning.ppo import PpoSettings, Rollout, ppo_update
from pipeline.learning.recurrent_net import Parameters, Steps, first_state, fresh_parameters, unroll


class Memory(StrEnum):
    """What the state outlives."""

    TASK = "task"
    EPISODE = "episode"


@dataclass(frozen=True)
class Rl2Settings:
    """`updates` rollouts of `steps` steps in all lanes, each from the first episode of its tasks on.

    The learning rate falls linearly to a tenth.
    """

    updates: int = 200
    steps: int = 128
    hidden: int = 48
    memory: Memory = Memory.TASK
    ppo: PpoSettings = field(default_factory=PpoSettings)


@dataclass(frozen=True)
class Rl2State:
    """Where training stands: updates done, parameters, optimiser, and the mean reward of each rollout."""

    done: int
    parameters: Parameters
    optimiser: AdamState
    rewards: tuple[float, ...] = ()


def rl2_start(spec: Spec, settings: Rl2Settings, seed: int) -> Rl2State:
    """The state before the first update."""
    parameters = fresh_parameters(input_size(spec), spec.option_features, settings.hidden, seed)
    return Rl2State(0, parameters, adam_start(parameters))


def train_rl2(
    environment_of: Callable[[int], Environment],
    state: Rl2State,
    settings: Rl2Settings,
    seed: int,
    after_update: Callable[[Rl2State], None] = lambda state: None,
) -> Rl2State:
    """Update after update until `settings.updates` are done; the same again from any state on the way.

    Args:
        environment_of: the environment of an update, from a seed.
        after_update: sees each state, to store it or to tell of it.

    Raises:
        BadInputError: parameters are no longer finite.
    """
    while state.done < settings.updates:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + state.done) % 2**62)
        environment = environment_of(int(torch.randint(2**31, (1,), generator=generator)))
        rollout = play(environment, state.parameters, settings, generator)
        rate = settings.ppo.rate * (1.0 - 0.9 * state.done / settings.updates)
        ppo = PpoSettings(**{**vars(settings.ppo), "rate": rate})
        parameters, optimiser = ppo_update(state.parameters, state.optimiser, rollout, ppo, generator)
        if not all(torch.isfinite(tensor).all() for tensor in parameters.values()):
            raise BadInputError(
                f"RL² diverged in update {state.done}; give a learning rate below {settings.ppo.rate}"
            )
        mean = float(rollout.rewards.sum() / max(1, int(rollout.ends_of_episodes.sum())))
        state = Rl2State(state.done + 1, parameters, optimiser, (*state.rewards, mean))
        after_update(state)
    return state


@dataclass(frozen=True)
class Played(Rollout):
    """A rollout that also tells where episodes ended, float32 [T, B]."""

    ends_of_episodes: Tensor


def play(
    environment: Environment, parameters: Parameters, settings: Rl2Settings, generator: torch.Generator
) -> Played:
    """Play from a reset on; actions are drawn from the policy."""
    with torch.no_grad():
        step = environment.reset()
        state = first_state(parameters, environment.lanes)
        told = torch.zeros(environment.lanes, environment.spec.option_features)
        seen, done = [], []
        for _ in range(settings.steps):
            now = steps_of(step, told, settings.memory)
            logits, value, state = unroll(parameters, now, state)
            noise = torch.rand(logits[0].shape, generator=generator).clamp_min(1e-20)
            action = (logits[0] - torch.log(-torch.log(noise))).argmax(1)
            log_probability = torch.log_softmax(logits[0], dim=1).gather(1, action[:, None])[:, 0]
            told = now.options[0, torch.arange(len(action)), action]
            step = environment.step(action.numpy())
            seen.append(now)
            done.append((action, log_probability, value[0], step))
        value_after = unroll(parameters, steps_of(step, told, settings.memory), state)[1][0]
        actions, log_probabilities, values, outcomes = zip(*done, strict=True)
        ends = _column([one.fresh for one in outcomes])
        return Played(
            Steps(*(torch.cat([getattr(one, name) for one in seen]) for name in Steps.__dataclass_fields__)),
            torch.stack(actions),
            torch.stack(log_probabilities),
            torch.stack(values),
            _column([one.reward for one in outcomes]),
            ends,
            _weights(_column([one.last for one in outcomes]), _column([one.failed for one in outcomes])),
            torch.where(ends[-1] > 0, torch.zeros_like(value_after), value_after),
            _column([one.last for one in outcomes]),
        )


def steps_of(step: TimeStep, told: Tensor, memory: Memory) -> Steps:
    """One step as the network takes it; `told` [lanes, option features] is of the action before."""
    forgotten = step.fresh if memory is Memory.TASK else step.fresh | step.last
    keep = torch.from_numpy(1.0 - forgotten.astype(np.float32))
    last = torch.from_numpy(np.stack([step.reward, step.last], axis=1).astype(np.float32))
    before = torch.cat([told, last], dim=1) * keep[:, None]
    return joined(step.observation, before, keep)


def joined(observation: Observation, before: Tensor, keep: Tensor) -> Steps:
    """What is seen, and what came before it [lanes, option features + 2]."""
    features = torch.from_numpy(observation.features)
    return Steps(
        torch.cat([features, before], dim=1)[None],
        keep[None],
        torch.from_numpy(observation.options)[None],
        torch.from_numpy(observation.mask)[None],
        torch.from_numpy(observation.prior)[None],
    )


def input_size(spec: Spec) -> int:
    """How many numbers the network sees a step."""
    return spec.features + spec.option_features + 2


def _column(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


def _weights(last: Tensor, failed: Tensor) -> Tensor:
    """1 for every step but those of episodes that failed, [T, B]."""
    weight = torch.ones_like(last)
    lost = torch.zeros_like(last[0])
    for t in range(len(last) - 1, -1, -1):
        lost = torch.where(last[t] > 0, failed[t], lost)
        weight[t] = 1.0 - lost
    return weight
