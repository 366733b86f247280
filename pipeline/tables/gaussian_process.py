"""Gaussian process regression with one Matérn kernel for each block of features.

    k(x, x') = Σ_b a_b² m(|x_b − x'_b| / l_b) + c² x_L·x'_L,   m(r) = (1 + √5 r + 5r²/3) exp(−√5 r)

with amplitudes a, length scales l and noise found by maximum marginal likelihood (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", 2006, equations 2.30 and 4.17). scikit-learn's kernels act on all
features alike; here blocks of features that mean different things have their own scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError

Vector = NDArray[np.float64]

ITERATIONS = 40
FEWEST_ROWS = 8
JITTER = 1e-5
# Logarithms of amplitudes and scales stay near where they start: a weak prior that keeps few rows stable.
PRIOR_WEIGHT = 0.02
FIRST_AMPLITUDE, FIRST_LINEAR, FIRST_NOISE = 0.7, 0.3, 0.2


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; made by `fit`.

    Args:
        blocks: columns of each kernel.
        linear: columns of the linear kernel; empty for none.
        rows: what it learned from, float64 [n, features].
        logs: logarithms of (amplitude, length scale) for each block, of the linear amplitude and the noise.
        weights: float64 [n].
    """

    blocks: tuple[slice, ...]
    linear: slice
    rows: Vector
    logs: Vector
    weights: Vector
    mean: float
    scale: float

    @classmethod
    def fit(
        cls, rows: Vector, values: Vector, blocks: Sequence[slice], linear: slice = slice(0)
    ) -> GaussianProcess:
        """The process that makes `values` [n] at `rows` [n, features] most likely.

        Raises:
            BadInputError: too few rows, or numbers that are not finite.
        """
        from scipy.linalg import cho_factor, cho_solve
        from scipy.optimize import minimize

        if len(rows) < FEWEST_ROWS or not (np.isfinite(rows).all() and np.isfinite(values).all()):
            raise BadInputError(
                f"a surrogate needs at least {FEWEST_ROWS} rows of finite numbers; got {len(rows)} rows: "
                "record more plans"
            )
        mean, scale = float(values.mean()), float(values.std()) + 1e-9
        wanted = (values - mean) / scale
        distances = _distances(rows, rows, blocks)
        products = rows[:, linear] @ rows[:, linear].T
        first = _first_guess(distances)

        def factor(logs: Vector) -> tuple[Vector, bool]:
            matrix = _kernel(distances, products, logs)
            matrix[np.diag_indices_from(matrix)] += np.exp(2 * logs[-1]) + JITTER
            found: tuple[Vector, bool] = cho_factor(matrix, lower=True)
            return found

        def surprise(logs: Vector) -> float:
            if np.abs(logs).max() > 8:
                return 1e6
            try:
                cholesky = factor(logs)
            except np.linalg.LinAlgError:
                return 1e6
            fit = 0.5 * wanted @ cho_solve(cholesky, wanted) + np.log(np.diag(cholesky[0])).sum()
            return float(fit + PRIOR_WEIGHT * ((logs - first) ** 2).sum())

        logs: Vector = minimize(surprise, first, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
        weights: Vector = cho_solve(factor(logs), wanted)
        return cls(tuple(blocks), linear, rows, logs, weights, mean, scale)

    def predict(self, rows: Vector) -> Vector:
        """Expected values at `rows` [m, features], float64 [m]."""
        products = rows[:, self.linear] @ self.rows[:, self.linear].T
        kernel = _kernel(_distances(rows, self.rows, self.blocks), products, self.logs)
        found: Vector = self.mean + self.scale * (kernel @ self.weights)
        return found


def _distances(some: Vector, others: Vector, blocks: Sequence[slice]) -> list[Vector]:
    found = []
    for block in blocks:
        one, other = some[:, block], others[:, block]
        squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2.0 * one @ other.T
        found.append(np.sqrt(np.maximum(squares, 0.0)))
    return found


def _first_guess(distances: Sequence[Vector]) -> Vector:
    logs: list[float] = []
    for between in distances:
        logs += [float(np.log(FIRST_AMPLITUDE)), float(np.log(np.median(between) + 1e-3))]
    return np.array([*logs, np.log(FIRST_LINEAR), np.log(FIRST_NOISE)])


def _kernel(distances: Sequence[Vector], products: Vector, logs: Vector) -> Vector:
    total: Vector = np.exp(2 * logs[-2]) * products
    for number, between in enumerate(distances):
        radius = np.sqrt(5.0) * between / np.exp(logs[2 * number + 1])
        total = total + np.exp(2 * logs[2 * number]) * (1 + radius + radius**2 / 3) * np.exp(-radius)
    return total
