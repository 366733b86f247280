from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from device_bench.errors import BadInputError
from pipeline.layer_choice import LayerChoice
from pipeline.methods.layer_methods import apply_, hold_, release_
from pipeline.methods.sparsity import Masked, global_shares, mask_for, soft_threshold, threshold_for

WEIGHT = torch.tensor([[0.1, -0.5, 2.0], [-0.2, 0.5, -3.0]])


def test_the_smallest_become_zero() -> None:
    assert mask_for(WEIGHT, 0.5).tolist() == [[False, False, True], [False, True, True]]
    assert threshold_for(WEIGHT, 0.5) == pytest.approx(0.5)
    assert mask_for(WEIGHT, 0.0).all()


def test_the_soft_form_is_its_formula() -> None:
    found = soft_threshold(WEIGHT, 0.5)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, -2.5]]))


def test_one_threshold_for_all_layers() -> None:
    weights = {"small": torch.full((4,), 0.1), "large": torch.full((4,), 1.0)}
    assert global_shares(weights, 0.5) == {"small": 0.75, "large": 0.0}


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5])
def test_out_of_range(sparsity: float) -> None:
    with pytest.raises(BadInputError, match="from 0 to below 1"):
        mask_for(WEIGHT, sparsity)


@pytest.mark.parametrize("soft", [False, True])
def test_zeros_stay_zero_in_training_and_the_others_learn(soft: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    choices = {"0": LayerChoice(sparsity=0.6, soft=soft)}
    apply_(net, choices)
    before = net[0].weight.detach().clone()
    assert int((before == 0).sum()) == 18
    hold_(net, choices)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    release_(net)
    assert not parametrize.is_parametrized(net[0])
    assert set(net.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.equal(net[0].weight == 0, before == 0)
    assert not torch.equal(net[0].weight, before)


def test_the_gradient_passes_where_a_weight_stays() -> None:
    weight = WEIGHT.clone().requires_grad_()
    Masked(WEIGHT, 0.5, soft=False)(weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, mask_for(WEIGHT, 0.5).float())
