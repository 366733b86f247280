"""Makes the known models that `edgeloop targets check` runs on a board: python benchmarks/known_models.py

A small net on the digits, as float and INT8 files of both formats, 16 pictures, and what each file answers.
For the float files that is torch's answer; for the INT8 files it is that of the runtime on the machine that
made them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from device_bench.bench import LocalBench
from device_bench.known_models import ANSWERS, FOLDER, INPUTS, KNOWN_MODELS, largest_error
from device_bench.protocol import BenchRequest, Failure
from exporters import exporter_for
from exporters.base import ArtifactMetadata

PICTURES = 16
EPOCHS = 60


def net() -> nn.Module:
    """A convolution, a depthwise and a pointwise one, a pool and a matrix: what most nets run on."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def train(module: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> None:
    """Adam for a few seconds: the answers need to be far apart, not right."""
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(pictures)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(pictures[batch]), labels[batch]).backward()
            optimizer.step()


def main() -> None:
    """Write the files, then run them all once more from where they lie."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    pictures = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target)
    module = net()
    train(module, pictures[PICTURES:], labels[PICTURES:])
    module.eval()
    shown = pictures[:PICTURES]
    with torch.no_grad():
        float_answers = module(shown).numpy()
    FOLDER.mkdir(exist_ok=True)
    calibration = np.ascontiguousarray(pictures[PICTURES : PICTURES + 256].numpy())
    answers: dict[str, np.ndarray] = {}
    for model in KNOWN_MODELS:
        form, precision = model.path.suffix.removeprefix("."), "int8" if "int8" in model.file else "float32"
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / model.file
            exporter_for(form).export(module, made, precision, calibration, ArtifactMetadata())
            shutil.copyfile(made, model.path)
        got = LocalBench().predict(
            BenchRequest(path=str(model.path), runtime=model.runtime), model.shaped(shown.numpy())
        )
        assert not isinstance(got, Failure), got
        answers[model.file] = got if precision == "int8" else float_answers
        error = largest_error(model, got, answers)
        right = np.mean(got.argmax(1) == labels[:PICTURES].numpy())
        print(
            f"{model.file}: {model.path.stat().st_size} bytes, off torch by "
            f"{np.abs(got - float_answers).max():.2g}, off its answers by {error:.2g} "
            f"({model.tolerance:g} allowed), {100 * right:.0f} % right"
        )
    np.save(INPUTS, shown.numpy(), allow_pickle=False)
    np.savez(ANSWERS, **answers)


if __name__ == "__main__":
    main()
