"""Makes the models that the fleet benchmark measures everything beside: python benchmarks/fleet_reference.py

A net of a fraction of a millisecond on a laptop's core, INT8, one file a format. It must be long enough that
its time is arithmetic, like that of what it is compared with, and not the cost of one call: the known models
of `benchmarks/known_models.py` take 2 to 12 us, and ratios to them wandered between visits by 1 to 2 % on a
quiet machine and by 12 % on a busy one. A new file begins every history anew, so make one with reason.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from exporters import exporter_for
from exporters.base import ArtifactMetadata
from pipeline.fleet.reference import REFERENCES

SHAPE = (3, 96, 96)


def net() -> nn.Module:
    """A convolution, depthwise and pointwise ones, a pool and a matrix; 4 million MACs."""
    widths = ((16, 32, 1), (32, 64, 2), (64, 64, 1))
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()]
    for before, after, stride in widths:
        layers += [nn.Conv2d(before, before, 3, stride, 1, groups=before), nn.ReLU()]
        layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1][1], 10))


def main() -> None:
    """Write the files. Their weights are random: nobody reads the answers."""
    torch.manual_seed(0)
    module = net().eval()
    samples = np.random.default_rng(0).random((64, *SHAPE), dtype=np.float32)
    for path in REFERENCES.values():
        path.parent.mkdir(exist_ok=True)
        form = path.suffix.removeprefix(".")
        exporter_for(form).export(module, path, "int8", samples, ArtifactMetadata())
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
