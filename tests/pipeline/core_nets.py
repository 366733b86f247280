"""Nets small enough to work out by hand, and data for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.data.base import Augmentation, Dataset, Metric, Preprocessing, SealedSplit, Split


class TwoConv(nn.Module):
    """conv 2→4 (3×3), batch norm, ReLU, conv 4→3 (1×1), mean, linear 3→2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 3, 1, bias=False)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv2(self.relu(self.bn(self.conv1(x))))
        result: torch.Tensor = self.head(hidden.mean((2, 3)))
        return result


class Flattening(nn.Module):
    """conv 1→4 (3×3) on 4×4 pixels, flattened to 64 features, linear 64→3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(torch.relu(self.conv(x)).flatten(1))
        return result


class Joined(nn.Module):
    """Two branches of 4 and 6 channels, joined side by side, then conv 10→3."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 6, 1)
        self.after = nn.Conv2d(10, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.relu(torch.cat([self.left(x), self.right(x)], dim=1))
        result: torch.Tensor = self.head(self.after(joined).mean((2, 3)))
        return result


class Waves(nn.Module):
    """One-dimensional convolutions, as for sound: 2→6→6, mean, linear 6→1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.conv2 = nn.Conv1d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv1(x)))
        result: torch.Tensor = self.head(torch.relu(self.conv2(hidden)).mean(2))
        return result


class TwoOutputs(nn.Module):
    """Gives a pair, which no task here can use."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.left = nn.Linear(4, 2)
        self.right = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        body = self.body(x)
        return self.left(body), self.right(body)


class Mismatched(nn.Module):
    """Fails within torch, called from a line of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        result: torch.Tensor = self.second(hidden)  # the line of Mismatched
        return result


class Untraceable(nn.Module):
    """Fails at a line of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.layer(x)
        return hidden.reshape(7, 7)  # the line of Untraceable


def liven_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after training: no statistic or weight is the same for two channels."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3 + 0.5)
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) + 0.5)
    return module.eval()


def dataset_of(
    x: np.ndarray,
    y: np.ndarray,
    metric: Metric = Metric.ACCURACY,
    augmentation: Augmentation = "none",
    preprocessing: Preprocessing | None = None,
) -> Dataset:
    """The samples as train split and as search split."""
    split = Split(x, y)
    classes = metric is not Metric.MSE and metric is not Metric.R2
    return Dataset(
        name="by-hand",
        metric=metric,
        train=split,
        search=split,
        test=SealedSplit(lambda: split),
        preprocessing=preprocessing or Preprocessing(),
        labels=tuple(str(value) for value in np.unique(y)) if classes else (),
        augmentation=augmentation,
    )


class Grouped(nn.Module):
    """conv 3→8, conv 8→16 in four groups, conv 16→6, linear 6→2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.conv2 = nn.Conv2d(16, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv2(torch.relu(self.grouped(torch.relu(self.conv1(x)))))
        result: torch.Tensor = self.head(hidden.mean((2, 3)))
        return result


class Halved(nn.Module):
    """A layer whose outputs are cut into two halves, which go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(5, 16)
        self.left = nn.Linear(8, 6)
        self.right = nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.wide(x).chunk(2, dim=1)
        result: torch.Tensor = self.head(torch.relu(self.left(left) + self.right(right)))
        return result


class PackedAttention(nn.Module):
    """Queries, keys and values from one layer, as many published transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.softmax(q @ k.transpose(2, 3), dim=-1) @ v
        result: torch.Tensor = self.head(self.out(mixed.transpose(1, 2).flatten(2)).mean(1))
        return result
