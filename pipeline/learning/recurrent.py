"""A recurrent learner from records: clone the choices of what did well, no environment needed.

    L = −Σ_t w_t log π(a_t | h_t),   h_t = GRU(h_{t−1}, u_t)

u_t holds what was wanted of the whole sequence (a goal) beside what is seen at step t, so that one network
answers for all goals (goal-conditioned cloning: Ding et al., NeurIPS 2019). `Context.STEP` is its ablation:
a network that sees no step but the present one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from device_bench.errors import BadInputError
from pipeline.learning.adam import AdamState, adam_start, adam_step
from pipeline.learning.recurrent_net import Parameters, Steps, first_state, fresh_parameters, unroll


class Context(StrEnum):
    """What a choice is made from."""

    SEQUENCE = "sequence"
    STEP = "step"


@dataclass(frozen=True)
class Demonstrations:
    """Sequences that did well, padded to one length.

    `actions` int64 [T, B]; `weight` float32 [T, B], 0 for padding.
    """

    steps: Steps
    actions: Tensor
    weight: Tensor


@dataclass(frozen=True)
class RecurrentSettings:
    """Numbers of the training; the learning rate falls linearly to a tenth of `rate`."""

    updates: int = 1000
    hidden: int = 48
    rate: float = 3e-3
    most_gradient: float = 1.0
    context: Context = Context.SEQUENCE


@dataclass(frozen=True)
class RecurrentState:
    """Where training stands: updates done, parameters, optimiser, and the loss of each update."""

    done: int
    parameters: Parameters
    optimiser: AdamState
    losses: tuple[float, ...] = ()


def recurrent_start(
    inputs: int, option_features: int, settings: RecurrentSettings, seed: int
) -> RecurrentState:
    """The state before the first update."""
    parameters = fresh_parameters(inputs, option_features, settings.hidden, seed)
    return RecurrentState(0, parameters, adam_start(parameters))


def train_recurrent(
    batch_of: Callable[[int], Demonstrations],
    state: RecurrentState,
    settings: RecurrentSettings,
    seed: int,
    after_update: Callable[[RecurrentState], None] = lambda state: None,
) -> RecurrentState:
    """Update after update until `settings.updates` are done; the same again from any state on the way.

    Args:
        batch_of: the batch of an update, from a seed.

    Raises:
        BadInputError: the loss is no longer finite.
    """
    while state.done < settings.updates:
        batch = batch_of((seed * 1_000_003 + state.done) % 2**62)
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in state.parameters.items()}
        loss = cloning_loss(leaves, batch, settings.context)
        if not torch.isfinite(loss):
            raise BadInputError(
                f"the recurrent learner diverged in update {state.done}; give a rate below {settings.rate}"
            )
        # What a sequence is worth to come is not asked for here.
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }
        norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        scale = (settings.most_gradient / (norm + 1e-6)).clamp(max=1.0)
        gradients = {name: gradient * scale for name, gradient in gradients.items()}
        rate = settings.rate * (1.0 - 0.9 * state.done / settings.updates)
        parameters, optimiser = adam_step(state.parameters, gradients, state.optimiser, rate)
        state = RecurrentState(state.done + 1, parameters, optimiser, (*state.losses, float(loss.detach())))
        after_update(state)
    return state


def cloning_loss(parameters: Parameters, batch: Demonstrations, context: Context) -> Tensor:
    """Mean negative log-likelihood of what was done, a number."""
    steps = batch.steps
    if context is Context.STEP:
        steps = replace(steps, keep=torch.zeros_like(steps.keep))
    logits, _, _ = unroll(parameters, steps, first_state(parameters, batch.actions.shape[1]))
    chosen = torch.log_softmax(logits, dim=2).gather(2, batch.actions[..., None])[..., 0]
    return -(chosen * batch.weight).sum() / batch.weight.sum().clamp_min(1.0)
