"""Networks without shortcuts: an MLP, a small CNN and a VGG-like one."""

from __future__ import annotations

from math import prod

import torch
from torch import nn

MLP_WIDTHS = (256, 128)
# Channels of each stage; between two stages the picture is halved.
CNN_STAGES = ((32, 32), (64, 64), (128,))
VGG_STAGES = ((32, 32), (64, 64), (128, 128), (256, 256))
VGG_HIDDEN = 128


class Flattened(nn.Module):
    """`head` on samples laid out in one row each."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, ...] → [n, outputs]."""
        result: torch.Tensor = self.head(x.flatten(1))
        return result


class Pooled(nn.Module):
    """`head` on the mean over all pixels of what `features` gives."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, h, w] → [n, outputs]."""
        result: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return result


def convolution(in_channels: int, out_channels: int, kernel: int = 3) -> list[nn.Module]:
    """Convolution that keeps the size, batch norm, ReLU."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def _stages(input_shape: tuple[int, ...], stages: tuple[tuple[int, ...], ...]) -> nn.Sequential:
    """The stages one after another; a picture is halved only while its shorter side has four pixels left."""
    channels, side = input_shape[0], min(input_shape[1:])
    layers: list[nn.Module] = []
    for number, widths in enumerate(stages):
        if number and side >= 4:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        for width in widths:
            layers += convolution(channels, width)
            channels = width
    return nn.Sequential(*layers)


def build_mlp(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Two hidden layers with ReLU, for samples of any shape."""
    first, second = MLP_WIDTHS
    return Flattened(
        nn.Sequential(
            nn.Linear(prod(input_shape), first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, outputs),
        )
    )


def build_cnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Five convolutions, 32 to 128 channels."""
    return Pooled(_stages(input_shape, CNN_STAGES), nn.Linear(CNN_STAGES[-1][-1], outputs))


def build_vgg(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """VGG-like (Simonyan and Zisserman, 2015), with batch norm and one hidden layer in the head."""
    head = nn.Sequential(nn.Linear(VGG_STAGES[-1][-1], VGG_HIDDEN), nn.ReLU(), nn.Linear(VGG_HIDDEN, outputs))
    return Pooled(_stages(input_shape, VGG_STAGES), head)
