from __future__ import annotations

import numpy as np
import pytest

from pipeline.data import load_dataset
from pipeline.data.base import Metric, Preprocessing


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
