"""Damage of plans as a Gaussian process over what their changes do alone; its prior is learned over tasks.

With a_i the damage of change i alone (`pipeline.policy.change_damage`), S the changes at one resolution, and
T the plan's damage:

    w_i = a_i^p / Σ a^p,   e = −ln Σ w_i²,   z = (1/q) ln Σ_S (Σ_{i in S} a_i^p)^(q/p)
    prior mean   ln T = z + e (θ₁ + θ₂ Σ_blocks w_i + θ₃ mean of what leaves + θ₄ z) + ψ u (f − z)
    kernel       c₀² u u' + c₁² e e' + c₃² zu z'u' + c₅² u(f − z) u'(f' − z') + Σ_i (c₂² + g_i²) w_i w'_i
               + c₄² exp(−|v − v'|/ℓ − |w − w'|)

with u = tanh e, f the logarithm of the damage that the changes' answers forecast (`pipeline.policy.outputs`;
z where they are not known), g_i the doubt about a guessed a_i and v what leaves of each position. e is the
logarithm of how many changes share the damage: alone a change does what was measured, so only company is
learned about.
The accuracy behind T errs by a learned share of what the original knows, which makes small T uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.policy.change_damage import ChangeDamage, Vector
from pipeline.policy.process import Numbers, Posterior, decaying, distances, surprise
from pipeline.tables.codec import Options

# What is seen to know less, or more, than this teaches as much as this.
LEAST_SEEN_GAIN, MOST_SEEN_GAIN = 0.1, 0.995
TINY = 1e-12
LEAST_TOTAL, MOST_LOG_TOTAL = 1e-6, 3.0
LEAST_VARIANCE = 1e-6
# Numbers of a prior that does not go by answers.
NO_TRUST_IN_ANSWERS = {
    "trust": torch.tensor(0.0, dtype=torch.float64),
    "answers": torch.tensor(-20.0, dtype=torch.float64),
}


def first_numbers() -> Numbers:
    """Where training starts: p = q = 0.9 and no lessons from company."""
    single = {
        "p": 0.0,
        "q": 0.0,
        "common": -1.0,
        "company": -1.0,
        "own": -1.0,
        "slope": -2.0,
        "trust": 0.5,
        "answers": -1.5,
        "else": -1.5,
        "reach": 0.0,
        "noise": -1.5,
        "accuracy": -4.4,
    }
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in single.items()}
    return {"theta": torch.zeros(4, dtype=torch.float64), **numbers}


class DamageInputs(NamedTuple):
    """Plans as the process sees them: `alone`, `active` and `leaving` [n, positions], and their positions'.

    `stages` [positions, stages], `blocks` [positions] 1 for blocks, `doubt` [positions], `together` [n]; all
    float64.
    """

    alone: Tensor
    active: Tensor
    leaving: Tensor
    stages: Tensor
    blocks: Tensor
    doubt: Tensor
    together: Tensor

    @classmethod
    def of(cls, changes: ChangeDamage, rows: Options) -> DamageInputs:
        """The plans of rows [n, positions]."""
        codec = changes.features.codec
        alone, active = changes.alone(rows)
        blocks = np.array([position.is_block for position in codec.positions], np.float64)
        arrays = (
            alone,
            active.astype(np.float64),
            1.0 - codec.keep_of(rows),
            changes.stages,
            blocks,
            changes.doubt,
            changes.together(rows),
        )
        return cls(*(torch.from_numpy(np.ascontiguousarray(one, dtype=np.float64)) for one in arrays))


def damage_surprise(numbers: Numbers, inputs: DamageInputs, gain: Tensor) -> Tensor:
    """How unlikely the gains [n] of plans of one task are."""
    prior = _Prior(numbers)
    seen = prior.view(inputs)
    total = -torch.log(gain.clamp(LEAST_SEEN_GAIN, MOST_SEEN_GAIN))
    return surprise(prior.kernel(seen, seen), prior.noise(total), torch.log(total) - prior.mean(seen))


@dataclass(frozen=True)
class DamageBelief:
    """What is expected of a task's plans after some outcomes; `numbers` are the learned prior's."""

    changes: ChangeDamage
    numbers: Numbers
    seen: _Seen
    posterior: Posterior

    @classmethod
    def of(
        cls, changes: ChangeDamage, numbers: Numbers, rows: Options, gains: Sequence[float] | Vector
    ) -> DamageBelief:
        """After plans [n, positions] whose gains are known; none of them the original. n may be 0."""
        prior = _Prior(numbers)
        seen = prior.view(DamageInputs.of(changes, rows))
        total = -torch.log(torch.tensor(np.clip(gains, LEAST_SEEN_GAIN, MOST_SEEN_GAIN), dtype=torch.float64))
        residual = torch.log(total) - prior.mean(seen)
        return cls(
            changes, numbers, seen, Posterior.of(prior.kernel(seen, seen), prior.noise(total), residual)
        )

    def total(self, rows: Options) -> tuple[Vector, Vector]:
        """Expected T of plans [n, positions], and the standard deviation of ln T; float64 [n] each."""
        prior = _Prior(self.numbers)
        asked = prior.view(DamageInputs.of(self.changes, rows))
        across = prior.kernel(asked, self.seen)
        log_total = (prior.mean(asked) + self.posterior.shift(across)).clamp_max(MOST_LOG_TOTAL)
        variance = (prior.variance(asked) - self.posterior.explained(across)).clamp_min(LEAST_VARIANCE)
        some = (np.asarray(rows) != 0).any(axis=1)
        return np.exp(log_total.numpy()) * some + LEAST_TOTAL, np.sqrt(variance.numpy())


class _Seen(NamedTuple):
    """z, w, e and u of plans, u(f − z), what leaves, the doubt [positions], and what θ weighs [n, 4]."""

    z: Tensor
    w: Tensor
    e: Tensor
    u: Tensor
    forecast: Tensor
    leaving: Tensor
    doubt: Tensor
    company: Tensor


@dataclass(frozen=True)
class _Prior:
    """The module's formulas."""

    numbers: Numbers

    def view(self, inputs: DamageInputs) -> _Seen:
        p = 0.3 + 1.2 * torch.sigmoid(self.numbers["p"])
        q = 0.3 + 1.2 * torch.sigmoid(self.numbers["q"])
        powers = torch.where(inputs.active > 0, (inputs.alone + TINY) ** p, 0.0)
        stages = powers @ inputs.stages
        z = torch.log((torch.where(stages > 0, (stages + TINY) ** (q / p), 0.0)).sum(1) + 1e-9) / q
        w = powers / (powers.sum(1, keepdim=True) + TINY)
        e = torch.where(inputs.active.sum(1) > 0, -torch.log((w**2).sum(1).clamp_min(TINY)), 0.0)
        facts = [torch.ones_like(z), w @ inputs.blocks, inputs.leaving.mean(1), z]
        company = torch.stack(facts, dim=1) * e[:, None]
        u = torch.tanh(e)
        forecast = u * torch.where(torch.isnan(inputs.together), 0.0, torch.nan_to_num(inputs.together) - z)
        return _Seen(z, w, e, u, forecast, inputs.leaving, inputs.doubt, company)

    def mean(self, seen: _Seen) -> Tensor:
        return seen.z + seen.company @ self.numbers["theta"] + self.numbers["trust"] * seen.forecast

    def kernel(self, some: _Seen, others: _Seen) -> Tensor:
        away = decaying(distances(some.leaving, others.leaving), self.numbers["reach"])
        unlike = torch.exp(-distances(some.w, others.w))
        rest = torch.exp(2 * self.numbers["else"]) * away * unlike
        return self._directions(some) @ self._directions(others).T + rest

    def variance(self, seen: _Seen) -> Tensor:
        return (self._directions(seen) ** 2).sum(1) + torch.exp(2 * self.numbers["else"])

    def noise(self, total: Tensor) -> Tensor:
        seen = torch.exp(self.numbers["accuracy"]) / (torch.exp(-total) * total)
        return torch.exp(2 * self.numbers["noise"]) + seen**2

    def _directions(self, seen: _Seen) -> Tensor:
        """Features whose inner products are the kernel's linear part, [n, features]."""
        own = seen.w * torch.sqrt(torch.exp(2 * self.numbers["own"]) + seen.doubt**2)
        parts = [
            torch.exp(self.numbers["common"]) * seen.u,
            torch.exp(self.numbers["company"]) * seen.e,
            torch.exp(self.numbers["slope"]) * seen.z * seen.u,
            torch.exp(self.numbers["answers"]) * seen.forecast,
        ]
        return torch.cat([torch.stack(parts, dim=1), own], dim=1)
