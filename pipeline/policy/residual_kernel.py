"""What a task's trials say beyond the plan-value network: a Gaussian process over its errors.

Plans that change the same units err alike. With z(p) the roots of the damages that a plan's changes do alone
and v(p) what leaves of each position,

    k(p, q) = c² + a² exp(−|z(p) − z(q)| / l_z − |v(p) − v(q)| / l_v),     noise n² + (ε / T)² for ln T

where c is what all plans of a task share. a, l_z, l_v, n and c are learned over tasks by maximum marginal
likelihood, and serve every new task as they are (Patacchiola et al., "Bayesian meta-learning through deep
kernel transfer", NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

FIRST = np.log([0.4, 1.0, 2.0, 0.1, 0.3])
# Two measurements of one accuracy differ by about this share of what the original knows.
GAIN_NOISE = 0.01
PRIOR_WEIGHT = 1.0


@dataclass(frozen=True)
class Errors:
    """Errors of the network on some plans of one task.

    `damages` and `leaving` float64 [n, positions]; `error` [n]; `noise` [n], standard deviations known.
    """

    damages: Vector
    leaving: Vector
    error: Vector
    noise: Vector


@dataclass(frozen=True)
class ResidualKernel:
    """The kernel; `logs` are the logarithms of a, l_z, l_v, n and c."""

    logs: tuple[float, ...]

    @property
    def amplitude(self) -> float:
        """Standard deviation of an error where nothing was tried."""
        return float(np.sqrt(_variance(np.asarray(self.logs))))

    def posterior(self, seen: Errors, damages: Vector, leaving: Vector) -> tuple[Vector, Vector]:
        """Expected error and its standard deviation for plans [m, positions], float64 [m] each."""
        if not len(seen.error):
            return np.zeros(len(damages)), np.full(len(damages), self.amplitude)
        from scipy.linalg import cho_factor, cho_solve

        logs = np.asarray(self.logs)
        factor = cho_factor(_matrix(seen, logs), lower=True)
        across = _kernel(damages, leaving, seen.damages, seen.leaving, logs)
        mean: Vector = across @ cho_solve(factor, seen.error)
        explained = (across * cho_solve(factor, across.T).T).sum(1)
        deviation: Vector = np.sqrt(np.maximum(_variance(logs) - explained, 1e-6))
        return mean, deviation

    @classmethod
    def fit(cls, tasks: Sequence[Errors]) -> ResidualKernel:
        """The kernel that makes the errors of all tasks together most likely."""
        from scipy.linalg import cho_factor, cho_solve
        from scipy.optimize import minimize

        def surprise(logs: Vector) -> float:
            if np.abs(logs).max() > 6:
                return 1e9
            total = PRIOR_WEIGHT * float(((logs - FIRST) ** 2).sum())
            for task in tasks:
                factor = cho_factor(_matrix(task, logs), lower=True)
                total += 0.5 * task.error @ cho_solve(factor, task.error)
                total += np.log(np.diag(factor[0])).sum()
            return float(total)

        found = minimize(surprise, FIRST, method="L-BFGS-B", options={"maxiter": 30}).x
        return cls(tuple(float(value) for value in found))


def _variance(logs: Vector) -> float:
    return float(np.exp(2 * logs[0]) + np.exp(2 * logs[4]))


def _matrix(errors: Errors, logs: Vector) -> Vector:
    matrix = _kernel(errors.damages, errors.leaving, errors.damages, errors.leaving, logs)
    matrix[np.diag_indices_from(matrix)] += np.exp(2 * logs[3]) + errors.noise**2 + 1e-6
    return matrix


def _kernel(damages: Vector, leaving: Vector, more: Vector, others: Vector, logs: Vector) -> Vector:
    near = np.exp(-_distance(damages, more) / np.exp(logs[1]) - _distance(leaving, others) / np.exp(logs[2]))
    kernel: Vector = np.exp(2 * logs[4]) + np.exp(2 * logs[0]) * near
    return kernel


def _distance(some: Vector, others: Vector) -> Vector:
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2.0 * some @ others.T
    distance: Vector = np.sqrt(np.maximum(squares, 0.0))
    return distance
