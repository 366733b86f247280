"""A recurrent network that chooses one of the options it is shown, and says what it expects.

    x_t = relu(W_e u_t + b_e)                                 u_t: what is seen at step t
    r, z = σ(W_rz x_t + U_rz h + b_rz),   n = tanh(W_n x_t + b_n + r ∘ (U_n h + c_n))
    h_t = (1 − z) ∘ n + z ∘ h                                 h = keep_t · h_{t−1}
    logit_o = w · relu(Q [h_t, x_t] + O option_o + b_q) + s · prior_o
    value = v · relu(V [h_t, x_t] + b_v)

The unit is the GRU of Cho et al. (EMNLP 2014). Options are scored by what is told of them, as by pointers
(Vinyals et al., NeurIPS 2015), so there may be any number. w starts near 0: an untrained network chooses
by the prior. Parameters are a plain dictionary of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Parameters = dict[str, Tensor]

# Added to the logits of what is not allowed.
FORBIDDEN = -1e9


@dataclass(frozen=True)
class Steps:
    """What is seen in T steps of B lanes.

    `seen` float32 [T, B, inputs]; `keep` float32 [T, B], 0 where the state is forgotten before the step;
    `options` [T, B, A, option features]; `allowed` bool and `prior` float32 [T, B, A].
    """

    seen: Tensor
    keep: Tensor
    options: Tensor
    allowed: Tensor
    prior: Tensor

    def lanes(self, index: Tensor) -> Steps:
        """Those of some lanes."""
        columns = (self.seen, self.keep, self.options, self.allowed, self.prior)
        return Steps(*(column[:, index] for column in columns))


def fresh_parameters(inputs: int, option_features: int, hidden: int, seed: int) -> Parameters:
    """Parameters of an untrained network, float32."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(outputs: int, columns: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(outputs, columns, generator=generator) / columns**0.5

    return {
        "encode.weight": drawn(hidden, inputs, 2**0.5),
        "encode.bias": torch.zeros(hidden),
        "gate.weight": drawn(3 * hidden, hidden),
        "gate.bias": torch.zeros(3 * hidden),
        "recur.weight": drawn(3 * hidden, hidden),
        "recur.bias": torch.zeros(3 * hidden),
        "query.weight": drawn(hidden, 2 * hidden),
        "query.bias": torch.zeros(hidden),
        "option.weight": drawn(hidden, option_features),
        "score.weight": drawn(1, hidden, 0.1)[0],
        "prior.scale": torch.ones(()),
        "expect.weight": drawn(hidden, 2 * hidden, 2**0.5),
        "expect.bias": torch.zeros(hidden),
        "value.weight": torch.zeros(hidden),
        "value.bias": torch.zeros(()),
    }


def hidden_size(parameters: Parameters) -> int:
    """How many numbers the state of a lane has."""
    return len(parameters["encode.bias"])


def first_state(parameters: Parameters, lanes: int) -> Tensor:
    """The state that knows nothing, [lanes, hidden]."""
    return torch.zeros(lanes, hidden_size(parameters))


def unroll(parameters: Parameters, steps: Steps, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [T, B, A] and values [T, B] of every step, and the state after the last, [B, hidden]."""
    p = parameters
    size = hidden_size(p)
    encoded = torch.relu(steps.seen @ p["encode.weight"].T + p["encode.bias"])
    gates = encoded @ p["gate.weight"].T + p["gate.bias"]
    states = []
    for gate, keep in zip(gates, steps.keep, strict=True):
        state = state * keep[:, None]
        recurrent = torch.addmm(p["recur.bias"], state, p["recur.weight"].T)
        both = torch.sigmoid(gate[:, : 2 * size] + recurrent[:, : 2 * size])
        new = torch.tanh(gate[:, 2 * size :] + both[:, :size] * recurrent[:, 2 * size :])
        state = torch.lerp(new, state, both[:, size:])
        states.append(state)
    joint = torch.cat([torch.stack(states), encoded], dim=2)
    query = joint @ p["query.weight"].T + p["query.bias"]
    # Most steps allow few of the options that there is room for: only those are scored.
    allowed = steps.allowed
    step, lane, _ = torch.nonzero(allowed, as_tuple=True)
    shown = torch.relu(query[step, lane] + steps.options[allowed] @ p["option.weight"].T)
    scores = shown @ p["score.weight"] + p["prior.scale"] * steps.prior[allowed]
    logits = torch.full_like(steps.prior, FORBIDDEN).masked_scatter(allowed, scores)
    expect = torch.relu(joint @ p["expect.weight"].T + p["expect.bias"])
    return logits, expect @ p["value.weight"] + p["value.bias"], state
