from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from pipeline.cuts import Cutter
from pipeline.dependency import Dependencies
from pipeline.errors import PlanError
from pipeline.layer_choice import Importance
from pipeline.methods.importance import Ranker
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.tracing import trace

SHAPE = (2, 6, 6)


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten()]
    made = nn.Sequential(*layers, nn.Linear(12, 2)).eval()
    made[1].weight.data = torch.tensor([0.5, -2.0, 0.1, 1.0])
    return made


def batches(count: int = 2) -> list:  # type: ignore[type-arg]
    torch.manual_seed(1)
    data = [(torch.randn(8, *SHAPE), torch.randint(0, 2, (8,))) for _ in range(count)]
    return [lambda m, x=x, y=y: nn.functional.cross_entropy(m(x), y) for x, y in data]


def scored(module: nn.Module, importance: Importance, seed: int = 0) -> torch.Tensor:
    group = Dependencies(module, SHAPE).group("0", [0, 1, 2, 3])
    return Ranker(module, batches()).score(importance, group, "0", seed)


def test_batch_norms_rank_by_their_scale() -> None:
    assert scored(net(), "batch_norm").argsort().tolist() == [2, 0, 3, 1]


def test_magnitudes_by_hand() -> None:
    module = net()
    for power, importance in ((1, "magnitude_l1"), (2, "magnitude")):
        rows = module[0].weight.abs().pow(power).flatten(1).sum(1)
        columns = module[3].weight.abs().pow(power).transpose(0, 1).flatten(1).sum(1)
        norms = module[1].weight.abs().pow(power)
        mean = (rows + columns + norms) / 3
        torch.testing.assert_close(scored(module, importance), (mean / mean.mean()).detach())  # type: ignore[arg-type]


def test_taylor_is_the_weight_times_its_gradient() -> None:
    module = net()
    found = scored(module, "taylor")
    module.zero_grad()
    sum(loss(module) / 2 for loss in batches()).backward()
    parts = [
        (module[0].weight * module[0].weight.grad).abs().flatten(1).sum(1),
        (module[3].weight * module[3].weight.grad).abs().transpose(0, 1).flatten(1).sum(1),
    ]
    mean = (parts[0] + parts[1]) / 2
    torch.testing.assert_close(found, (mean / mean.mean()).detach())


def test_contribution_is_the_rise_of_the_loss_without_the_channel() -> None:
    module = net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = scored(module, "contribution")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        for channel in range(4):
            rises = []
            for loss in batches():
                # What the channel feeds on to is cut off instead: the same function by another way.
                cut = net()
                cut[3].weight[:, channel] = 0.0
                rises.append(float(loss(cut) - loss(module)))
            assert float(found[channel]) == pytest.approx(sum(rises) / 2, abs=1e-5)


def test_random_is_the_seeds() -> None:
    assert torch.equal(scored(net(), "random", 3), scored(net(), "random", 3))
    assert not torch.equal(scored(net(), "random", 3), scored(net(), "random", 4))


def test_what_cannot_be_ranked_so_is_an_error() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 2)).eval()
    group = Dependencies(module, SHAPE).group("0", [0, 1, 2, 3])
    with pytest.raises(PlanError, match="unit 'first' has no batch norm"):
        Ranker(module).score("batch_norm", group, "first")
    for importance in ("taylor", "contribution"):
        with pytest.raises(PlanError, match="unit 'first' can be ranked by its effect on the loss only with"):
            Ranker(module).score(importance, group, "first")  # type: ignore[arg-type]


def test_a_plan_cuts_by_the_importance_it_names() -> None:
    module = net()
    graph = trace(module, SHAPE)
    cutter = Cutter(module, graph, batches())
    kept = {}
    for importance in get_args(Importance):
        plan = CompressionPlan(units={graph.units[0].name: UnitChoice(keep_ratio=0.5)}, importance=importance)
        cut = cutter.cut(plan)
        assert cut[0].weight.shape == (2, 2, 3, 3)
        rows = [bool((module[0].weight == row).flatten(1).all(1).any()) for row in cut[0].weight]
        assert all(rows)
        kept[importance] = [
            next(i for i, whole in enumerate(module[0].weight) if torch.equal(whole, row))
            for row in cut[0].weight
        ]
    assert kept["batch_norm"] == [1, 3]
    contribution = scored(module, "contribution")
    assert kept["contribution"] == sorted(contribution.topk(2).indices.tolist())


def by_contribution(least: float | None, **more: object) -> CompressionPlan:
    units = {"0": UnitChoice(least_contribution=least)}
    return CompressionPlan(**{"units": units, "importance": "contribution", **more})  # type: ignore[arg-type]


def test_channels_that_contribute_no_more_than_a_threshold_go() -> None:
    module = net()
    cutter = Cutter(module, trace(module, SHAPE), batches())
    rises = scored(module, "contribution")
    order = rises.argsort().tolist()
    assert rises.min() > 0.0, "each channel of this net is of use"
    between = float(rises[order[1:3]].mean())
    settled = cutter.by_contribution(by_contribution(between))
    assert settled.units == {"0": UnitChoice(keep_ratio=0.5)}
    kept = [module[0].weight[place] for place in sorted(order[2:])]
    torch.testing.assert_close(cutter.cut(settled)[0].weight, torch.stack(kept))


def test_a_threshold_below_or_above_all_leaves_all_or_the_least_width() -> None:
    module = net()
    cutter = Cutter(module, trace(module, SHAPE), batches())
    assert cutter.by_contribution(by_contribution(0.0)).keep_ratio("0") == 1.0
    assert cutter.by_contribution(by_contribution(1e6)).keep_ratio("0") == 0.25


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (by_contribution(0.1, importance="taylor"), 'give the plan importance = "contribution"'),
        (
            CompressionPlan(
                units={"0": UnitChoice(keep_ratio=0.5, least_contribution=0.1)}, importance="contribution"
            ),
            "give one of the two",
        ),
    ],
)
def test_a_threshold_needs_the_ranking_that_it_is_of(plan: CompressionPlan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan.checked(trace(net(), SHAPE))


def test_a_plan_without_thresholds_keeps_its_name() -> None:
    plan = CompressionPlan(units={"0": UnitChoice(keep_ratio=0.5)})
    assert "least_contribution" not in plan.canonical_json()
    assert by_contribution(0.1).plan_id != by_contribution(0.2).plan_id
