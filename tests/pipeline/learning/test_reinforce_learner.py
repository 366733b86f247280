from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from device_bench.errors import BadInputError
from pipeline.learning.reinforce import (
    Episode,
    ReinforceSettings,
    ReinforceState,
    place_probabilities,
    probabilities,
    reinforce_start,
    reinforce_update,
)

# Three choices of three; the best sequence is known.
BEST = np.array([2, 0, 1])
ALLOWED = np.ones((3, 3), np.bool_)
UNKNOWN = np.zeros(3)


def reward_of(actions: np.ndarray) -> float:
    return float((actions == BEST).mean())


def learned(rate: float, episodes: int = 150) -> ReinforceState:
    rng = np.random.default_rng(0)
    state = reinforce_start(3, 3)
    settings = ReinforceSettings(rate=rate)
    for _ in range(episodes):
        chances = probabilities(state, ALLOWED, UNKNOWN)
        actions = np.array([rng.choice(3, p=row) for row in chances])
        state = reinforce_update(state, Episode(actions, ALLOWED, UNKNOWN, reward_of(actions)), settings)
    return state


def expected_reward(state: ReinforceState) -> float:
    return float(probabilities(state, ALLOWED, UNKNOWN)[np.arange(3), BEST].mean())


def test_finds_a_known_optimum_and_beats_no_update() -> None:
    state = learned(0.5)
    assert probabilities(state, ALLOWED, UNKNOWN).argmax(1).tolist() == BEST.tolist()
    assert expected_reward(state) > 0.9
    assert expected_reward(learned(0.0)) == pytest.approx(1 / 3)


def test_an_update_is_the_gradient_of_the_log_probability() -> None:
    """Against finite differences, with the baseline and the discount in their places."""
    state = replace(reinforce_start(2, 3), mean=0.2, variance=0.25, count=5)
    known = np.array([0.0, 0.5])
    episode = Episode(np.array([1, 2]), np.ones((2, 3), np.bool_), known, 1.2)
    settings = ReinforceSettings(rate=0.1, discount=0.5)
    after = reinforce_update(state, episode, settings)
    advantage, step = (1.2 - 0.2) / 0.5, 1e-6
    for place in range(2):
        for option in range(3):
            moved = state.logits.copy()
            moved[place, option] += step
            there = probabilities(replace(state, logits=moved), episode.allowed, known)
            here = probabilities(state, episode.allowed, known)
            slope = np.log(there / here)[place, episode.actions[place]] / step
            wanted = 0.1 * advantage * 0.5 ** (1 - place) * slope
            assert after.logits[place, option] == pytest.approx(wanted, abs=1e-5)
            assert after.slopes[place, option] == pytest.approx(known[place] * wanted, abs=1e-5)


def test_what_is_known_of_an_episode_can_decide() -> None:
    """The better option depends on z."""
    rng = np.random.default_rng(1)
    state, allowed = reinforce_start(1, 2), np.ones((1, 2), np.bool_)
    for _ in range(400):
        known = np.array([rng.choice([-1.0, 1.0])])
        action = np.array([rng.choice(2, p=place_probabilities(state, 0, allowed[0], known[0]))])
        reward = float((action[0] == 1) == (known[0] > 0))
        state = reinforce_update(state, Episode(action, allowed, known, reward))
    assert place_probabilities(state, 0, allowed[0], 1.0)[1] > 0.9
    assert place_probabilities(state, 0, allowed[0], -1.0)[0] > 0.9


def test_what_is_not_allowed_is_never_chosen() -> None:
    allowed = np.array([[True, False, True]])
    assert probabilities(learned(0.5), np.repeat(allowed, 3, 0), UNKNOWN)[:, 1].tolist() == [0.0] * 3


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), float("-inf")])
def test_a_reward_that_is_no_number_teaches_nothing(reward: float) -> None:
    state = learned(0.5, 5)
    assert reinforce_update(state, Episode(BEST, ALLOWED, UNKNOWN, reward)) is state


def test_equal_rewards_teach_nothing() -> None:
    state = reinforce_start(3, 3)
    for _ in range(10):
        state = reinforce_update(state, Episode(BEST, ALLOWED, UNKNOWN, 0.4))
    assert not state.logits.any()


def test_an_action_that_was_not_allowed_is_refused() -> None:
    with pytest.raises(BadInputError, match="allowed"):
        reinforce_update(reinforce_start(3, 3), Episode(BEST, ~ALLOWED, UNKNOWN, 1.0))
