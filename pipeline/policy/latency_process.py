"""Latency of plans as a Gaussian process over the work that they leave, with a prior learned over tasks.

Of work f [layers, forms] and sizes s [layers, measures] (`pipeline.policy.layer_work`), F = sᵀf is what is
left of each form by each measure, 1 each for the original. With r latency over plain INT8's:

    prior mean   r = 1 + Σ_mk W_mk (F_mk − 1)
    kernel       Σ_mk V_mk² ΔF_mk ΔF'_mk                    what kind of work counts on this target
               + Σ_l a_l² (b² Δf_l·Δf'_l + d² (π·Δf_l)(π·Δf'_l))   which layers cost more than their share
               + c²                                         what plain INT8's own measurement got wrong
               + h² exp(−|f − f'| / ℓ)                      all the rest

where W is the softmax of numbers for measures, forms and what never goes, Δ the difference from the original,
a_l the layer's expected share to a learned power, and π the forms' shares of W. Measurements err by a learned
share of r. Two layers that are both halved multiply, unlike in sums of single savings, and a few measurements
tell whether work or the number of layers is what a target takes time for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.policy.layer_work import FORMS, MEASURES, LayerWork, Vector
from pipeline.policy.process import Numbers, Posterior, decaying, distances, surprise
from pipeline.tables.codec import Options

# The noise of very fast and very slow plans is that of these ratios.
LEAST_RATIO, MOST_RATIO = 0.15, 1.5
# However much was learned, no plan is expected to take less of plain INT8's latency.
FLOOR = 0.03
LEAST_SHARE = 1e-3


def first_numbers() -> Numbers:
    """Where training starts: MACs and the number of layers count."""
    weights = torch.full((len(MEASURES), len(FORMS)), -1.0, dtype=torch.float64)
    weights[0, 3] = weights[4, 0] = 1.0
    single = {
        "rest": -1.0,
        "forms": -1.5,
        "layers": -1.5,
        "power": 0.0,
        "common": -3.0,
        "else": -3.2,
        "reach": -1.0,
        "noise": -3.8,
    }
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in single.items()}
    return {"weights": weights, "kinds": torch.full_like(weights, -1.0), **numbers}


def latency_surprise(numbers: Numbers, sizes: Tensor, work: Tensor, ratio: Tensor) -> Tensor:
    """How unlikely measured ratios r [n] of plans of one task are; `work` float64 [n, layers, forms]."""
    prior = _Prior(numbers, sizes)
    return surprise(prior.kernel(work, work), prior.noise(ratio), ratio - prior.mean(work))


@dataclass(frozen=True)
class LatencyBelief:
    """What is expected of a target's next trials after some measurements.

    Args:
        numbers: the learned prior's.
        seen: work of the measured plans, [n, layers, forms].
        late: [n], 1 for trials, 0 for what was measured before them.
    """

    work: LayerWork
    numbers: Numbers
    seen: Tensor
    late: Tensor
    posterior: Posterior

    @classmethod
    def of(cls, work: LayerWork, numbers: Numbers, probed: Measured, tried: Measured) -> LatencyBelief:
        """After probes and trials. Plain INT8 itself is what they are held against, and no measurement more.

        Trials come later than probes, and a machine is not always as fast: they share an error of their own,
        as uncertain as what plain INT8's measurement got wrong.
        """
        prior = _Prior(numbers, torch.from_numpy(work.sizes))
        rows = np.concatenate([probed.rows, tried.rows])
        seen = torch.from_numpy(work.left(rows))
        ratio = torch.tensor([*probed.ratios, *tried.ratios], dtype=torch.float64)
        late = (torch.arange(len(rows)) >= len(probed.rows)).double()
        kernel = prior.kernel(seen, seen) + prior.drift * torch.outer(late, late)
        groups = torch.tensor([*probed.groups, *tried.groups], dtype=torch.int64)
        residual = ratio - prior.mean(seen)
        posterior = Posterior.wary(kernel, prior.noise(ratio), residual, groups)
        return cls(work, numbers, seen, late, posterior)

    def ratio(self, rows: Options) -> tuple[Vector, Vector]:
        """Expected latency of plans [n, positions] over plain INT8's, and its deviation; float64 [n] each."""
        prior = _Prior(self.numbers, torch.from_numpy(self.work.sizes))
        asked = torch.from_numpy(self.work.left(rows))
        across = prior.kernel(asked, self.seen) + prior.drift * self.late
        expected = prior.mean(asked) + self.posterior.shift(across)
        variance = prior.variance(asked) + prior.drift - self.posterior.explained(across)
        return expected.clamp_min(FLOOR).numpy(), np.sqrt(variance.clamp_min(0.0).numpy())


class Measured(NamedTuple):
    """Plans [n, positions] and their latency over plain INT8's [n].

    `groups` [n], equal for plans that were measured one after another: they would be wrong together.
    """

    rows: Options
    ratios: Sequence[float]
    groups: Sequence[int]


@dataclass(frozen=True)
class _Prior:
    """The module's formulas; `sizes` float64 [layers, measures]."""

    numbers: Numbers
    sizes: Tensor

    @property
    def weights(self) -> Tensor:
        """W, [measures, forms]."""
        raw = torch.cat([self.numbers["weights"].flatten(), self.numbers["rest"][None]])
        return torch.softmax(raw, 0)[:-1].view(len(MEASURES), len(FORMS))

    def mean(self, work: Tensor) -> Tensor:
        return 1.0 + (self._gone(work) * self.weights).sum((1, 2))

    def kernel(self, some: Tensor, others: Tensor) -> Tensor:
        linear = self._directions(some) @ self._directions(others).T
        size = (some.shape[1] * some.shape[2]) ** 0.5
        flat = some.flatten(1) / size, others.flatten(1) / size
        rest = torch.exp(2 * self.numbers["else"]) * decaying(distances(*flat), self.numbers["reach"])
        return linear + rest + torch.exp(2 * self.numbers["common"])

    @property
    def drift(self) -> Tensor:
        """The variance of what all trials share."""
        return torch.exp(2 * self.numbers["common"])

    def variance(self, work: Tensor) -> Tensor:
        always = torch.exp(2 * self.numbers["else"]) + torch.exp(2 * self.numbers["common"])
        return (self._directions(work) ** 2).sum(1) + always

    def noise(self, ratio: Tensor) -> Tensor:
        return torch.exp(2 * self.numbers["noise"]) * ratio.clamp(LEAST_RATIO, MOST_RATIO) ** 2

    def _gone(self, work: Tensor) -> Tensor:
        return torch.einsum("nlf,lm->nmf", work, self.sizes) - 1.0

    def _directions(self, work: Tensor) -> Tensor:
        """Features whose inner products are the kernel's linear part, [n, features]."""
        shares = (self.sizes @ self.weights.sum(1) + LEAST_SHARE) ** torch.sigmoid(self.numbers["power"])
        forms = self.weights.sum(0) / self.weights.sum()
        away = work - 1.0
        kinds = (self._gone(work) * torch.exp(self.numbers["kinds"])).flatten(1)
        each = torch.exp(self.numbers["forms"]) * (away * shares[:, None]).flatten(1)
        whole = torch.exp(self.numbers["layers"]) * (away @ forms) * shares
        return torch.cat([kinds, each, whole], dim=1)
