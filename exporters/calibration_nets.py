"""The designed set of nets that a target is calibrated with.

A net is known by its number. Sizes are drawn log-uniformly over what small networks have, a third of the
widths each in steps of 8, of 4 and of 1: kernels work in blocks, and what an odd width costs must be seen.
Most nets repeat few kinds of operator, so that their latencies tell these apart; all operators stand among
neighbours, as in a model, because a kernel that runs alone finds everything in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import numpy as np

from exporters.calibration_net import NetBuilder, Value

# Above this a net takes long to measure and says little more.
MOST_MACS = 60_000_000
WIDTH_STEPS = (8, 4, 1)


class NetKind(NamedTuple):
    """A kind of net: how many in a hundred are of it, and what draws one."""

    name: str
    share: int
    write: Callable[[NetBuilder, np.random.Generator], Value]


class _Budget:
    """Multiplications that the net being drawn may still have."""

    def __init__(self) -> None:
        self._left = MOST_MACS

    def takes(self, macs: int) -> bool:
        if macs > self._left:
            return False
        self._left -= macs
        return True


def _between(rng: np.random.Generator, low: float, high: float) -> int:
    """Log-uniform, whole."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _width(rng: np.random.Generator, low: int, high: int) -> int:
    step = int(rng.choice(WIDTH_STEPS))
    return max(step, round(_between(rng, low, high) / step) * step)


def _head(builder: NetBuilder, x: Value, rng: np.random.Generator) -> Value:
    x = builder.mean(x)
    if rng.random() < 0.3:
        x = builder.dense(x, _width(rng, 16, 256))
    return builder.dense(x, _between(rng, 2, 100))


def _stem(builder: NetBuilder, rng: np.random.Generator, sides: tuple[int, int]) -> Value:
    """A picture of one or three channels and the first convolution."""
    height = _between(rng, *sides)
    width = height if rng.random() < 0.7 else max(4, round(height * float(rng.uniform(0.6, 1.4))))
    x = builder.picture(height, width, int(rng.choice([1, 3])))
    odd = rng.random() < 0.2 and min(x.shape[:2]) >= 12
    kernel = (10, 4) if odd else (3, 3)
    stride = int(rng.choice([1, 2])) if odd else 1
    return builder.conv(x, _width(rng, 8, 96), kernel, stride)


