"""The plan-value network: what a whole plan is worth, from features of what it changes.

With a_i the damage of change i alone, A the damage of all of them by `pipeline.policy.effect_table`, R the
logarithm of the latency ratio by the same, φ a network shared by all positions and ρ one on their pooled
embeddings:

    a_i  = exp(φ₀(x_i)) where change i was not probed, else measured
    a'_i = a_i · exp(φ₁(x_i)),   S(a) = (Σ a_i^p)^(1/p)
    T    = B · S(a') / S(a) · exp(ρ₁),   gain = exp(−T)
    B    = A where changes were probed, else A^(1−g) · S(a)^g
    ln r = R + ρ₂

gain: what is left of what the original knows above chance. r: latency over plain INT8's. φ₁ and ρ start at
zero, so an untrained network adds up single effects as the knapsack does, and training starts from there.
Sums over a set of embeddings are those of Zaheer et al., "Deep Sets", NeurIPS 2017. Parameters are a plain
dictionary of tensors, as gradient-based meta-learners want them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import relu

from pipeline.experience import Trial
from pipeline.policy.plan_features import NAMES, PlanFeatures
from pipeline.tables.codec import Options

HIDDEN, EMBEDDED, POOLED = 32, 12, 16
HEADS = 2
# Corrections stay within the factors exp(±REACH), those of latency within exp(±LATENCY_REACH).
REACH, LATENCY_REACH = 0.25, 0.1
LEAST_DAMAGE = 1e-3
# Errors that weigh 1: of the gain, and of the logarithm of the latency ratio.
GAIN_SCALE, LATENCY_SCALE = 0.05, 0.1
HEAD_NAMES = ("pool1.weight", "pool1.bias", "pool2.weight", "pool2.bias", "exponent", "gate")

Parameters = dict[str, Tensor]


class PlanBatch(NamedTuple):
    """Plans of one task on one target, and what came of them where it is known.

    `x` float32 [n, positions, features]; `active` [n, positions]; `damage` [n, positions], NaN where not
    probed; `summed` and `summed_log_ratio` [n], T and ln r by single effects added up; `gain` and `log_ratio`
    [n], NaN where not known.
    """

    x: Tensor
    active: Tensor
    damage: Tensor
    summed: Tensor
    summed_log_ratio: Tensor
    gain: Tensor
    log_ratio: Tensor

    @property
    def plans(self) -> int:
        """How many there are."""
        return len(self.gain)

    @classmethod
    def of(
        cls,
        features: PlanFeatures,
        rows: Options,
        history: Sequence[Trial] = (),
    ) -> PlanBatch:
        """The batch of `rows` [n, positions], whose outcomes are not known, after the trials of `history`."""
        index = np.asarray(rows, dtype=np.int64)
        places = np.arange(index.shape[1])
        unknown = torch.full((len(index),), torch.nan)
        summed, summed_log_ratio = features.summed(rows, history)
        return cls(
            torch.from_numpy(features.options[places, index]),
            torch.from_numpy(features.active(rows)),
            torch.from_numpy(features.damage[places, index]),
            torch.from_numpy(summed),
            torch.from_numpy(summed_log_ratio),
            unknown,
            unknown,
        )

    def with_outcomes(self, gain: np.ndarray, log_ratio: np.ndarray) -> PlanBatch:
        """The same plans, outcomes [n] known."""
        return self._replace(
            gain=torch.from_numpy(np.asarray(gain, np.float32)),
            log_ratio=torch.from_numpy(np.asarray(log_ratio, np.float32)),
        )

    def after(self, features: PlanFeatures, rows: Options, history: Sequence[Trial]) -> PlanBatch:
        """The same plans, `rows` [n, positions], with sums corrected by the trials of `history`."""
        summed, log_ratio = features.summed(rows, history)
        return self._replace(summed=torch.from_numpy(summed), summed_log_ratio=torch.from_numpy(log_ratio))

    def after_each_other(self, features: PlanFeatures, rows: Options, trials: Sequence[Trial]) -> PlanBatch:
        """The same plans, the sums of each corrected by the trials of all others: `trials[i]` is of row i."""
        sums = [features.summed(rows[i : i + 1], [*trials[:i], *trials[i + 1 :]]) for i in range(len(trials))]
        return self._replace(
            summed=torch.from_numpy(np.concatenate([total for total, _ in sums])),
            summed_log_ratio=torch.from_numpy(np.concatenate([ratio for _, ratio in sums])),
        )

    def take(self, index: Tensor) -> PlanBatch:
        """The plans at `index`."""
        return PlanBatch(*(column[index] for column in self))


def fresh_parameters(seed: int) -> Parameters:
    """Parameters of an untrained network, float32."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs, generator=generator) * (2.0 / inputs) ** 0.5

    return {
        "unit1.weight": drawn(HIDDEN, len(NAMES)),
        "unit1.bias": torch.zeros(HIDDEN),
        "unit2.weight": drawn(HIDDEN, HIDDEN),
        "unit2.bias": torch.zeros(HIDDEN),
        "embedding.weight": drawn(EMBEDDED, HIDDEN),
        "embedding.bias": torch.zeros(EMBEDDED),
        "heads.weight": torch.zeros(HEADS, HIDDEN),
        "heads.bias": torch.tensor([-2.0, 0.0]),
        "pool1.weight": drawn(POOLED, EMBEDDED + 4),
        "pool1.bias": torch.zeros(POOLED),
        "pool2.weight": torch.zeros(2, POOLED),
        "pool2.bias": torch.zeros(2),
        "exponent": torch.tensor(0.0),
        "gate": torch.tensor(1.0),
    }


