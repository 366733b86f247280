"""Compressed models of the zoo, by plans at random: they judge a latency model and teach it nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from exporters.candidates import ShapeBench
from pipeline.compressor import compress
from pipeline.space import PlanSpace
from pipeline.tracing import trace
from pipeline.zoo import build

# Each network with a sample's shape in the data set that suits it.
CHECKED: dict[str, tuple[int, ...]] = {
    "mlp": (1, 8, 8),
    "cnn": (1, 8, 8),
    "vgg": (1, 28, 28),
    "resnet20": (3, 32, 32),
    "mobilenetv2": (3, 32, 32),
    "dscnn": (1, 49, 40),
    "vit": (1, 28, 28),
}
OUTPUTS = 10
# Plans in turn: any width, multiples of four, and of eight, which are what a search asks for.
STEPS = (8, 1, 4)
_SAMPLES = 8


class CheckFile(NamedTuple):
    """One compressed network as an INT8 file."""

    name: str
    family: str
    path: Path


def write_checks(
    form: str, folder: Path, plans: int, seed: int, names: Sequence[str] = tuple(CHECKED)
) -> Iterator[CheckFile]:
    """Write `plans` compressed copies of each network as INT8 `form` ("onnx" or "tflite"), one after another.

    Weights are random: latency depends on shapes.

    Raises:
        ExportError: a network cannot be exported.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shape = CHECKED[name]
        rng = np.random.default_rng([seed, *name.encode()])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build(name, shape, OUTPUTS).eval()
        graph = trace(module, shape)
        samples = rng.standard_normal((_SAMPLES, *shape)).astype(np.float32)
        writer = ShapeBench(module, graph, (), samples, folder)
        for number in range(plans):
            plan = PlanSpace.of(graph, STEPS[number % len(STEPS)]).sample(rng)
            path = folder / f"{name}-{number}.{form}"
            writer.write(form, compress(module, graph, plan), plan, path)
            yield CheckFile(f"{name}-{plan.plan_id}", name, path)
