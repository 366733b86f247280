from __future__ import annotations

import export_nets as nets
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.methods.folding import fold_batch_norms, fold_norms


def norms(net: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


def test_every_batch_norm_after_a_convolution_is_folded() -> None:
    net = nets.residual_net()
    inputs = nets.samples(2)
    folded = fold_batch_norms(net, torch.from_numpy(inputs))
    assert norms(net) == 13 and norms(folded) == 0
    np.testing.assert_allclose(nets.torch_outputs(folded, inputs), nets.torch_outputs(net, inputs), atol=1e-4)


class ReadTwice(nn.Module):
    """The convolution's output is read by the batch norm and by the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.norm(x) + x


def test_a_convolution_that_is_read_twice_is_left_alone() -> None:
    net = ReadTwice().eval()
    inputs = nets.samples(2)
    folded = fold_batch_norms(net, torch.from_numpy(inputs))
    assert norms(folded) == 1
    np.testing.assert_array_equal(nets.torch_outputs(folded, inputs), nets.torch_outputs(net, inputs))


class Normed(nn.Module):
    """A layer norm that two linear layers read, and where `also` is set, the output too."""

    def __init__(self, also: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 4, bias=False)
        self.also = also
        for parameter in self.norm.parameters():
            parameter.data = torch.randn_like(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        result: torch.Tensor = self.first(x) * self.second(x)
        return result + x.sum(1, keepdim=True) if self.also else result


@pytest.mark.parametrize("also", [False, True])
def test_layer_norms_go_into_the_linear_layers_that_read_them(also: bool) -> None:
    torch.manual_seed(0)
    net, example = Normed(also).eval(), torch.randn(5, 6)
    folded = fold_norms(net, example)
    with torch.no_grad():
        torch.testing.assert_close(folded(example), net(example), rtol=1e-4, atol=1e-5)
    assert any(name.startswith("norm") for name, _ in folded.named_parameters()) == also
    assert folded is not net
