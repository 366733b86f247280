"""What a run's original and its single changes answered, kept beside its trials as one safetensors file.

Tensors: `truth` [n] or [n, heads], `original` float32 [n, k], `heads` int64, how many classes each of several
tasks has, and for every probed change its answers float32 [n, k] under the change's JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from device_bench.errors import BadInputError
from device_bench.storage import write_whole
from pipeline.data.base import Metric
from pipeline.policy.base import Change
from pipeline.policy.outputs import Outputs, ProbedOutputs

ANSWERS_FILE = "answers.safetensors"
TRUTH, ORIGINAL, HEADS = "truth", "original", "heads"


@dataclass(frozen=True)
class AnswerFile:
    """The file of one run; it need not be there yet."""

    path: Path

    def start(self, outputs: ProbedOutputs) -> None:
        """Keep the original's answers and the truth, and forget what there was.

        Raises:
            RunError: the folder cannot be written.
        """
        heads = np.array(outputs.heads, np.int64)
        told = {ORIGINAL: outputs.original, TRUTH: outputs.truth, HEADS: heads}
        self._write(told | {change.model_dump_json(): found for change, found in outputs.changed.items()})

    def add(self, change: Change, answers: Outputs) -> None:
        """Keep one change's answers.

        Raises:
            RunError: the folder cannot be written.
            BadInputError: what is there is no such file.
        """
        self._write(self._tensors() | {change.model_dump_json(): answers.astype(np.float32)})

    def read(self, metric: Metric) -> ProbedOutputs | None:
        """What is kept; None where the run kept nothing, as earlier versions did.

        Raises:
            BadInputError: what is there is no such file.
        """
        tensors = self._tensors()
        if not tensors:
            return None
        try:
            truth, original, heads = (tensors.pop(name) for name in (TRUTH, ORIGINAL, HEADS))
            changed = {Change.model_validate_json(key): answers for key, answers in tensors.items()}
        except (KeyError, ValidationError) as error:
            raise BadInputError(self._otherwise(error)) from error
        return ProbedOutputs(metric, truth, original, changed, tuple(map(int, heads)))

    def _tensors(self) -> dict[str, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return dict(load(self.path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, SafetensorError) as error:
            raise BadInputError(self._otherwise(error)) from error

    def _otherwise(self, error: Exception) -> str:
        return f"{self.path} holds no answers ({error}); delete it, and policies go by accuracies alone"

    def _write(self, tensors: Mapping[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        write_whole(self.path, save({key: np.ascontiguousarray(value) for key, value in tensors.items()}))
