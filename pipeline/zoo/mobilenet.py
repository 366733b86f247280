"""Networks of depthwise convolutions: MobileNetV2-like for pictures, DS-CNN for keywords."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.zoo.plain import Pooled, convolution

STEM_WIDTH = 16
HEAD_WIDTH = 256
# Expansion, channels, blocks, stride of the first block: MobileNetV2's table shrunk to pictures of 32×32.
INVERTED_STAGES = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 32, 3, 2), (4, 64, 3, 2), (4, 96, 2, 1))
SQUEEZE = 4
DSCNN_WIDTH = 64
DSCNN_BLOCKS = 4
DSCNN_KERNEL = (10, 4)


class SqueezeExcite(nn.Module):
    """x times a gate for each channel, from the mean over its pixels (Hu et al., CVPR 2018).

    The gate is a plain sigmoid, which INT8 kernels have as one table; the hard one costs four operators.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, max(8, channels // SQUEEZE), 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(max(8, channels // SQUEEZE), channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, h, w] → the same."""
        squeezed = x.mean((2, 3), keepdim=True)
        gated: torch.Tensor = x * self.gate(self.expand(self.relu(self.reduce(squeezed))))
        return gated


class InvertedResidual(nn.Module):
    """x + body(x), the body widening, filtering each channel, and narrowing (Sandler et al., CVPR 2018)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, h, w] → the same."""
        result: torch.Tensor = x + self.body(x)
        return result


def depthwise(channels: int, stride: int = 1) -> list[nn.Module]:
    """A 3×3 filter for each channel, batch norm, ReLU."""
    return [
        nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]


def _inverted(in_channels: int, out_channels: int, expansion: int, stride: int) -> nn.Module:
    hidden = in_channels * expansion
    widen = convolution(in_channels, hidden, 1) if expansion > 1 else []
    body = nn.Sequential(
        *widen,
        *depthwise(hidden, stride),
        SqueezeExcite(hidden),
        nn.Conv2d(hidden, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )
    return InvertedResidual(body) if stride == 1 and in_channels == out_channels else body


def build_mobilenetv2(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """MobileNetV2-like with squeeze-excite, 16 to 96 channels, for pictures of about 32×32."""
    layers = convolution(input_shape[0], STEM_WIDTH)
    channels = STEM_WIDTH
    for expansion, width, blocks, first_stride in INVERTED_STAGES:
        for number in range(blocks):
            layers.append(_inverted(channels, width, expansion, 1 if number else first_stride))
            channels = width
    layers += convolution(channels, HEAD_WIDTH, 1)
    return Pooled(nn.Sequential(*layers), nn.Linear(HEAD_WIDTH, outputs))


def build_dscnn(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """DS-CNN (Zhang et al., "Hello Edge", 2017): a wide stem in time, then separable convolutions.

    The stem halves the picture only if that leaves at least eight pixels on the shorter side.
    """
    stride = 2 if min(input_shape[1:]) >= 16 else 1
    rows, columns = DSCNN_KERNEL
    padding = (rows // 2, columns // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(input_shape[0], DSCNN_WIDTH, DSCNN_KERNEL, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(DSCNN_WIDTH),
        nn.ReLU(),
    ]
    for _ in range(DSCNN_BLOCKS):
        layers += [*depthwise(DSCNN_WIDTH), *convolution(DSCNN_WIDTH, DSCNN_WIDTH, 1)]
    return Pooled(nn.Sequential(*layers), nn.Linear(DSCNN_WIDTH, outputs))
