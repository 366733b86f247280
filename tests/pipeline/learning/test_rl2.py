from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bandits import Bandits
from environment_suite import EnvironmentSuite

from device_bench.errors import BadInputError
from pipeline.environment.contract import Choices, Environment, TimeStep
from pipeline.learning.ppo import PpoSettings, Rollout, estimated_advantages
from pipeline.learning.recurrent_net import Steps
from pipeline.learning.rl2 import Memory, Rl2Settings, Rl2State, play, rl2_start, train_rl2

ARMS, PULLS, LANES = 3, 10, 128
PPO = PpoSettings(rate=5e-3, discount=0.95, trace=0.5, entropy_weight=0.005, minibatches=4)
SETTINGS = Rl2Settings(updates=60, steps=2 * PULLS, hidden=24, ppo=PPO)


def bandits(seed: int) -> Bandits:
    return Bandits(LANES, ARMS, PULLS, seed)


def trained(settings: Rl2Settings, **more: object) -> Rl2State:
    torch.set_num_threads(1)
    return train_rl2(bandits, rl2_start(bandits(0).spec, settings, 0), settings, 0, **more)


class TestBandits(EnvironmentSuite):
    @pytest.fixture
    def environment(self) -> Environment:
        return Bandits(4, ARMS, PULLS, 0)


def test_learns_to_learn_bandits_and_only_with_its_memory() -> None:
    """Uniform chances: an arm at random pays 0.5; the best arm of three, once known, 0.75."""
    with_memory = trained(SETTINGS).rewards
    without = trained(replace(SETTINGS, updates=30, memory=Memory.EPISODE)).rewards
    assert np.mean(with_memory[:3]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(with_memory[-10:]) > 0.59
    assert np.mean(without[-10:]) < 0.53


def test_goes_on_from_a_state_as_if_it_had_never_stopped() -> None:
    settings = replace(SETTINGS, updates=4)
    states: list[Rl2State] = []
    whole = trained(settings, after_update=states.append)
    resumed = train_rl2(bandits, states[1], settings, 0)
    assert [state.done for state in states] == [1, 2, 3, 4]
    assert resumed.rewards == whole.rewards
    assert all(torch.equal(resumed.parameters[n], t) for n, t in whole.parameters.items())


def test_the_state_lives_until_another_task_begins() -> None:
    state = rl2_start(bandits(0).spec, SETTINGS, 0)
    for memory, forgotten in ((Memory.TASK, [0, PULLS]), (Memory.EPISODE, list(range(2 * PULLS)))):
        settings = replace(SETTINGS, memory=memory)
        rollout = play(bandits(1), state.parameters, settings, torch.Generator().manual_seed(0))
        assert torch.nonzero(rollout.steps.keep[:, 0] == 0).flatten().tolist() == forgotten


def test_the_last_action_and_reward_are_seen() -> None:
    state = rl2_start(bandits(0).spec, SETTINGS, 0)
    rollout = play(bandits(1), state.parameters, SETTINGS, torch.Generator().manual_seed(0))
    seen = rollout.steps.seen[1, 0]
    assert seen[1 : 1 + ARMS].argmax() == rollout.actions[0, 0]
    assert seen[1 + ARMS] == rollout.rewards[0, 0]
    assert seen[2 + ARMS] == 1.0


class Failing(Bandits):
    """Every second pull of lane 0 has no outcome."""

    def step(self, actions: Choices) -> TimeStep:
        step = super().step(actions)
        failed = np.zeros(self.lanes, np.bool_)
        failed[0] = self._pulled % 2 == 1
        return replace(step, failed=failed, reward=np.where(failed, 0.0, step.reward).astype(np.float32))


def test_failed_episodes_weigh_nothing() -> None:
    state = rl2_start(bandits(0).spec, SETTINGS, 0)
    environment = Failing(2, ARMS, PULLS, 0)
    rollout = play(environment, state.parameters, SETTINGS, torch.Generator().manual_seed(0))
    assert rollout.weight[:4, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert rollout.weight[:, 1].min() == 1.0


def test_divergence_is_told() -> None:
    settings = replace(SETTINGS, updates=2, ppo=replace(PPO, rate=float("nan")))
    with pytest.raises(BadInputError, match="diverged in update 0"):
        trained(settings)


def test_advantages_are_those_of_the_definition() -> None:
    """One lane, four steps, the second of which ends a task."""
    gamma, lam = 0.9, 0.8
    rewards, values, last = [1.0, 2.0, 0.5, -1.0], [0.3, 0.2, 0.1, 0.4], 0.7
    ends = [0.0, 1.0, 0.0, 0.0]
    nothing = Steps(*[torch.zeros(4, 1)] * 5)

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values)[:, None]

    rollout = Rollout(
        nothing,
        torch.zeros(4, 1),
        torch.zeros(4, 1),
        column(values),
        column(rewards),
        column(ends),
        torch.ones(4, 1),
        torch.tensor([last]),
    )
    errors = [1.0 + gamma * 0.2 - 0.3, 2.0 - 0.2, 0.5 + gamma * 0.4 - 0.1, -1.0 + gamma * last - 0.4]
    wanted = [
        errors[0] + gamma * lam * errors[1],
        errors[1],
        errors[2] + gamma * lam * errors[3],
        errors[3],
    ]
    found = estimated_advantages(rollout, PpoSettings(discount=gamma, trace=lam))
    assert found[:, 0].tolist() == pytest.approx(wanted, abs=1e-6)
