from __future__ import annotations

import numpy as np
import pytest

from pipeline.data import load_dataset
from pipeline.data.base import Dataset, Metric, Preprocessing, SealedSplit, Split
from pipeline.errors import DataError


@pytest.mark.parametrize(("metric", "drop"), [(Metric.ACCURACY, 2.0), (Metric.R2, 2.0), (Metric.MSE, -2.0)])
def test_a_drop_is_positive_where_things_got_worse(metric: Metric, drop: float) -> None:
    assert metric.drop(5.0, 3.0) == drop


def test_preprocessing_is_per_channel_and_survives_json() -> None:
    form = Preprocessing(scale=0.5, mean=(1.0, 2.0), std=(1.0, 4.0))
    raw = np.full((1, 2, 1, 1), 20, np.uint8)
    restored = Preprocessing.model_validate_json(form.model_dump_json())
    assert restored.apply(raw).reshape(-1).tolist() == [9.0, 2.0]
    assert restored.apply(raw).dtype == np.float32


def test_calibration_is_a_seeded_sample_of_the_training_split() -> None:
    dataset = load_dataset("digits")
    first, again, other = (dataset.calibration(32, seed) for seed in (0, 0, 1))
    assert first.shape == (32, 1, 8, 8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    train = {sample.tobytes() for sample in dataset.preprocessing.apply(dataset.train.x)}
    assert all(sample.tobytes() in train for sample in first)
    assert not dataset.test.opened


def test_calibration_by_samples_that_are_no_numbers_is_an_error() -> None:
    x = np.ones((20, 1, 4, 4), np.float32)
    x[7, 0, 1, 2] = np.nan
    split = Split(x, np.zeros(20, np.int64))
    test = SealedSplit(lambda: split)
    bad = Dataset("mine", Metric.ACCURACY, split, split, test, Preprocessing(), ("a", "b"))
    with pytest.raises(DataError, match="training sample 7 of mine has values that are not finite"):
        bad.calibration()
