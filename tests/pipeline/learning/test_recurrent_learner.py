from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from device_bench.errors import BadInputError
from pipeline.learning.recurrent import (
    Context,
    Demonstrations,
    RecurrentSettings,
    RecurrentState,
    cloning_loss,
    recurrent_start,
    train_recurrent,
)
from pipeline.learning.recurrent_net import Steps, first_state, unroll

LENGTH, LANES, OPTIONS = 6, 64, 3
SETTINGS = RecurrentSettings(updates=150, hidden=24, rate=1e-2)


def records(seed: int) -> Demonstrations:
    """A known family: the first step shows a number, and the right choice at every step is that number.

    The last two steps are padding, and what is chosen there is wrong.
    """
    generator = torch.Generator().manual_seed(seed)
    shown = torch.randint(OPTIONS, (LANES,), generator=generator)
    seen = torch.zeros(LENGTH, LANES, OPTIONS)
    seen[0] = torch.eye(OPTIONS)[shown]
    actions = shown.repeat(LENGTH, 1)
    actions[-2:] = (shown + 1) % OPTIONS
    weight = torch.ones(LENGTH, LANES)
    weight[-2:] = 0.0
    options = torch.eye(OPTIONS).repeat(LENGTH, LANES, 1, 1)
    steps = Steps(
        seen,
        torch.ones(LENGTH, LANES),
        options,
        torch.ones(LENGTH, LANES, OPTIONS, dtype=torch.bool),
        torch.zeros(LENGTH, LANES, OPTIONS),
    )
    return Demonstrations(steps, actions, weight)


def trained(settings: RecurrentSettings, **more: object) -> RecurrentState:
    torch.set_num_threads(1)
    return train_recurrent(records, recurrent_start(OPTIONS, OPTIONS, settings, 0), settings, 0, **more)


def share_right(state: RecurrentState, context: Context) -> float:
    """How often the choice is right after the first step, on sequences that were not trained on."""
    batch = records(10**9)
    steps = batch.steps
    if context is Context.STEP:
        steps = replace(steps, keep=torch.zeros_like(steps.keep))
    logits, _, _ = unroll(state.parameters, steps, first_state(state.parameters, LANES))
    right = (logits.argmax(2) == batch.actions)[1:4]
    return float(right.float().mean())


def test_learns_a_known_family_and_only_with_its_memory() -> None:
    assert share_right(trained(SETTINGS), Context.SEQUENCE) > 0.98
    without = replace(SETTINGS, context=Context.STEP)
    assert share_right(trained(without), Context.STEP) < 0.6


def test_padding_is_not_learned() -> None:
    state = trained(replace(SETTINGS, updates=5))
    batch = records(1)
    steps = batch.steps
    steps.seen[-1] = 100.0
    other = cloning_loss(state.parameters, replace(batch, steps=steps), Context.SEQUENCE)
    assert other == cloning_loss(state.parameters, records(1), Context.SEQUENCE)


def test_goes_on_from_a_state_as_if_it_had_never_stopped() -> None:
    settings = replace(SETTINGS, updates=6)
    states: list[RecurrentState] = []
    whole = trained(settings, after_update=states.append)
    resumed = train_recurrent(records, states[2], settings, 0)
    assert resumed.losses == whole.losses
    assert all(torch.equal(resumed.parameters[n], t) for n, t in whole.parameters.items())


def test_divergence_is_told() -> None:
    state = recurrent_start(OPTIONS, OPTIONS, SETTINGS, 0)
    state.parameters["encode.weight"][:] = float("nan")
    with pytest.raises(BadInputError, match="diverged in update 0"):
        train_recurrent(records, state, SETTINGS, 0)


def test_the_prior_decides_before_anything_is_learned() -> None:
    state = recurrent_start(OPTIONS, OPTIONS, SETTINGS, 0)
    steps = records(0).steps
    steps.prior[..., 1] = 5.0
    logits, values, _ = unroll(state.parameters, steps, first_state(state.parameters, LANES))
    assert (logits.argmax(2) == 1).all()
    assert not values.any()


def test_the_unit_is_torchs_gru() -> None:
    """The same parameters in `torch.nn.GRU` make the same states."""
    p = recurrent_start(OPTIONS, OPTIONS, SETTINGS, 3).parameters
    p["gate.bias"][:] = torch.linspace(-1, 1, 72)
    p["recur.bias"][:] = torch.linspace(1, -1, 72)
    theirs = torch.nn.GRU(24, 24)
    names = {"weight_ih_l0": "gate.weight", "weight_hh_l0": "recur.weight"}
    names |= {"bias_ih_l0": "gate.bias", "bias_hh_l0": "recur.bias"}
    theirs.load_state_dict({name: p[mine] for name, mine in names.items()})
    steps = records(0).steps
    encoded = torch.relu(steps.seen @ p["encode.weight"].T + p["encode.bias"])
    wanted = theirs(encoded)[1][0]
    assert torch.allclose(unroll(p, steps, first_state(p, LANES))[2], wanted, atol=1e-5)