def _alternating(builder: NetBuilder, rng: np.random.Generator) -> Value:
    """One convolution again and again, between two widths."""
    kernel = int(rng.choice([3, 1, 5], p=[0.5, 0.42, 0.08]))
    wide = rng.random() < 0.2
    side = _between(rng, 2, 9 if wide else 34)
    low, high = (96, 320) if wide else (4, 256)
    widths = (_width(rng, low, high), _width(rng, low, high))
    macs = side * side * kernel * kernel * widths[0] * widths[1]
    while macs > MOST_MACS // 4:
        side = max(2, side * 2 // 3)
        widths = (max(4, widths[0] * 3 // 4), max(4, widths[1] * 3 // 4))
        macs = side * side * kernel * kernel * widths[0] * widths[1]
    x = builder.picture(side, side, 3)
    x = builder.conv(x, widths[0], (3, 3))
    for number in range(min(8, max(2, MOST_MACS // 2 // macs))):
        x = builder.conv(x, widths[(number + 1) % 2], (kernel, kernel))
    return _head(builder, x, rng)


def _plain(builder: NetBuilder, rng: np.random.Generator) -> Value:
    """Convolutions, halved now and then by a pool or a stride."""
    x, budget = _stem(builder, rng, (8, 34)), _Budget()
    for _ in range(int(rng.integers(2, 5))):
        for _ in range(int(rng.integers(1, 3))):
            width = _width(rng, 8, 288)
            if budget.takes(x.shape[0] * x.shape[1] * x.shape[2] * width * 9):
                x = builder.conv(x, width, (3, 3))
        if min(x.shape[:2]) >= 4:
            pooled = rng.random() < 0.7
            x = builder.max_pool(x, 2) if pooled else builder.conv(x, _width(rng, 8, 160), (3, 3), 2)
    return _head(builder, x, rng)


def _residual(builder: NetBuilder, rng: np.random.Generator) -> Value:
    """Residual blocks, with shortcuts that pad where the picture is halved."""
    x, budget = _stem(builder, rng, (12, 34)), _Budget()
    for stage in range(int(rng.integers(1, 4))):
        for block in range(int(rng.integers(1, 5))):
            halved = stage > 0 and block == 0 and min(x.shape[:2]) >= 4
            width = max(x.shape[-1], _width(rng, 8, 96)) if halved else x.shape[-1]
            inner = _width(rng, 4, 96)
            if not budget.takes(x.shape[0] * x.shape[1] * 9 * inner * (x.shape[2] + width)):
                continue
            body = builder.conv(x, inner, (3, 3), 2 if halved else 1)
            body = builder.conv(body, width, (3, 3))
            x = builder.add(body, builder.shortcut(x, width) if halved else x)
    return _head(builder, x, rng)


def _separable(builder: NetBuilder, rng: np.random.Generator) -> Value:
    """Depthwise and 1×1 convolutions in turn."""
    x, budget = _stem(builder, rng, (8, 56)), _Budget()
    for _ in range(int(rng.integers(2, 7))):
        stride = 2 if rng.random() < 0.2 and min(x.shape[:2]) >= 8 else 1
        kernel = 5 if rng.random() < 0.15 else 3
        x = builder.conv(x, x.shape[-1], (kernel, kernel), stride, depthwise=True)
        width = _width(rng, 8, 192)
        if budget.takes(x.shape[0] * x.shape[1] * x.shape[2] * width):
            x = builder.conv(x, width, (1, 1))
    return _head(builder, x, rng)


def _inverted(builder: NetBuilder, rng: np.random.Generator) -> Value:
    """Inverted residuals with a gate for each channel."""
    x, budget = _stem(builder, rng, (8, 34)), _Budget()
    for _ in range(int(rng.integers(1, 11))):
        stride = 2 if rng.random() < 0.3 and min(x.shape[:2]) >= 4 else 1
        keeps = stride == 1 and rng.random() < 0.7
        width = x.shape[-1] if keeps else _width(rng, 8, 128)
        hidden = _width(rng, 8, 384)
        if not budget.takes(x.shape[0] * x.shape[1] * hidden * (x.shape[2] + width + 9)):
            continue
        body = builder.conv(x, hidden, (1, 1))
        body = builder.conv(body, hidden, (3, 3), stride, depthwise=True)
        gate = builder.conv(builder.mean(body), _width(rng, 4, 96), (1, 1))
        body = builder.gated(body, builder.conv(gate, hidden, (1, 1)))
        body = builder.conv(body, width, (1, 1))
        x = builder.add(x, body) if keeps else body
    if rng.random() < 0.5:
        x = builder.conv(x, _width(rng, 32, 256), (1, 1))
    return _head(builder, x, rng)


def _perceptron(builder: NetBuilder, rng: np.random.Generator) -> Value:
    """Linear layers on a row, or on all pixels."""
    side = _between(rng, 4, 28)
    x = builder.row(_between(rng, 8, 784)) if rng.random() < 0.5 else builder.picture(side, side, 1)
    for _ in range(int(rng.integers(1, 5))):
        x = builder.dense(x, _width(rng, 8, 512))
    return builder.dense(x, _between(rng, 2, 100))


def _encoder(builder: NetBuilder, rng: np.random.Generator) -> Value:
    """Patches, then layers of attention and MLP, some left out."""
    size, heads = int(rng.choice([2, 4])), int(rng.choice([1, 2, 4]))
    side = size * int(rng.integers(3, 10))
    x = builder.patches(
        builder.picture(side, side, int(rng.choice([1, 3]))), heads * _width(rng, 8, 32), size
    )
    width = x.shape[-1]
    for _ in range(int(rng.integers(1, 5))):
        if rng.random() < 0.75:
            normed = builder.norm(x)
            looked, carried = heads * _between(rng, 4, 32), heads * _between(rng, 4, 32)
            mixed = builder.attention(
                builder.linear(normed, looked),
                builder.linear(normed, looked),
                builder.linear(normed, carried),
                heads,
            )
            x = builder.add(x, builder.linear(mixed, width))
        if rng.random() < 0.75:
            hidden = builder.gelu(builder.linear(builder.norm(x), _width(rng, 16, 256)))
            x = builder.add(x, builder.linear(hidden, width))
    return builder.dense(builder.token_mean(builder.norm(x)), _between(rng, 2, 100))


KINDS = (
    NetKind("alternating", 28, _alternating),
    NetKind("plain", 12, _plain),
    NetKind("residual", 15, _residual),
    NetKind("separable", 14, _separable),
    NetKind("inverted", 13, _inverted),
    NetKind("perceptron", 6, _perceptron),
    NetKind("encoder", 12, _encoder),
)


def kind_of(number: int) -> NetKind:
    """The kind of net number `number`: in every hundred each has its share, evenly spread."""
    # The golden ratio's multiples fill the unit interval evenly, wherever one stops (Weyl, 1916).
    place = (number * 0.6180339887498949) % 1.0 * sum(kind.share for kind in KINDS)
    for kind in KINDS:
        place -= kind.share
        if place < 0:
            return kind
    return KINDS[-1]


def net_numbers() -> Iterator[int]:
    """The numbers of all nets, in the order in which they are measured."""
    return count()


def write_net(number: int, builder: NetBuilder) -> bytes:
    """The file of net number `number`, always the same for a builder of one format."""
    return builder.finish(kind_of(number).write(builder, np.random.default_rng([17, number])))
