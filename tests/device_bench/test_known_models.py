"""Known models are small, answer right here, and a bench that answers wrong is found out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from device_bench.bench import LocalBench
from device_bench.known_models import ANSWERS, INPUTS, KNOWN_MODELS, KnownModel, check_known
from device_bench.protocol import BenchRequest, Failure, FailureKind

by_file = pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.file)


class Wrong(LocalBench):
    """A bench whose outputs are not what the file computes."""

    def __init__(self, outputs: NDArray[np.float32] | Failure) -> None:
        self.outputs = outputs

    def predict(self, request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
        """The same for everything."""
        return self.outputs


@by_file
def test_this_machine_answers_right(model: KnownModel) -> None:
    assert check_known(LocalBench(), model) is None


@by_file
def test_files_are_small(model: KnownModel) -> None:
    assert 1000 < model.path.stat().st_size < 10_240


@by_file
def test_wrong_answers_are_found_out(model: KnownModel) -> None:
    with np.load(ANSWERS) as answers:
        right = answers[model.file]
    assert check_known(Wrong(right), model) is None
    one_off = right.copy()
    one_off[3, 4] += 2 * model.tolerance
    for outputs in (one_off, np.zeros_like(right), right * np.float32(np.nan), right[::-1].copy()):
        assert "wrong answers" in (check_known(Wrong(outputs), model) or "")
    assert "shape [16, 9]" in (check_known(Wrong(right[:, :9]), model) or "")
    failure = Failure(kind=FailureKind.CRASHED, message="died of SIGILL")
    assert check_known(Wrong(failure), model) == "crashed: died of SIGILL"


def test_the_int8_files_answer_as_the_float_ones() -> None:
    pictures = np.load(INPUTS)
    assert pictures.shape == (16, 1, 8, 8)
    with np.load(ANSWERS) as answers:
        assert sorted(answers) == sorted(model.file for model in KNOWN_MODELS)
        classes = {file: tuple(answers[file].argmax(1)) for file in answers}
    assert len(set(classes.values())) == 1
    assert len(set(classes["float.onnx"])) >= 8, "answers that differ from picture to picture"
