"""How important each channel of a unit is, by the measure that a plan names.

- magnitude, magnitude_l1: the group magnitude of `structured_pruning`, by squares or by absolute values.
- taylor: Σ |w · ∂L/∂w| over the weights that leave with a channel, a first-order estimate of what the loss
  would change by (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019).
- batch_norm: |γ| of the channel's batch norms (Liu et al., "Network Slimming", ICCV 2017).
- contribution: how much the loss rises without the channel, measured batch by batch and averaged.
- random: drawn from the plan's seed; what the others must beat.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from pipeline.errors import PlanError
from pipeline.layer_choice import Importance
from pipeline.methods.structured_pruning import magnitude

# The loss of a module over one batch, a scalar with its gradient.
BatchLoss = Callable[[nn.Module], torch.Tensor]
# What a Torch-Pruning handler is called that takes what a layer makes, not what it reads.
_MAKES = "prune_out_channels"


class Ranker:
    """Scores channels of one module.

    Args:
        module: whose groups are scored, in evaluation mode; its weights are the same after each call.
        batches: losses over a few batches of training samples; "taylor" and "contribution" need them.
    """

    def __init__(self, module: nn.Module, batches: Sequence[BatchLoss] = ()) -> None:
        self._module = module
        self._batches = batches
        self._has_gradients = False

    def score(self, importance: Importance, group: Any, unit: str, seed: int = 0) -> torch.Tensor:
        """The importance of each channel, float32 [width]; the more important, the larger.

        Args:
            group: a Torch-Pruning group at its full width.
            unit: what to call it in an error, and what tells its random numbers from another's.

        Raises:
            PlanError: the unit has no batch norm to be ranked by, or there are no samples for a loss.
        """
        if importance == "magnitude":
            return magnitude(group)
        if importance == "random":
            generator = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(unit.encode()))
            return torch.rand(len(group[0].idxs), generator=generator)
        if importance == "contribution":
            return self._contribution(group, unit)
        if importance == "taylor":
            self._need_gradients(unit)
            found = tp.importance.GroupTaylorImportance()(group)
        elif importance == "magnitude_l1":
            found = tp.importance.GroupMagnitudeImportance(p=1, group_reduction="mean", normalizer="mean")(
                group
            )
        else:
            found = tp.importance.BNScaleImportance()(group)
            if found is None:
                raise PlanError(
                    f"unit {unit!r} has no batch norm, so its channels cannot be ranked by one; take "
                    "importance magnitude, taylor or contribution"
                )
        score: torch.Tensor = found.detach().float()
        return score

    def _contribution(self, group: Any, unit: str) -> torch.Tensor:
        """The mean over batches of the loss without the channel, less the loss with it."""
        self._need_batches(unit)
        with torch.no_grad():
            whole = torch.stack([loss(self._module) for loss in self._batches])
            rises = []
            for channel in range(len(group[0].idxs)):
                with self._without(group, channel):
                    losses = torch.stack([loss(self._module) for loss in self._batches])
                rises.append((losses - whole).mean())
        return torch.stack(rises).float()

    @contextmanager
    def _without(self, group: Any, channel: int) -> Iterator[None]:
        """The module as if the channel were gone: whatever makes it makes zeros."""
        kept: list[tuple[torch.Tensor, list[int], torch.Tensor]] = []
        for item in group:
            layer, kind = item.dep.target.module, item.dep.handler.__name__
            if kind != _MAKES or not isinstance(layer, nn.Module):
                continue
            rows = [i for i, root in zip(item.idxs, item.root_idxs, strict=True) if root == channel]
            for tensor in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
                if tensor is not None and rows:
                    kept.append((tensor, rows, tensor[rows].clone()))
                    tensor[rows] = 0.0
        try:
            yield
        finally:
            for tensor, rows, values in reversed(kept):
                tensor[rows] = values

    def _need_gradients(self, unit: str) -> None:
        """Let every parameter's gradient be that of the mean loss over all batches."""
        self._need_batches(unit)
        if self._has_gradients:
            return
        for parameter in self._module.parameters():
            parameter.requires_grad_(True)
            # Torch-Pruning wants one of every layer, those that a removed block took along as well.
            parameter.grad = torch.zeros_like(parameter)
        for loss in self._batches:
            (loss(self._module) / len(self._batches)).backward()
        self._has_gradients = True

    def _need_batches(self, unit: str) -> None:
        if not self._batches:
            raise PlanError(
                f"unit {unit!r} can be ranked by its effect on the loss only with training samples at hand; "
                "take importance magnitude"
            )
