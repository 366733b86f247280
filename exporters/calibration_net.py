"""What nets that are made only to be measured are built with: one method for each piece of a network.

Their weights are random: the latency of these kernels depends on shapes, not on values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """Something computed. `key` is the builder's own; pictures have `shape` (height, width, channels), tokens
    (count, features), rows (features,)."""

    key: str | int
    shape: Shape


class NetBuilder(Protocol):
    """Writes one INT8 net, in the form in which the exporter of its format writes models."""

    def picture(self, height: int, width: int, channels: int) -> Value:
        """The net's input."""
        ...

    def row(self, features: int) -> Value:
        """The net's input, where it is a row of numbers."""
        ...

    def conv(
        self, x: Value, channels: int, kernel: Shape, stride: int = 1, *, depthwise: bool = False
    ) -> Value:
        """A convolution that keeps the size but for its stride, with bias and ReLU."""
        ...

    def max_pool(self, x: Value, size: int) -> Value:
        """The largest of each size×size pixels."""
        ...

    def mean(self, x: Value) -> Value:
        """The mean over all pixels, a picture of one pixel."""
        ...

    def add(self, x: Value, y: Value) -> Value:
        """The sum of two of one shape, with ReLU where they are pictures."""
        ...

    def gated(self, x: Value, gate: Value) -> Value:
        """`x` times the sigmoid of a picture of one pixel."""
        ...

    def shortcut(self, x: Value, channels: int) -> Value:
        """Every second pixel, channels filled up with zeros on both sides."""
        ...

    def dense(self, x: Value, features: int) -> Value:
        """A linear layer on a row, or on a picture of one pixel."""
        ...

    def patches(self, x: Value, features: int, size: int) -> Value:
        """Tokens: size×size patches through a convolution, plus a constant for each position."""
        ...

    def norm(self, x: Value) -> Value:
        """Layer norm of tokens."""
        ...

    def linear(self, x: Value, features: int) -> Value:
        """A linear layer on tokens."""
        ...

    def gelu(self, x: Value) -> Value:
        """GELU."""
        ...

    def attention(self, queries: Value, keys: Value, values: Value, heads: int) -> Value:
        """Softmax attention over tokens."""
        ...

    def token_mean(self, x: Value) -> Value:
        """The mean over tokens, a row."""
        ...

    def finish(self, x: Value) -> bytes:
        """The file whose output `x` is."""
        ...


def out_side(side: int, kernel: int, stride: int) -> int:
    """Pixels along a side after a convolution padded by half of its kernel."""
    return (side + 2 * (kernel // 2) - kernel) // stride + 1


def random_weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """int8 in −127 … 127."""
    return rng.integers(-127, 128, shape).astype(np.int8)
