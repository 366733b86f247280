"""Proximal policy optimisation of a recurrent network (Schulman et al., 2017).

    ρ_t = π(a_t | h_t) / π_old(a_t | h_t),   A_t = Σ_k (γλ)^k δ_{t+k},   δ_t = r_t + γ V_{t+1} − V_t
    L = −min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t) + c_v (V_t − (A_t + V_t^old))² − c_e H(π)

Lanes are the minibatches, as each must be unrolled from its first step. Steps of episodes without an outcome
weigh nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.learning.adam import AdamState, adam_step
from pipeline.learning.recurrent_net import Parameters, Steps, first_state, unroll


@dataclass(frozen=True)
class PpoSettings:
    """Numbers of the equations above.

    Args:
        rate: Adam's.
        most_gradient: the norm that gradients are cut to.
    """

    rate: float = 1e-3
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    epochs: int = 4
    minibatches: int = 2
    most_gradient: float = 0.5


@dataclass(frozen=True)
class Rollout:
    """What was played: steps [T, B, …], and [T, B] each what was done and what came of it.

    `ends`: no reward after this step is owed to it or to those before. `weight`: 0 where nothing is to be
    learned. `last_value` [B]: what is expected after the last step.
    """

    steps: Steps
    actions: Tensor
    log_probabilities: Tensor
    values: Tensor
    rewards: Tensor
    ends: Tensor
    weight: Tensor
    last_value: Tensor


def ppo_update(
    parameters: Parameters,
    optimiser: AdamState,
    rollout: Rollout,
    settings: PpoSettings,
    generator: torch.Generator,
) -> tuple[Parameters, AdamState]:
    """New parameters and optimiser state after some epochs on one rollout; what was given is not changed."""
    advantages = estimated_advantages(rollout, settings)
    returns = advantages + rollout.values
    lanes = rollout.actions.shape[1]
    for _ in range(settings.epochs):
        for index in torch.randperm(lanes, generator=generator).chunk(settings.minibatches):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
            loss = _loss(leaves, rollout, index, (advantages, returns), settings)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            cut = _cut(dict(zip(leaves, gradients, strict=True)), settings.most_gradient)
            parameters, optimiser = adam_step(parameters, cut, optimiser, settings.rate)
    return parameters, optimiser


def estimated_advantages(rollout: Rollout, settings: PpoSettings) -> Tensor:
    """Generalised advantages [T, B] (Schulman et al., ICLR 2016)."""
    advantages = torch.zeros_like(rollout.rewards)
    carried = torch.zeros_like(rollout.last_value)
    after = rollout.last_value
    for t in range(len(rollout.rewards) - 1, -1, -1):
        goes_on = 1.0 - rollout.ends[t]
        error = rollout.rewards[t] + settings.discount * goes_on * after - rollout.values[t]
        carried = error + settings.discount * settings.trace * goes_on * carried
        advantages[t] = carried
        after = rollout.values[t]
    return advantages


def _loss(
    parameters: Parameters,
    rollout: Rollout,
    index: Tensor,
    targets: tuple[Tensor, Tensor],
    settings: PpoSettings,
) -> Tensor:
    steps = rollout.steps.lanes(index)
    logits, values, _ = unroll(parameters, steps, first_state(parameters, len(index)))
    weight = rollout.weight[:, index]
    weight = weight / weight.sum().clamp_min(1.0)
    advantage, wanted = (target[:, index] for target in targets)
    mean = (advantage * weight).sum()
    spread = (((advantage - mean) ** 2) * weight).sum().sqrt()
    advantage = (advantage - mean) / (spread + 1e-6)
    log_all = torch.log_softmax(logits, dim=2)
    log_chosen = log_all.gather(2, rollout.actions[:, index, None])[..., 0]
    ratio = torch.exp(log_chosen - rollout.log_probabilities[:, index])
    clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    entropy = -(log_all.exp() * log_all.masked_fill(~steps.allowed, 0.0)).sum(2)
    value_error = (values - wanted) ** 2
    each = -surrogate + settings.value_weight * value_error - settings.entropy_weight * entropy
    return (each * weight).sum()


def _cut(gradients: Parameters, most: float) -> Parameters:
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}
