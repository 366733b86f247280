"""REINFORCE with a baseline, from scratch on one task (Williams, Machine Learning 1992).

An episode is T choices, one a place; z is one number that is known of the episode, 0 for its first choice:

    π(a | t, z) = softmax over allowed a of  θ[t, a] + z φ[t, a]
    A = (R − b) / s,     θ[t] ← θ[t] + α γ^(T − 1 − t) A ∇ log π(a_t),     φ[t] likewise, ∇ scaled by z
    b, s: running mean and deviation of rewards

The reward comes at the end, so a choice is credited with it discounted by how long before it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ReinforceSettings:
    """Numbers of the equations above. `memory`: what running means keep of the past at each step."""

    rate: float = 0.5
    discount: float = 0.99
    memory: float = 0.9


@dataclass(frozen=True)
class Episode:
    """What was chosen and what came of it: `actions` int64 [T], `allowed` bool [T, A], z [T] and R."""

    actions: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    known: Vector
    reward: float


@dataclass(frozen=True)
class ReinforceState:
    """θ and φ [T, A], the running mean and variance of rewards, and how many there were."""

    logits: Vector
    slopes: Vector
    mean: float = 0.0
    variance: float = 0.0
    count: int = 0


def reinforce_start(places: int, options: int) -> ReinforceState:
    """The policy that likes everything alike."""
    return ReinforceState(np.zeros((places, options)), np.zeros((places, options)))


def probabilities(state: ReinforceState, allowed: NDArray[np.bool_], known: Vector) -> Vector:
    """π of every place, [T, A]; 0 for what is not allowed."""
    return _softmax(state.logits + known[:, None] * state.slopes, allowed)


def place_probabilities(
    state: ReinforceState, place: int, allowed: NDArray[np.bool_], known: float
) -> Vector:
    """π of one place, [A]."""
    found: Vector = _softmax((state.logits[place] + known * state.slopes[place])[None], allowed[None])[0]
    return found


def reinforce_update(
    state: ReinforceState, episode: Episode, settings: ReinforceSettings = ReinforceSettings()
) -> ReinforceState:
    """The policy after one episode; an episode without a finite reward teaches nothing.

    Raises:
        BadInputError: an action that was not allowed.
    """
    if not np.isfinite(episode.reward):
        return state
    places = np.arange(len(episode.actions))
    if not episode.allowed[places, episode.actions].all():
        raise BadInputError("an episode's actions must be among those that were allowed")
    # Until a deviation is known, the first rewards only set the baseline.
    spread = np.sqrt(state.variance)
    advantage = (episode.reward - state.mean) / spread if state.count > 1 and spread > 0 else 0.0
    score = -probabilities(state, episode.allowed, episode.known)
    score[places, episode.actions] += 1.0
    discounts = settings.discount ** (len(places) - 1 - places)
    step = settings.rate * advantage * discounts[:, None] * score
    keep = min(settings.memory, state.count / (state.count + 1))
    mean = keep * state.mean + (1 - keep) * episode.reward
    variance = keep * state.variance + (1 - keep) * (episode.reward - mean) * (episode.reward - state.mean)
    return replace(
        state,
        logits=state.logits + step,
        slopes=state.slopes + episode.known[:, None] * step,
        mean=mean,
        variance=max(0.0, variance) if state.count else 0.0,
        count=state.count + 1,
    )


def _softmax(logits: Vector, allowed: NDArray[np.bool_]) -> Vector:
    logits = np.where(allowed, logits, -np.inf)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    found: Vector = weights / weights.sum(1, keepdims=True)
    return found
