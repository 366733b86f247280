from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.cuts import Cutter
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
