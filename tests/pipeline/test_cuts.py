from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.cuts import Cutter
from pipeline.dependency import Dependencies, pruned_copy
from pipeline.graph import ModelGraph, Unit
from pipeline.methods.depth import remove_blocks_
from pipeline.methods.structured_pruning import channels_kept, magnitude, root_layer
from pipeline.plan import CompressionPlan
from pipeline.space import PlanSpace
from pipeline.tracing import trace
from pipeline.zoo import build

FAMILIES = ["mlp", "cnn", "vgg", "resnet20", "mobilenetv2", "dscnn", "vit"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_depends_on_the_plan_alone_and_runs(family: str) -> None:
    torch.manual_seed(0)
    shape = (1, 28, 28)
    module = build(family, shape, 10).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    graph = trace(module, shape)
    space, rng = PlanSpace.of(graph, 8), np.random.default_rng(1)
    used, sample = Cutter(module, graph), torch.randn(2, *shape)
    for plan in [space.sample(rng) for _ in range(3)]:
        many, fresh = used.cut(plan), Cutter(module, graph).cut(plan)
        with torch.no_grad():
            torch.testing.assert_close(many(sample), fresh(sample), rtol=0, atol=0)
        assert many(sample).shape == (2, 10)
        assert sum(p.numel() for p in many.parameters()) < sum(p.numel() for p in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def pruned_by_library(module: nn.Module, graph: ModelGraph, plan: CompressionPlan) -> nn.Module:
    """Blocks removed, the rest traced anew, and each unit pruned by Torch-Pruning itself."""
    copy = pruned_copy(module)
    remove_blocks_(copy, plan.removed)
    dependencies = Dependencies(copy, graph.input_shape)
    gone = {unit for block in graph.blocks if block.name in plan.removed for unit in block.units}
    widths = {name: width for name, width in plan.widths(graph).items() if name not in gone}

    def rank(unit: Unit) -> torch.Tensor:
        return magnitude(dependencies.group(root_layer(dependencies, unit), list(range(unit.width))))

    for name, kept in channels_kept(graph, widths, rank).items():
        unit = graph.unit_by_name[name]
        lost = sorted(set(range(unit.width)) - set(kept))
        if lost:
            dependencies.group(root_layer(dependencies, unit), lost).prune()
    return copy


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_is_what_torch_pruning_makes_step_by_step(family: str) -> None:
    torch.manual_seed(0)
    shape = (1, 28, 28)
    module = build(family, shape, 10).eval()
    graph = trace(module, shape)
    space, rng = PlanSpace.of(graph, 8), np.random.default_rng(2)
    cutter, sample = Cutter(module, graph), torch.randn(2, *shape)
    for plan in [space.sample(rng) for _ in range(3)]:
        ours, theirs = cutter.cut(plan), pruned_by_library(module, graph, plan)
        state = theirs.state_dict()
        assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == {
            name: tuple(value.shape) for name, value in state.items()
        }
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
        with torch.no_grad():
            torch.testing.assert_close(ours(sample), theirs(sample), rtol=0, atol=0)
