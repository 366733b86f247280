"""ResNets for 32×32 pictures: 6n+2 layers, three stages of 16, 32 and 64 channels (He et al., 2015, §4.2).

Parameter names are those of akamaster/pytorch_resnet_cifar10, so that its weights load as they are.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

STAGE_WIDTHS = (16, 32, 64)


class OptionAShortcut(nn.Module):
    """The parameter-free shortcut: every second pixel, new channels filled with zeros on both sides.

    Pruning changes `in_channels` and `out_channels`; what lies between them is padded, half in front.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out, at least `in_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in_channels, h, w] → [n, out_channels, ceil(h/2), ceil(w/2)]."""
        added = self.out_channels - self.in_channels
        front = added // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, front, added - front))


class BasicBlock(nn.Module):
    """relu(f(x) + shortcut(x)) with f = conv-bn-relu-conv-bn."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = (
            nn.Identity() if stride == 1 else OptionAShortcut(in_channels, out_channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in_channels, h, w] → [n, out_channels, ceil(h/stride), ceil(w/stride)]."""
        inner = self.relu1(self.bn1(self.conv1(x)))
        residual: torch.Tensor = self.bn2(self.conv2(inner)) + self.shortcut(x)
        activated: torch.Tensor = self.relu2(residual)
        return activated


class CifarResNet(nn.Module):
    """A ResNet of 6n+2 layers, n residual blocks in each of three stages.

    Args:
        blocks: n.
        in_channels: channels of the picture.
        outputs: classes.
    """

    def __init__(self, blocks: int, in_channels: int, outputs: int) -> None:
        super().__init__()
        first, second, third = STAGE_WIDTHS
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.layer1 = _stage(first, first, blocks, 1)
        self.layer2 = _stage(first, second, blocks, 2)
        self.layer3 = _stage(second, third, blocks, 2)
        self.linear = nn.Linear(third, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in_channels, h, w] → logits [n, outputs]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


def _init(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return model


def build_resnet20(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """ResNet-20 for pictures [channels, h, w]."""
    return _init(CifarResNet(3, input_shape[0], outputs))


def build_resnet32(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """ResNet-32 for pictures [channels, h, w]."""
    return _init(CifarResNet(5, input_shape[0], outputs))


def build_resnet44(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """ResNet-44 for pictures [channels, h, w]."""
    return _init(CifarResNet(7, input_shape[0], outputs))


def build_resnet56(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """ResNet-56 for pictures [channels, h, w]."""
    return _init(CifarResNet(9, input_shape[0], outputs))
