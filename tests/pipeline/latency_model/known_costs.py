"""Nets whose latency follows from a formula, so that what a model learns can be held against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from device_bench.protocol import DeviceInfo, RuntimeName
from pipeline.latency_model.operators import Operator, invocation
from pipeline.latency_model.records import CalibrationHeader, MeasuredNet

DEVICE = DeviceInfo(
    hostname="board", machine="aarch64", system="Linux", cpu_model="A72", cpu_count=4, memory_bytes=1 << 32
)
HEADER = CalibrationHeader(
    target="board-onnxruntime",
    runtime=RuntimeName.ONNXRUNTIME,
    runtime_version="1.31.1",
    accelerator="cpu",
    threads=1,
    device=DEVICE,
    started_at="2025-03-01T12:00:00+00:00",
)


def conv(side: int, before: int, after: int, kernel: int = 3) -> Operator:
    """A convolution that keeps the size."""
    taps = kernel * kernel
    return Operator(
        kind="conv",
        inputs=side * side * before,
        outputs=side * side * after,
        weights=taps * before * after,
        rows=side * side,
        columns=after,
        depth=taps * before,
        taps=taps,
        inner=after,
    )


def addition(side: int, channels: int) -> Operator:
    """A sum of two pictures."""
    size = side * side * channels
    return Operator(kind="add", inputs=2 * size, outputs=size, inner=channels)


def cost_ms(operators: Sequence[Operator]) -> float:
    """Blocks of 16 channels, a fixed cost for each operator, and bytes."""
    total = 0.004
    for one in operators:
        blocks = -(-one.columns // 16) * 16
        total += 0.001 + 2e-8 * (one.inputs + one.outputs) + 3e-9 * one.rows * blocks * one.depth
    return total


def random_net(number: int, noise: float = 0.0) -> MeasuredNet:
    """A chain of convolutions with sums between."""
    rng = np.random.default_rng([3, number])
    side, width = int(rng.integers(4, 33)), int(rng.integers(4, 97))
    operators = [invocation(side * side * 3, 10), conv(side, 3, width)]
    for _ in range(int(rng.integers(1, 6))):
        after = int(rng.integers(4, 97))
        operators += [conv(side, width, after, int(rng.choice([1, 3]))), addition(side, after)]
        width = after
    ms = cost_ms(operators) * float(np.exp(noise * rng.standard_normal()))
    return MeasuredNet(name=f"net-{number}", kind="chain", ms=ms, operators=tuple(operators))
