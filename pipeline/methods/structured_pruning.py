"""Structured pruning: whole channels leave, shapes shrink for real.

A unit's channels are ranked by group magnitude: the squares of every weight that would leave with a channel,
summed in each coupled layer, averaged over those layers and divided by the unit's mean (Fang et al.,
"DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3.3; Torch-Pruning's GroupMagnitudeImportance).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch_pruning as tp

from pipeline.dependency import Dependencies
from pipeline.graph import ModelGraph, Unit


def channels_kept(
    graph: ModelGraph, widths: Mapping[str, int], rank: Callable[[Unit], torch.Tensor]
) -> dict[str, list[int]]:
    """Which channels stay in every unit that loses some, or that a shortcut joins to one; ascending.

    Args:
        graph: of the original model.
        widths: channels that stay, for each unit that is still there.
        rank: how important each channel of a unit is, float32 [width].
    """
    changed = _changed(graph, widths)
    importance = {unit.name: rank(unit) for unit in changed}
    kept: dict[str, list[int]] = {}
    for unit in changed:
        score = importance[unit.name] + _carried_importance(unit, graph, importance)
        if unit.source is None:
            kept[unit.name] = _best(score, widths[unit.name], unit.heads)
        else:
            source = graph.unit_by_name[unit.source]
            kept[unit.name] = _best_around(score, widths[unit.name], unit, source, kept[source.name])
    return kept


def _changed(graph: ModelGraph, widths: Mapping[str, int]) -> list[Unit]:
    """Units that lose channels, and all that a shortcut joins, in forward order."""
    joined = {name for unit in graph.units if unit.source is not None for name in (unit.name, unit.source)}
    return [
        unit
        for unit in graph.units
        if unit.name in widths and (widths[unit.name] < unit.width or unit.name in joined)
    ]


def root_layer(dependencies: Dependencies, unit: Unit) -> str:
    """The first of the unit's layers that is still in the module."""
    return next(layer for layer in unit.layers if layer in dependencies.modules)


def magnitude(group: Any) -> torch.Tensor:
    """Group magnitude of each channel of a Torch-Pruning group at its full width, float32 [width], mean 1."""
    rank = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="mean")
    score: torch.Tensor = rank(group)
    return score.detach().float()


def _carried_importance(unit: Unit, graph: ModelGraph, importance: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the same channels weigh in the wider units that carry them on, float32 [width]."""
    total = torch.zeros(unit.width)
    for wider in graph.units:
        if wider.source == unit.name and wider.name in importance:
            front = (wider.width - unit.width) // 2
            whole = importance[wider.name] + _carried_importance(wider, graph, importance)
            total += whole[front : front + unit.width]
    return total


def _best(score: torch.Tensor, width: int, heads: int) -> list[int]:
    """Indices of the `width` best channels in ascending order, the same number from each head."""
    runs = score.reshape(heads, -1)
    best = runs.topk(width // heads, dim=1).indices + torch.arange(heads).unsqueeze(1) * runs.shape[1]
    return sorted(best.flatten().tolist())


def _best_around(score: torch.Tensor, width: int, unit: Unit, source: Unit, carried: list[int]) -> list[int]:
    """Channels of a unit behind an option-A shortcut: all the source carries in, and the best of the padding.

    The shortcut pads evenly on both sides, so the padding channels that stay are split in the same way.
    """
    front = (unit.width - source.width) // 2
    front_kept = (width - len(carried)) // 2
    back_kept = width - len(carried) - front_kept
    back = front + source.width
    before = score[:front].topk(front_kept).indices.tolist()
    after = (score[back:].topk(back_kept).indices + back).tolist()
    return sorted(before) + [front + channel for channel in carried] + sorted(after)
