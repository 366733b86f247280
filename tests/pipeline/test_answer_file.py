from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_bench.errors import BadInputError
from pipeline.answer_file import ANSWERS_FILE, AnswerFile
from pipeline.data.base import Metric
from pipeline.policy.base import Change
from pipeline.policy.outputs import ProbedOutputs

BLOCK, UNIT = Change(block="layer1.0"), Change(unit="conv1", keep_ratio=0.5)
TRUTH = np.array([[0, 1], [2, 0], [1, 1]])
ORIGINAL = np.arange(15, dtype=np.float32).reshape(3, 5)


@pytest.fixture
def kept(tmp_path: Path) -> AnswerFile:
    file = AnswerFile(tmp_path / ANSWERS_FILE)
    file.start(ProbedOutputs(Metric.ACCURACY, TRUTH, ORIGINAL, {}, (3, 2)))
    return file


def test_what_was_kept_comes_back(kept: AnswerFile) -> None:
    kept.add(BLOCK, ORIGINAL + 1)
    kept.add(UNIT, ORIGINAL * 2)
    found = AnswerFile(kept.path).read(Metric.ACCURACY)
    assert found is not None
    assert found.heads == (3, 2)
    assert set(found.changed) == {BLOCK, UNIT}
    np.testing.assert_array_equal(found.truth, TRUTH)
    np.testing.assert_array_equal(found.original, ORIGINAL)
    np.testing.assert_array_equal(found.changed[UNIT], ORIGINAL * 2)


def test_a_run_that_kept_nothing_has_none(tmp_path: Path) -> None:
    assert AnswerFile(tmp_path / ANSWERS_FILE).read(Metric.ACCURACY) is None


@pytest.mark.parametrize("content", [b"", b"no tensors at all"])
def test_a_file_that_holds_none_is_said_with_the_way_out(kept: AnswerFile, content: bytes) -> None:
    kept.path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"holds no answers .* delete it"):
        kept.read(Metric.ACCURACY)


def test_tensors_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = tmp_path / ANSWERS_FILE
    path.write_bytes(save({"weight": ORIGINAL}))
    with pytest.raises(BadInputError, match="holds no answers"):
        AnswerFile(path).read(Metric.ACCURACY)
