"""Bias correction takes off what rounding adds on average, for every kind of layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.methods.bias_correction import correct_biases_
from pipeline.methods.quantizers.uniform import Uniform


def test_the_hand_worked_layer() -> None:
    # Two bits: levels −1, 0, 1 of step 3, so 1.4 becomes 0, and the error is −1.4; E[x] of it is 10.
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 1.4]]))
        net.bias.zero_()
    samples = torch.tensor([[5.0, 9.0], [7.0, 11.0]])
    done = correct_biases_(nn.Sequential(net).eval(), samples, {"0": 2})
    assert net.bias.item() == pytest.approx(14.0)
    assert done == {"0": pytest.approx(14.0)}


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(4, 8, 1)],
        [nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8)],
        [nn.Conv2d(4, 8, 3, groups=4)],
        [nn.Conv1d(4, 8, 3)],
        [nn.Linear(4, 8)],
    ],
    ids=["convolution", "batch norm", "groups", "1-D", "linear"],
)
def test_the_mean_of_the_outputs_is_that_of_the_float_layer(layers: list[nn.Module]) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(*layers).eval()
    if len(layers) == 2:
        norm = layers[1]
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
        norm.running_var.uniform_(0.5, 2.0)
    shape = {nn.Linear: (4,), nn.Conv1d: (4, 5)}.get(type(layers[0]), (4, 5, 5))
    x = torch.rand(256, *shape) + 1.0
    axes = [0, *range(2, len(shape) + 1)]

    def mean() -> torch.Tensor:
        found: torch.Tensor = net(x).mean(axes)
        return found

    def rounded() -> torch.Tensor:
        weight = layers[0].weight
        assert isinstance(weight, torch.Tensor)
        exact = weight.clone()
        weight.copy_(Uniform(4).quantize(weight))
        found = mean()
        weight.copy_(exact)
        return found

    with torch.no_grad():
        wanted = mean()
        before = (rounded() - wanted).abs().max()
        correct_biases_(net, x, {"0": 4})
        after = (rounded() - wanted).abs().max()
    assert before > 0.02
    # Kernels of 3 see the middle of a picture more often than its edge.
    assert after < (0.1 if shape != (4,) and layers[0].weight.shape[-1] == 3 else 1e-4) * before


def test_a_layer_without_a_bias_is_left_alone() -> None:
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)).eval()
    before = net[0].weight.detach().clone()
    assert list(correct_biases_(net, torch.rand(8, 3))) == ["2"]
    assert torch.equal(net[0].weight, before)
