"""Cuts a module as plans say. Dependencies are traced once, so each further plan takes milliseconds.

Which tensors lose channels together does not depend on the plan: `Cutter` asks Torch-Pruning once for every
unit and only slices after that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from pipeline.dependency import Dependencies, pruned_copy
from pipeline.graph import ModelGraph, Unit
from pipeline.methods.depth import remove_blocks_
from pipeline.methods.importance import BatchLoss, Ranker
from pipeline.methods.structured_pruning import channels_kept, root_layer
from pipeline.plan import CompressionPlan, UnitChoice

Prune = Callable[[nn.Module, list[int]], object]


@dataclass(frozen=True)
class _Member:
    """One side of one layer that loses channels with a unit: at `indices[i]` with the unit's `roots[i]`."""

    layer: str
    prune: Prune
    indices: tuple[int, ...]
    roots: tuple[int, ...]


class Cutter:
    """Builds compressed copies of one module.

    Args:
        module: the original, in evaluation mode; it is copied and never changed.
        graph: its graph.
        batches: losses over some batches of training samples, for plans that rank channels by them.
    """

    def __init__(self, module: nn.Module, graph: ModelGraph, batches: Sequence[BatchLoss] = ()) -> None:
        self._module = pruned_copy(module).eval()
        self._graph = graph
        self._dependencies = Dependencies(self._module, graph.input_shape)
        # Bare parameters, such as position embeddings, are no layers: slicing makes a new one.
        self._parameters = dict(self._module.named_parameters())
        self._parameter_names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._groups: dict[str, Any] = {}
        self._members: dict[str, tuple[_Member, ...]] = {}
        self._importance: dict[tuple[str, str, int, frozenset[int]], torch.Tensor] = {}
        self._ranker = Ranker(self._module, batches)
        for unit in graph.units:
            if unit.prunable:
                layer = root_layer(self._dependencies, unit)
                self._groups[unit.name] = self._dependencies.group(layer, list(range(unit.width)))
                self._members[unit.name] = self._members_of(self._groups[unit.name])

    def cut(self, plan: CompressionPlan) -> nn.Module:
        """A smaller copy as `plan` says: blocks removed, widths cut. Not yet recovered.

        Raises:
            PlanError: the plan does not fit; names the unit or block.
        """
        plan.checked(self._graph)
        copy = pruned_copy(self._module)
        remove_blocks_(copy, plan.removed)
        gone_units = {u for block in self._graph.blocks if block.name in plan.removed for u in block.units}
        widths = {name: w for name, w in plan.widths(self._graph).items() if name not in gone_units}
        removed = frozenset(plan.removed)
        kept = channels_kept(self._graph, widths, lambda unit: self._rank(unit, removed, plan))
        layers = dict(copy.named_modules())
        for (name, prune), indices in self._losses(kept).items():
            if name in layers:
                prune(layers[name], sorted(indices))
            elif name in self._parameters:
                parent, _, leaf = name.rpartition(".")
                if parent in layers:
                    bare = getattr(layers[parent], leaf)
                    setattr(layers[parent], leaf, prune(bare, sorted(indices)))
        for parameter in copy.parameters():
            parameter.grad = None
        return copy

    def by_contribution(self, plan: CompressionPlan) -> CompressionPlan:
        """The plan with a keep ratio for each unit that keeps what contributes enough: C_j > threshold.

        C_j is how much the loss rises without channel j, of the original but for removed blocks. Widths go up
        to the unit's next step, so that no channel above the threshold leaves.

        Raises:
            PlanError: the plan does not fit, or there are no samples for a loss.
        """
        removed, settled = frozenset(plan.removed), dict(plan.units)
        for name, choice in plan.checked_names(self._graph).units.items():
            if choice.least_contribution is not None:
                unit = self._graph.unit_by_name[name]
                above = int((self._rank(unit, removed, plan) > choice.least_contribution).sum())
                steps = max(unit.min_width, unit.step * math.ceil(above / unit.step))
                settled[name] = UnitChoice(keep_ratio=min(1.0, steps / unit.width))
        return plan.model_copy(update={"units": settled})

    def _losses(self, kept: Mapping[str, Collection[int]]) -> dict[tuple[str, Prune], set[int]]:
        """What each side of each layer loses; a side fed by several units loses once, for all of them."""
        losses: dict[tuple[str, Prune], set[int]] = {}
        for unit, channels in kept.items():
            staying = set(channels)
            if len(staying) == self._graph.unit_by_name[unit].width:
                continue
            for member in self._members[unit]:
                lost = losses.setdefault((member.layer, member.prune), set())
                lost.update(
                    i for i, root in zip(member.indices, member.roots, strict=True) if root not in staying
                )
        return losses

    def _rank(self, unit: Unit, removed: frozenset[str], plan: CompressionPlan) -> torch.Tensor:
        """Importance of the unit's channels over the layers that no removed block takes along."""
        whole = self._groups[unit.name]
        left = [item for item in whole if not self._is_gone(item, removed)]
        key = (unit.name, plan.importance, plan.seed, frozenset(id(item) for item in left))
        if key not in self._importance:
            group = tp.dependency.Group()
            group._group, group._DG = left, whole._DG
            self._importance[key] = self._ranker.score(plan.importance, group, unit.name, plan.seed)
        return self._importance[key]

    def _is_gone(self, item: Any, removed: frozenset[str]) -> bool:
        name = self._name(item)
        return name is not None and any(name == block or name.startswith(f"{block}.") for block in removed)

    def _name(self, item: Any) -> str | None:
        """The layer or bare parameter that an item of a group is about; None for plain operators."""
        target = item.dep.target.module
        return self._dependencies.member_name(target) or self._parameter_names.get(id(target))

    def _members_of(self, group: Any) -> tuple[_Member, ...]:
        named = [(self._name(item), item) for item in group]
        return tuple(
            _Member(name, item.dep.handler, tuple(map(int, item.idxs)), tuple(map(int, item.root_idxs)))
            for name, item in named
            if name is not None
        )
