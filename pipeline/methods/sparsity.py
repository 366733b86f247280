"""Unstructured sparsity: single weights become zero, and stay so while the rest is trained.

A weight is zero where |w| ≤ t (Han et al., "Learning both Weights and Connections for Efficient Neural
Networks", NeurIPS 2015). The soft form sign(w) · max(|w| − t, 0) shrinks the others by the threshold as well
and is the proximal step of an L1 penalty (Donoho, "De-noising by soft-thresholding", 1995).

Files get smaller once they are compressed. Runtimes for CPUs compute zeros like any other number, so they do
not get faster.
"""

from __future__ import annotations

import torch

from device_bench.errors import BadInputError


def threshold_for(weight: torch.Tensor, sparsity: float) -> float:
    """The t for which a share `sparsity` of the weights has |w| ≤ t, as nearly as their number allows.

    Raises:
        BadInputError: `sparsity` is not from 0 to below 1.
    """
    if not 0.0 <= sparsity < 1.0:
        raise BadInputError(f"sparsity must be from 0 to below 1; got {sparsity}")
    count = round(sparsity * weight.numel())
    if count == 0:
        return -1.0
    return float(weight.detach().abs().flatten().kthvalue(count).values)


def mask_for(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Which weights stay: boolean, of the weight's shape, with exactly the share asked for at zero.

    Of equal magnitudes the later ones stay.
    """
    threshold_for(weight, sparsity)
    count = round(sparsity * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[weight.detach().abs().flatten().argsort(stable=True)[:count]] = False
    return mask.reshape(weight.shape)


def global_shares(weights: dict[str, torch.Tensor], sparsity: float) -> dict[str, float]:
    """The sparsity of each layer when one threshold serves all of them.

    A layer keeps at least one weight.

    Args:
        weights: by layer.
        sparsity: of all weights together.
    """
    threshold = threshold_for(torch.cat([weight.detach().flatten() for weight in weights.values()]), sparsity)
    return {
        name: min(float((weight.abs() <= threshold).float().mean()), 1.0 - 1.0 / weight.numel())
        for name, weight in weights.items()
    }


def soft_threshold(weight: torch.Tensor, threshold: torch.Tensor | float) -> torch.Tensor:
    """sign(w) · max(|w| − t, 0); its gradient is 1 where the weight stays and 0 elsewhere."""
    return weight.sign() * (weight.abs() - threshold).clamp_min(0.0)


class Masked(torch.nn.Module):
    """A parametrization that keeps zeros at zero.

    Args:
        weight: gives the mask and the threshold.
        sparsity: the share of zeros.
        soft: shrink what stays by the threshold.
    """

    mask: torch.Tensor
    threshold: torch.Tensor

    def __init__(self, weight: torch.Tensor, sparsity: float, soft: bool) -> None:
        super().__init__()
        self.sparsity = sparsity
        self._soft = soft
        self.register_buffer("mask", torch.ones(weight.shape, dtype=torch.bool))
        self.register_buffer("threshold", torch.zeros(()))
        self.set_(weight, sparsity)

    def set_(self, weight: torch.Tensor, sparsity: float) -> None:
        """Choose anew which weights are zero, and how many."""
        self.mask.copy_(mask_for(weight, sparsity))
        if self._soft:
            self.threshold.fill_(max(0.0, threshold_for(weight, sparsity)))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight with its zeros."""
        return soft_threshold(weight, self.threshold) * self.mask
