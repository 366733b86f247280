"""Networks of graded size, 0.03 to 100 ms on one core of a server, as ONNX and TFLite files.

Made once and kept in a folder: the weights are random, since latency depends on shapes and not on values.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Grade(NamedTuple):
    """A stack of 3×3 convolutions: pictures of `side`², each layer `width` wide, stride 2 in the first."""

    side: int
    width: int
    layers: int

    @property
    def name(self) -> str:
        """What the files are called."""
        return f"conv-{self.side}-{self.width}-{self.layers}"


# Four operators on one number: what a call costs by itself.
EMPTY = Grade(side=1, width=1, layers=1)
# On one core of an x86 server about 0.03, 0.3, 3, 20 and 100 ms.
GRADES = (
    Grade(side=24, width=24, layers=3),
    Grade(side=48, width=48, layers=5),
    Grade(side=80, width=80, layers=5),
    Grade(side=128, width=96, layers=7),
    Grade(side=224, width=128, layers=7),
)

FORMATS = ("onnx", "tflite")


def make(grade: Grade, folder: Path) -> dict[str, Path]:
    """The files of one grade by format; only what is missing is exported."""
    paths = {form: folder / f"{grade.name}.{form}" for form in FORMATS}
    if all(path.is_file() for path in paths.values()):
        return paths
    import torch
    from torch import nn

    from exporters.base import ArtifactMetadata
    from exporters.to_onnx import OnnxExporter
    from exporters.to_tflite import TfliteExporter

    torch.manual_seed(0)
    channels = (3, *(grade.width for _ in range(grade.layers)))
    parts: list[nn.Module] = []
    for place, (before, after) in enumerate(itertools.pairwise(channels)):
        parts += [nn.Conv2d(before, after, 3, stride=2 if place == 0 else 1, padding=1), nn.ReLU()]
    module = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(grade.width, 10)).eval()
    samples = np.zeros((1, 3, grade.side, grade.side), dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    for exporter, form in ((OnnxExporter(), "onnx"), (TfliteExporter(), "tflite")):
        exporter.export(module, paths[form], "float32", samples, ArtifactMetadata())
    return paths
