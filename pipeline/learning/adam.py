"""Adam as a function of its state, so that whoever trains can store the state and go on from it.

m ← β₁m + (1 − β₁)g,  v ← β₂v + (1 − β₂)g²
θ ← θ − β · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)        (Kingma and Ba, ICLR 2015, algorithm 1)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class AdamState:
    """Steps done, and running means of the gradients and of their squares by parameter name."""

    steps: int = 0
    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)


def adam_start(parameters: dict[str, Tensor]) -> AdamState:
    """The state before the first step."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    return AdamState(0, zeros, dict(zeros))


def adam_step(
    parameters: dict[str, Tensor], gradients: dict[str, Tensor], state: AdamState, rate: float
) -> tuple[dict[str, Tensor], AdamState]:
    """New parameters and state; what was given is not changed."""
    steps = state.steps + 1
    first = {name: torch.lerp(state.first[name], gradients[name], 1 - FIRST_DECAY) for name in parameters}
    second = {
        name: torch.lerp(state.second[name], gradients[name] ** 2, 1 - SECOND_DECAY) for name in parameters
    }
    first_scale, second_scale = 1 - FIRST_DECAY**steps, 1 - SECOND_DECAY**steps
    moved = {
        name: tensor - rate * (first[name] / first_scale) / ((second[name] / second_scale).sqrt() + EPSILON)
        for name, tensor in parameters.items()
    }
    return moved, AdamState(steps, first, second)
