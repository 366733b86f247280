"""Low rank: a layer becomes two smaller ones, by truncated singular value decomposition.

W = U S Vᵀ; the k largest singular values stay, and each factor takes the square root of them, so that both
are of one scale when they are trained on (Denton et al., "Exploiting Linear Structure Within Convolutional
Networks", NeurIPS 2014).

- svd, a linear layer [out, in]: in → k, then k → out.
- channel, a convolution read as [out, in · kh · kw]: kh × kw into k channels, then 1 × 1 (Zhang et al.,
  "Accelerating Very Deep Convolutional Networks", 2016).
- spatial, a convolution read as [in · kh, out · kw]: kh × 1 into k channels, then 1 × kw (Jaderberg et al.,
  "Speeding up Convolutional Neural Networks with Low Rank Expansions", 2014).
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.errors import PlanError
from pipeline.layer_choice import LowRank


def factorise_(module: nn.Module, layer: str, asked: LowRank) -> int:
    """Let two layers stand for one, in place; the rank that stays.

    Raises:
        PlanError: the layer has no such form, or its matrix has not that rank.
    """
    parent, _, leaf = layer.rpartition(".")
    holder = module.get_submodule(parent)
    found = module.get_submodule(layer)
    rank = rank_for(found, layer, asked)
    setattr(holder, leaf, factorised(found, asked.kind, rank).train(found.training))
    return rank


def rank_for(layer: nn.Module, name: str, asked: LowRank) -> int:
    """The rank that the choice means for this layer's weights.

    Raises:
        PlanError: the layer has no such form, or its matrix has not that rank.
    """
    matrix = _matrix(layer, name, asked.kind)
    most = int(min(matrix.shape))
    if asked.rank is not None:
        if asked.rank > most:
            raise PlanError(
                f"layer {name!r}: rank {asked.rank} is above that of its {matrix.shape[0]} x "
                f"{matrix.shape[1]} matrix; give 1 to {most}"
            )
        return asked.rank
    if asked.ratio is not None:
        return max(1, round(asked.ratio * most))
    assert asked.energy is not None
    return rank_of_energy(torch.linalg.svdvals(matrix.double()), asked.energy)


def rank_of_energy(singular_values: torch.Tensor, energy: float) -> int:
    """The least k with Σ_{i ≤ k} σᵢ² ≥ energy · Σ σᵢ².

    Args:
        singular_values: [n], descending.
    """
    shares = (singular_values**2).cumsum(0) / (singular_values**2).sum().clamp_min(1e-300)
    return min(int(shares.numel()), int((shares < energy - 1e-12).sum()) + 1)


def factorised(layer: nn.Module, kind: str, rank: int) -> nn.Sequential:
    """Two layers that compute what `layer` does with its matrix cut to `rank`; the second has the bias."""
    left, right = _factors(_matrix(layer, "", kind), rank)
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
        second: nn.Module = nn.Linear(rank, layer.out_features, bias=bias)
        weights = (right, left)
    else:
        assert isinstance(layer, nn.Conv2d)
        first, second = _convolutions(layer, kind, rank, bias)
        weights = _kernels(layer, kind, left, right)
    with torch.no_grad():
        first.weight.copy_(weights[0])
        second.weight.copy_(weights[1])
        if bias:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def macs_ratio(layer: nn.Module, kind: str, rank: int) -> float:
    """Multiplications of the two layers as a share of those of the one, for a convolution of stride 1."""
    rows, columns = _matrix(layer, "", kind).shape
    return float(rank * (rows + columns) / (rows * columns))


def _matrix(layer: nn.Module, name: str, kind: str) -> torch.Tensor:
    """The layer's weights as the matrix that `kind` reads them as."""
    if isinstance(layer, nn.Linear) and kind == "svd":
        return layer.weight.detach()
    if isinstance(layer, nn.Conv2d) and layer.groups == 1 and kind in ("spatial", "channel"):
        weight = layer.weight.detach()
        if kind == "channel":
            return weight.flatten(1)
        out, inner, height, width = weight.shape
        return weight.permute(1, 2, 0, 3).reshape(inner * height, out * width)
    raise PlanError(
        f"layer {name!r} is {type(layer).__name__} and has no low rank of kind {kind!r}: svd is for Linear, "
        "spatial and channel are for Conv2d with one group"
    )


def _factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[m, k] and [k, n] whose product is the matrix's best approximation of that rank."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    # The signs of singular vectors are free and differ between libraries: the largest entry is positive.
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    scale = values[:rank].sqrt()
    return (
        (left[:, :rank] * signs[:, :rank] * scale).to(matrix.dtype),
        (right[:rank] * signs[0, :rank, None] * scale[:, None]).to(matrix.dtype),
    )


def _convolutions(layer: nn.Conv2d, kind: str, rank: int, bias: bool) -> tuple[nn.Conv2d, nn.Conv2d]:
    (height, width), (down, along) = layer.kernel_size, layer.stride
    pad: tuple[int, int] | str = layer.padding
    if kind == "channel":
        first = nn.Conv2d(
            *(layer.in_channels, rank, layer.kernel_size, layer.stride),
            padding=pad,
            dilation=layer.dilation,
            bias=False,
            padding_mode=layer.padding_mode,
        )
        return first, nn.Conv2d(rank, layer.out_channels, 1, bias=bias)
    vertical, horizontal = (pad, pad) if isinstance(pad, str) else ((pad[0], 0), (0, pad[1]))
    first = nn.Conv2d(
        *(layer.in_channels, rank, (height, 1), (down, 1)),
        padding=vertical,
        dilation=(layer.dilation[0], 1),
        bias=False,
        padding_mode=layer.padding_mode,
    )
    second = nn.Conv2d(
        *(rank, layer.out_channels, (1, width), (1, along)),
        padding=horizontal,
        dilation=(1, layer.dilation[1]),
        bias=bias,
        padding_mode=layer.padding_mode,
    )
    return first, second


def _kernels(
    layer: nn.Conv2d, kind: str, left: torch.Tensor, right: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    rank, (height, width) = left.shape[1], layer.kernel_size
    if kind == "channel":
        return right.reshape(rank, layer.in_channels, height, width), left[:, :, None, None]
    first = left.reshape(layer.in_channels, height, rank).permute(2, 0, 1)[..., None]
    second = right.reshape(rank, layer.out_channels, width).permute(1, 0, 2)[:, :, None]
    return first, second
