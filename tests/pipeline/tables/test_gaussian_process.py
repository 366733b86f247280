from __future__ import annotations

import numpy as np
import pytest

from device_bench.errors import BadInputError
from pipeline.tables.gaussian_process import JITTER, GaussianProcess


def _data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.uniform(size=(40, 3))
    return rows, np.sin(4 * rows[:, 0]) + rows[:, 1] ** 2, rng.uniform(size=(20, 3))


def test_predicts_what_scikit_learn_predicts_with_the_same_numbers() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    rows, values, unseen = _data()
    ours = GaussianProcess.fit(rows, values, [slice(0, 3)])
    amplitude, scale, _, noise = np.exp(ours.logs)
    kernel = ConstantKernel(amplitude**2) * Matern(length_scale=scale, nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=noise**2 + JITTER, optimizer=None)
    theirs.fit(rows, (values - values.mean()) / values.std())
    expected = values.mean() + values.std() * theirs.predict(unseen)
    np.testing.assert_allclose(ours.predict(unseen), expected, rtol=0, atol=1e-5)


def test_learns_a_smooth_function() -> None:
    rows, values, unseen = _data()
    truth = np.sin(4 * unseen[:, 0]) + unseen[:, 1] ** 2
    error = GaussianProcess.fit(rows, values, [slice(0, 2)]).predict(unseen) - truth
    assert np.sqrt((error**2).mean()) < 0.1 * truth.std()


@pytest.mark.parametrize("rows", [7, 0])
def test_too_few_rows_are_refused(rows: int) -> None:
    with pytest.raises(BadInputError, match="at least 8 rows"):
        GaussianProcess.fit(np.ones((rows, 2)), np.ones(rows), [slice(0, 2)])


def test_numbers_that_are_not_finite_are_refused() -> None:
    rows, values, _ = _data()
    values[3] = np.nan
    with pytest.raises(BadInputError, match="finite"):
        GaussianProcess.fit(rows, values, [slice(0, 3)])
