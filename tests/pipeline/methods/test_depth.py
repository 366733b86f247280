from __future__ import annotations

import pytest
import torch
from core_nets import liven_
from torch import nn

from pipeline.compressor import compress
from pipeline.errors import PlanError
from pipeline.methods.depth import remove_blocks_
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.tracing import trace
from pipeline.zoo import build

SHAPE = (1, 8, 8)
RESIDUAL = ("resnet20", "mobilenetv2", "vit")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def quiet_(module: nn.Module, block: str) -> None:
    """Make the block's branch give nothing but noughts, by its last layer with weights."""
    inner = module.get_submodule(block)
    last = [layer for layer in inner.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.BatchNorm2d)][
        -1
    ]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


@pytest.mark.parametrize("name", RESIDUAL)
def test_blocks_that_add_nothing_leave_without_a_trace(name: str) -> None:
    module = liven_(build(name, SHAPE, 5))
    graph = trace(module, SHAPE)
    blocks = [block.name for block in graph.blocks][::2]
    for block in blocks:
        quiet_(module, block)
    small = compress(module, graph, CompressionPlan(removed=tuple(blocks)))
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(small(x), module(x), rtol=1e-5, atol=1e-5)
    left = sum(parameter.numel() for parameter in small.parameters())
    gone = sum(block.parameters for block in graph.blocks if block.name in blocks)
    assert left == graph.parameters - gone


def test_every_block_may_go_and_the_trunk_still_narrows() -> None:
    module = build("resnet20", SHAPE, 5).eval()
    graph = trace(module, SHAPE)
    plan = CompressionPlan(
        removed=tuple(block.name for block in graph.blocks),
        units={name: UnitChoice(keep_ratio=0.5) for name in ("conv1", "layer2.0.conv2", "layer3.0.conv2")},
    )
    small = compress(module, graph, plan)
    assert small(torch.rand(2, *SHAPE)).shape == (2, 5)
    assert small.linear.in_features == 32
    assert small.layer1.get_submodule("0").__class__ is nn.Identity
    assert trace(small, SHAPE).blocks == ()


def test_a_width_inside_a_removed_block_goes_with_it() -> None:
    module = build("resnet20", SHAPE, 5).eval()
    graph = trace(module, SHAPE)
    removed = CompressionPlan(removed=("layer1.1",))
    narrowed = removed.model_copy(update={"units": {"layer1.1.conv1": UnitChoice(keep_ratio=0.5)}})
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(compress(module, graph, narrowed)(x), compress(module, graph, removed)(x))


def test_a_block_inside_a_list_and_one_by_its_own_name() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.rest = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    module = Outer()
    remove_blocks_(module, ["first", "rest.1"])
    assert isinstance(module.first, nn.Identity)
    assert [type(layer) for layer in module.rest] == [nn.Linear, nn.Identity]


def test_a_block_that_changes_the_shape_cannot_go() -> None:
    module = build("resnet20", SHAPE, 5).eval()
    with pytest.raises(PlanError, match=r"'layer2\.0'.*removable: layer1\.0"):
        compress(module, trace(module, SHAPE), CompressionPlan(removed=("layer2.0",)))
