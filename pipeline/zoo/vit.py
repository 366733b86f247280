"""A small vision transformer (Dosovitskiy et al., 2021), with the mean over tokens for a class token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

WIDTH = 64
HEADS = 4
LAYERS = 4
MLP_RATIO = 2
TOKENS_A_SIDE = 8


class Attention(nn.Module):
    """Softmax attention over tokens; queries, keys and values have a layer each, so that each can be cut.

    Head widths are read from the layers as they are, but the scale stays that of the uncut head: what is left
    of a dot product keeps its size.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] → the same."""
        q = self._heads(self.q(x)) * self.scale
        k = self._heads(self.k(x))
        v = self._heads(self.v(x))
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)), dim=-1)
        mixed = torch.matmul(weights, v).transpose(1, 2).flatten(2)
        result: torch.Tensor = self.proj(mixed)
        return result

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] → [n, heads, tokens, width of a head]."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] → the same."""
        result: torch.Tensor = self.fc2(self.gelu(self.fc1(x)))
        return result


class Residual(nn.Module):
    """x + body(norm(x)): half of a transformer layer, which may be removed whole."""

    def __init__(self, width: int, body: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] → the same."""
        result: torch.Tensor = x + self.body(self.norm(x))
        return result


class Patches(nn.Module):
    """A picture as tokens: patches through a convolution, plus what each position has learned.

    Args:
        input_shape: [channels, h, w] of a picture.
        width: features of a token.
    """

    def __init__(self, input_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, height, columns = input_shape
        patch = (patch_size(height), patch_size(columns))
        self.padding = (0, -columns % patch[1], 0, -height % patch[0])
        tokens = -(-height // patch[0]) * -(-columns // patch[1])
        self.conv = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, h, w] → [n, tokens, width]."""
        if any(self.padding):
            x = functional.pad(x, self.padding)
        tokens: torch.Tensor = self.conv(x).flatten(2).transpose(1, 2) + self.position
        return tokens


class VisionTransformer(nn.Module):
    """Patches, then layers of attention and MLP, each a residual block of its own, then a linear head."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.patches = Patches(input_shape, WIDTH)
        blocks: list[nn.Module] = []
        for _ in range(LAYERS):
            blocks.append(Residual(WIDTH, Attention(WIDTH, HEADS)))
            blocks.append(Residual(WIDTH, Mlp(WIDTH, MLP_RATIO * WIDTH)))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, h, w] → logits [n, outputs]."""
        tokens = self.norm(self.blocks(self.patches(x)))
        logits: torch.Tensor = self.head(tokens.mean(1))
        return logits


def patch_size(side: int) -> int:
    """The smallest patch that divides `side` into at most eight tokens; padding helps where none is near."""
    smallest = max(min(2, side), -(-side // TOKENS_A_SIDE))
    return next((size for size in range(smallest, 2 * smallest) if side % size == 0), smallest)


def build_vit(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Four layers of width 64 with four heads, at most 64 tokens."""
    return VisionTransformer(input_shape, outputs)
