from __future__ import annotations

import numpy as np
import pytest

from pipeline.policy.residual_kernel import Errors, ResidualKernel

# Amplitude 0.4, both lengths 1, nearly no noise and no common error.
KERNEL = ResidualKernel(tuple(np.log([0.4, 1.0, 1.0, 1e-3, 1e-3])))


def _errors(count: int) -> Errors:
    rng = np.random.default_rng(0)
    damages, leaving = rng.uniform(0, 3, (2, count, 4))
    return Errors(damages, leaving, rng.normal(0, 0.3, count), np.zeros(count))


def test_interpolates_the_errors_it_has_seen() -> None:
    seen = _errors(6)
    mean, deviation = KERNEL.posterior(seen, seen.damages, seen.leaving)
    np.testing.assert_allclose(mean, seen.error, atol=1e-3)
    assert deviation.max() < 0.01


def test_far_away_it_knows_nothing() -> None:
    seen = _errors(6)
    mean, deviation = KERNEL.posterior(seen, seen.damages + 100, seen.leaving + 100)
    np.testing.assert_allclose(mean, 0.0, atol=1e-4)
    np.testing.assert_allclose(deviation, KERNEL.amplitude, rtol=1e-4)


def test_without_trials_it_is_its_amplitude() -> None:
    mean, deviation = KERNEL.posterior(_errors(0), np.zeros((2, 4)), np.zeros((2, 4)))
    assert mean.tolist() == [0.0, 0.0]
    assert deviation == pytest.approx([KERNEL.amplitude] * 2)


def test_fit_finds_larger_errors_larger() -> None:
    one = _errors(20)
    more = Errors(one.damages, one.leaving, 5 * one.error, one.noise)
    assert ResidualKernel.fit([more]).amplitude > ResidualKernel.fit([one]).amplitude
