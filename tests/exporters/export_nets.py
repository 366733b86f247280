"""Small nets that the exporters' tests share."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from pipeline.zoo.resnet import CifarResNet

SHAPE = (3, 16, 16)


def residual_net() -> nn.Module:
    """Two residual blocks a stage, two parameter-free shortcuts, and batch norms that have seen something."""
    torch.manual_seed(0)
    net = CifarResNet(2, SHAPE[0], 5)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.2)
            layer.running_mean.normal_(0.0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return net.eval()


def without(net: nn.Module, *blocks: str) -> nn.Module:
    """A copy in which the identity stands for each block."""
    cut = copy.deepcopy(net)
    for name in blocks:
        parent, _, leaf = name.rpartition(".")
        setattr(cut.get_submodule(parent), leaf, nn.Identity())
    return cut


def narrowed(net: nn.Module, keep: float) -> nn.Module:
    """A copy whose blocks have lost inner channels (those between the two convolutions), by Torch-Pruning."""
    import torch_pruning as tp

    cut = copy.deepcopy(net)
    graph = tp.DependencyGraph().build_dependency(cut, torch.zeros(1, *SHAPE))
    for name, layer in list(cut.named_modules()):
        if name.endswith(".conv1"):
            gone = list(range(round((1 - keep) * layer.out_channels)))
            graph.get_pruning_group(layer, tp.prune_conv_out_channels, gone).prune()
    return cut.eval()


class Padded(nn.Module):
    """A padding shortcut and a depthwise convolution, both of which depend on the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, width, 3, padding=1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.head = nn.Linear(width, 5)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        added = self.wide.out_channels - x.shape[1]
        shortcut = nn.functional.pad(x, (0, 0, 0, 0, added // 2, added - added // 2))
        return torch.relu(self.depthwise(self.wide(x)) + shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Narrow(Padded):
    """The same with a reshape before the head, whose size depends on the width too."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.head = nn.Linear(width * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.max_pool2d(self.features(x), 4).flatten(1))


class Attention(nn.Module):
    """Layer norm and softmax attention, with heads cut out by reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 24)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        q, k, v = self.qkv(tokens).reshape(x.shape[0], -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(2, 3) * 0.5, dim=-1)
        return self.head((weights @ v).transpose(1, 2).flatten(2).mean(1))


def samples(count: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Preprocessed pictures, float32 [count, *shape]."""
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def torch_outputs(net: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(inputs)).numpy()
