"""Equalisation changes nothing that is computed, and makes the ranges of neighbours alike."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipeline.methods.equalisation import equal_pairs, equalise_
from pipeline.methods.quantizers.uniform import Uniform
from pipeline.zoo import build


def uneven(seed: int = 0) -> nn.Sequential:
    """A depthwise-separable net whose channels differ a thousandfold, and used batch norms."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 4, 1), nn.Flatten()),
    )
    with torch.no_grad():
        net[0].weight.mul_(torch.logspace(-2, 1, 8).view(-1, 1, 1, 1))
        for norm in (net[1], net[4]):
            norm.weight.uniform_(0.1, 3.0)
            norm.bias.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)
    return net.eval()


def folded_range(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    slope = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (conv.weight.flatten(1).abs().amax(1) * slope.abs()).detach()


def test_the_hand_worked_pair() -> None:
    # Ranges 8 and 2 of one channel become 4 and 4; those of the other, 1 and 4, become 2 and 2.
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[8.0], [1.0]]))
        net[0].bias.copy_(torch.tensor([2.0, -1.0]))
        net[2].weight.copy_(torch.tensor([[2.0, 4.0]]))
    assert equalise_(net, torch.tensor([[1.0], [-0.5]])) == 1
    assert net[0].weight.flatten().tolist() == pytest.approx([4.0, 2.0])
    assert net[0].bias.tolist() == pytest.approx([1.0, -2.0])
    assert net[2].weight.flatten().tolist() == pytest.approx([4.0, 2.0])


def test_nothing_that_is_computed_changes_and_ranges_meet() -> None:
    net, x = uneven(), torch.randn(16, 3, 5, 5)
    with torch.no_grad():
        before = net(x)
        assert equalise_(net, x[:2]) == 2
        assert torch.allclose(net(x), before, rtol=1e-4, atol=1e-4)
    first = folded_range(net[0], net[1])
    depthwise = net[3].weight.flatten(1).abs().amax(1)
    assert torch.allclose(first, depthwise, rtol=0.05)


def test_one_step_for_all_channels_loses_less_afterwards() -> None:
    torch.manual_seed(0)
    skewed = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    factors = torch.logspace(0, 3, 8)
    with torch.no_grad():
        # The same function, with channels that leave the first layer small and enter the second large.
        skewed[0].weight.div_(factors.view(-1, 1, 1, 1))
        skewed[0].bias.div_(factors)
        skewed[2].weight.mul_(factors.view(1, -1, 1, 1))
    x = torch.randn(64, 3, 5, 5)

    def loss(net: nn.Sequential) -> float:
        with torch.no_grad():
            exact = net(x)
            for conv in (net[0], net[2]):
                conv.weight.copy_(Uniform(8, per_channel=False).quantize(conv.weight))
            return float((net(x) - exact).square().mean())

    equal = copy.deepcopy(skewed)
    equalise_(equal, x[:2])
    assert loss(equal) < 0.01 * loss(skewed)


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.a(x)
        return hidden + self.b(hidden)


def test_what_somebody_else_reads_is_left_as_it_is_to_the_last_bit() -> None:
    net = TwoReaders().eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert len(equal_pairs(net, torch.randn(2, 3, 4, 4))) == 1
    assert equalise_(net, torch.randn(2, 3, 4, 4)) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(("family", "pairs"), [("mobilenetv2", 15), ("dscnn", 4), ("vit", 0)])
def test_the_families(family: str, pairs: int) -> None:
    shape = (1, 40, 51) if family == "dscnn" else (3, 32, 32)
    torch.manual_seed(0)
    net = build(family, shape, 10).eval()
    x = torch.randn(4, *shape)
    with torch.no_grad():
        before = net(x)
        assert equalise_(net, x[:2]) >= pairs
        assert torch.allclose(net(x), before, rtol=1e-3, atol=1e-4)