def predict(parameters: Parameters, batch: PlanBatch) -> tuple[Tensor, Tensor]:
    """T and ln r of each plan, float32 [n] each; gain is exp(−T)."""
    total, log_ratio, _ = predict_parts(parameters, batch)
    return total, log_ratio


def predict_parts(parameters: Parameters, batch: PlanBatch) -> tuple[Tensor, Tensor, Tensor]:
    """T and ln r of each plan [n], and the damage a_i of each of its changes [n, positions], 0 elsewhere."""
    p = parameters
    hidden = relu(batch.x @ p["unit1.weight"].T + p["unit1.bias"])
    hidden = relu(hidden @ p["unit2.weight"].T + p["unit2.bias"])
    heads = hidden @ p["heads.weight"].T + p["heads.bias"]
    embedded = torch.tanh(hidden @ p["embedding.weight"].T + p["embedding.bias"])
    active = batch.active.float()

    probed = torch.isfinite(batch.damage)
    measured = torch.log(torch.nan_to_num(batch.damage) + LEAST_DAMAGE)
    single = torch.where(probed, measured, heads[..., 0])
    log_damage = single + _bounded(heads[..., 1])
    exponent = 0.4 + 0.8 * torch.sigmoid(p["exponent"])
    powers = torch.exp(exponent * log_damage) * active
    whole = powers.sum(1)
    added = (whole + 1e-6) ** (1 / exponent)
    uncorrected = ((torch.exp(exponent * single) * active).sum(1) + 1e-6) ** (1 / exponent)
    # Effects are added up elsewhere; here only what the corrections change of it. Where none was probed, the
    # sum is of guesses, and the network's own guess has a say.
    told = (probed & batch.active).any(1)
    guessed = torch.lerp(
        torch.log(batch.summed + LEAST_DAMAGE), torch.log(uncorrected), torch.sigmoid(p["gate"])
    )
    start = torch.where(told, batch.summed + LEAST_DAMAGE, torch.exp(guessed))

    weights = powers / (whole[:, None] + 1e-6)
    pooled = torch.cat(
        [
            (embedded * weights[..., None]).sum(1),
            torch.stack(
                [
                    active.mean(1),
                    torch.log(start + LEAST_DAMAGE) / 4,
                    batch.summed_log_ratio,
                    (weights**2).sum(1),
                ],
                dim=1,
            ),
        ],
        dim=1,
    )
    corrections = relu(pooled @ p["pool1.weight"].T + p["pool1.bias"]) @ p["pool2.weight"].T + p["pool2.bias"]
    total = start * (added / uncorrected) * torch.exp(_bounded(corrections[:, 0]))
    some = batch.active.any(1).float()
    log_ratio = batch.summed_log_ratio + LATENCY_REACH * torch.tanh(corrections[:, 1]) * some
    return total * some, log_ratio, torch.exp(log_damage) * active


def trusted(parameters: Parameters, batch: PlanBatch, trust: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `predict_parts`; where changes were probed, only the share `trust` of ln T and ln r is its own."""
    total, log_ratio, damage = predict_parts(parameters, batch)
    told = (torch.isfinite(batch.damage) & batch.active).any(1)
    share = torch.where(told, torch.tensor(trust), torch.tensor(1.0))
    log_total = torch.lerp(torch.log(batch.summed + LEAST_DAMAGE), torch.log(total + LEAST_DAMAGE), share)
    return torch.exp(log_total), torch.lerp(batch.summed_log_ratio, log_ratio, share), damage


def value_loss(parameters: Parameters, batch: PlanBatch) -> Tensor:
    """Mean robust error of gain and ln r, each in units of its scale; what is not known does not count."""
    total, log_ratio = predict(parameters, batch)
    gain_error = (torch.exp(-total) - batch.gain) / GAIN_SCALE
    ratio_error = (log_ratio - batch.log_ratio) / LATENCY_SCALE
    return 0.5 * (_known_mean(gain_error) + _known_mean(ratio_error))


def _known_mean(errors: Tensor) -> Tensor:
    """Mean of robust squares (Charbonnier: √(1 + e²) − 1) over finite errors."""
    known = torch.isfinite(errors)
    squares = torch.sqrt(1 + torch.where(known, errors, torch.zeros_like(errors)) ** 2) - 1
    return (squares * known).sum() / known.sum().clamp_min(1)


def _bounded(raw: Tensor) -> Tensor:
    return REACH * torch.tanh(raw / REACH)
