from __future__ import annotations

import numpy as np
import pytest
import torch
from core_nets import Flattening, Grouped, TwoConv, liven_
from torch import nn

from pipeline.compressor import compress
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.tracing import trace
from pipeline.zoo import build


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def halved(module: nn.Module, shape: tuple[int, ...], unit: str, keep: float = 0.5) -> nn.Module:
    plan = CompressionPlan(units={unit: UnitChoice(keep_ratio=keep)})
    return compress(module, trace(module, shape), plan)


def kept(whole: torch.Tensor, small: torch.Tensor) -> list[int]:
    """Which rows of `whole` are the rows of `small`."""
    return [int((whole == row).flatten(1).all(1).nonzero()) for row in small]


def squares(tensor: torch.Tensor, axis: int) -> np.ndarray:
    """Sum of squares over all but one axis."""
    array = np.moveaxis(tensor.detach().double().numpy(), axis, 0)
    return (array.reshape(len(array), -1) ** 2).sum(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_the_ranking_is_that_of_the_formula(seed: int) -> None:
    torch.manual_seed(seed)
    module = liven_(TwoConv(), seed)
    # Mean over the coupled layers of the squares that would leave: rows, the norm's weight, columns.
    importance = np.mean(
        [squares(module.conv1.weight, 0), squares(module.bn.weight, 0), squares(module.conv2.weight, 1)],
        axis=0,
    )
    best = sorted(np.argsort(importance)[2:].tolist())
    small = halved(module, (2, 5, 6), "conv1")
    assert kept(module.conv1.weight, small.conv1.weight) == best
    assert torch.equal(small.conv1.bias, module.conv1.bias[best])
    assert torch.equal(small.bn.running_var, module.bn.running_var[best])
    assert torch.equal(small.conv2.weight, module.conv2.weight[:, best])
    assert torch.equal(small.head.weight, module.head.weight)


def test_a_channel_counts_with_all_features_it_is_flattened_to() -> None:
    module = Flattening().eval()
    module.conv.weight.data[:] = 1.0
    module.head.weight.data[:] = 0.1
    # Channel 2 is read most in but one of its sixteen places.
    module.head.weight.data[:, 2 * 16 : 2 * 16 + 15] = 0.2
    module.head.weight.data[:, 1 * 16 : 2 * 16] = 0.3
    module.conv.weight.data += torch.arange(4.0).reshape(4, 1, 1, 1) * 1e-4
    small = halved(module, (1, 4, 4), "conv")
    assert kept(module.conv.weight, small.conv.weight) == [1, 2]
    columns = [channel * 16 + place for channel in (1, 2) for place in range(16)]
    assert torch.equal(small.head.weight, module.head.weight[:, columns])


def test_heads_lose_the_same_number_and_each_its_least() -> None:
    module = build("vit", (1, 8, 8), 5).eval()
    graph = trace(module, (1, 8, 8))
    unit = next(unit for unit in graph.units if unit.heads == 4)
    layers = [module.get_submodule(name) for name in unit.layers]
    projection = module.get_submodule(unit.name.rpartition(".")[0] + ".proj")
    # The last head weighs next to nothing and would vanish if channels were ranked over all heads.
    for layer in layers:
        layer.weight.data[48:] *= 1e-3
    importance = np.mean(
        [*(squares(layer.weight, 0) for layer in layers), squares(projection.weight, 1)], axis=0
    ).reshape(4, 16)
    best = [head * 16 + int(c) for head in range(4) for c in np.sort(np.argsort(importance[head])[8:])]
    small = halved(module, (1, 8, 8), unit.name)
    assert kept(layers[0].weight, small.get_submodule(unit.layers[0]).weight) == best


def test_groups_of_a_convolution_lose_the_same_number() -> None:
    module = Grouped().eval()
    module.grouped.weight.data[12:] *= 1e-3
    small = halved(module, (3, 6, 6), "grouped")
    stay = kept(module.grouped.weight, small.grouped.weight)
    assert [sum(channel // 4 == group for channel in stay) for group in range(4)] == [2, 2, 2, 2]
    assert small.grouped.groups == 4


def test_a_channel_counts_with_what_carries_it_on() -> None:
    """Channel c of the first stage goes on as 8 + c of the second and as 24 + c of the third."""
    module = liven_(build("resnet20", (1, 8, 8), 5))
    for name, tensor in module.named_parameters():
        if tensor.ndim == 4 or name.endswith(("bn1.weight", "bn2.weight")):
            tensor.data[:] = 1.0
    second, third = module.get_submodule("layer2.1.bn2"), module.get_submodule("layer3.1.bn2")
    second.weight.data[[8 + channel for channel in (1, 3, 5, 7)]] = 40.0
    third.weight.data[[24 + channel for channel in (0, 2, 4, 15)]] = 80.0
    graph = trace(module, (1, 8, 8))
    keep = {"conv1": 0.5, "layer2.0.conv2": 0.75, "layer3.0.conv2": 0.875}
    # Told apart by their biases, which do not count.
    module.bn1.bias.data[:] = torch.arange(16.0)
    plan = CompressionPlan(units={name: UnitChoice(keep_ratio=ratio) for name, ratio in keep.items()})
    small = compress(module, graph, plan)
    assert small.bn1.bias.tolist() == [0, 1, 2, 3, 4, 5, 7, 15]


def test_what_a_plan_does_not_name_keeps_its_weights() -> None:
    module = liven_(build("resnet20", (1, 8, 8), 5))
    small = halved(module, (1, 8, 8), "layer3.1.conv1")
    changed = {
        name
        for name, tensor in small.state_dict().items()
        if tensor.shape != module.state_dict()[name].shape
        or not torch.equal(tensor, module.state_dict()[name])
    }
    assert {name.rpartition(".")[0] for name in changed} == {
        "layer3.1.conv1",
        "layer3.1.bn1",
        "layer3.1.conv2",
    }
