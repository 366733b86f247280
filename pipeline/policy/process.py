"""Gaussian processes whose priors are learned over tasks: what both of the shipped policy's have in common.

With prior mean m, kernel k, noise variances σ² and outcomes y at rows X, a plan x has

    mean(x) = m(x) + k(x, X) A⁻¹ (y − m(X)),   variance(x) = k(x, x) − k(x, X) A⁻¹ k(X, x)
    A = k(X, X) + diag σ²

(Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25 and 2.26). The
numbers in m, k and σ² are those that make the outcomes of all training tasks together most likely (equation
2.30), and serve every new task as they are (Patacchiola et al., "Bayesian meta-learning through deep kernel
transfer", NeurIPS 2020). All tensors are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A prior's numbers by name.
Numbers = dict[str, Tensor]
JITTER = 1e-8
# Degrees of freedom of errors, and rounds in which they are found.
DEGREES, WARY_ROUNDS = 4.0, 4


@dataclass(frozen=True)
class Posterior:
    """What outcomes have taught: `factor` [n, n] is the Cholesky factor of A, `weights` [n] A⁻¹ (y − m)."""

    factor: Tensor
    weights: Tensor

    @classmethod
    def of(cls, kernel: Tensor, noise: Tensor, residual: Tensor) -> Posterior:
        """After outcomes: kernel [n, n], noise variances [n] and y − m [n]; n may be 0."""
        factor = torch.linalg.cholesky(kernel + torch.diag(noise + JITTER))
        weights = torch.cholesky_solve(residual[:, None], factor)[:, 0]
        return cls(factor, weights)

    @classmethod
    def wary(cls, kernel: Tensor, noise: Tensor, residual: Tensor, groups: Tensor) -> Posterior:
        """As `of`, with errors that follow Student's t: outcomes that all others speak against count less.

        Each round sets the variance of an outcome to (ν σ² + max(0, e² − s²)) / (ν + 1), with e and s² the
        error and the variance of its prediction from the outcomes of other groups (leave-group-out; Rasmussen
        and Williams, 2006, section 5.4.2, for its closed form; Lange et al., "Robust statistical modeling
        using the t distribution", JASA 1989, for the weights).

        Args:
            groups: [n], equal for outcomes that would be wrong together.
        """
        if not len(residual):
            return cls.of(kernel, noise, residual)
        wary = noise.clone()
        for _ in range(WARY_ROUNDS):
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel + torch.diag(wary + JITTER)))
            excess = torch.zeros_like(noise)
            for group in torch.unique(groups):
                own = torch.nonzero(groups == group)[:, 0]
                covariance = torch.linalg.inv(inverse[own][:, own])
                error = covariance @ (inverse[own] @ residual)
                excess[own] = (error**2 - (torch.diag(covariance) - wary[own])).clamp_min(0.0)
            wary = torch.maximum(noise, (DEGREES * noise + excess) / (DEGREES + 1.0))
        return cls.of(kernel, wary, residual)

    def shift(self, across: Tensor) -> Tensor:
        """What to add to the prior mean, [m], from the kernel [m, n] between plans and what was seen."""
        return across @ self.weights

    def explained(self, across: Tensor) -> Tensor:
        """The variance that is no longer in doubt, [m]."""
        return (across * torch.cholesky_solve(across.T, self.factor).T).sum(dim=1)


def surprise(kernel: Tensor, noise: Tensor, residual: Tensor) -> Tensor:
    """Negative logarithm of the marginal likelihood over the number of outcomes, without its constant."""
    factor = torch.linalg.cholesky(kernel + torch.diag(noise + JITTER))
    whitened = torch.linalg.solve_triangular(factor, residual[:, None], upper=False)
    return (0.5 * (whitened**2).sum() + torch.log(torch.diag(factor)).sum()) / len(residual)


def decaying(distance: Tensor, log_scale: Tensor) -> Tensor:
    """exp(−distance / scale), the exponential kernel."""
    return torch.exp(-distance / torch.exp(log_scale))


def distances(some: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances between rows [n, d] and [m, d], with gradients that stay finite at 0."""
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2.0 * some @ others.T
    return torch.sqrt(squares.clamp_min(0.0) + 1e-10)
