"""Small models whose answers are known, to see that a board computes what it should.

`benchmarks/known_models.py` made them: one net, float and INT8, for the runtimes that read files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_bench.bench import Bench
from device_bench.protocol import BenchRequest, Failure, RuntimeName

FOLDER = Path(__file__).parent / "known"
INPUTS = FOLDER / "pictures.npy"
ANSWERS = FOLDER / "answers.npz"


class KnownModel(NamedTuple):
    """One file. `shape`: of one sample; `tolerance`: by how much an answer may be off.

    Float kernels differ in the order of their sums. INT8 kernels of different processors round differently,
    here by a few steps of the output's scale.
    """

    file: str
    runtime: RuntimeName
    shape: tuple[int, ...]
    tolerance: float

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return FOLDER / self.file

    def shaped(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pictures, float32 [n, 1, 8, 8], as this file takes them."""
        return pictures.reshape(len(pictures), *self.shape)


KNOWN_MODELS = (
    KnownModel("float.onnx", RuntimeName.ONNXRUNTIME, (1, 8, 8), 1e-3),
    KnownModel("int8.onnx", RuntimeName.ONNXRUNTIME, (1, 8, 8), 1.0),
    KnownModel("float.tflite", RuntimeName.LITERT, (8, 8, 1), 1e-3),
    KnownModel("int8.tflite", RuntimeName.LITERT, (8, 8, 1), 1.0),
)


def check_known(bench: Bench, model: KnownModel) -> str | None:
    """Run a known model on a bench.

    Returns:
        What is wrong with its answers, or None.
    """
    pictures: NDArray[np.float32] = np.load(INPUTS, allow_pickle=False)
    request = BenchRequest(path=str(model.path), runtime=model.runtime)
    got = bench.predict(request, model.shaped(pictures))
    if isinstance(got, Failure):
        return f"{got.kind.value}: {got.message}"
    with np.load(ANSWERS, allow_pickle=False) as answers:
        expected = answers[model.file]
        if got.shape != expected.shape:
            return f"answers have the shape {list(got.shape)}; {list(expected.shape)} is right"
        error = largest_error(model, got, answers)
    # A comparison that is false for NaN.
    if not error <= model.tolerance:
        return f"wrong answers: off by {error:.3g}, where {model.tolerance:g} is allowed"
    return None


def largest_error(
    model: KnownModel, got: NDArray[np.float32], answers: Mapping[str, NDArray[np.float32]]
) -> float:
    """By how much the outputs, float32 [n, 10], differ from the known answers of this file at most."""
    return float(np.abs(got - answers[model.file]).max())
