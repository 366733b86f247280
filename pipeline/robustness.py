"""What a model is worth on samples that were tampered with: by an attacker who knows it, or by the world.

- FGSM: x + ε · sign(∂L/∂x) (Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial
  Examples", 2015).
- PGD: steps of α · sign(∂L/∂x) from a random start, each put back into the ε-ball (Madry et al., "Towards
  Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018), α = 2.5 ε / steps.
- Corruptions at five severities (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
  Corruptions and Perturbations", ICLR 2019).

ε and severities are in the data's own scale, from 0 at its smallest value to 1 at its largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from pipeline.data.base import Metric, Preprocessing, Split
from pipeline.methods.distillation import task_loss

EPSILONS = (1 / 255, 2 / 255, 8 / 255)
PGD_STEPS = 10
SEVERITIES = (1, 3, 5)
BATCH = 250
# Smaller ones have no detail to lose.
LEAST_SIDE = 8
Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Scale:
    """Where a data set's values lie."""

    low: float
    high: float

    @classmethod
    def of(cls, raw: np.ndarray, preprocessing: Preprocessing) -> Scale:
        """What preprocessing scales to 0 and 1, if values lie there; else the smallest and the largest."""
        low, high = float(raw.min()), float(raw.max())
        if low >= 0.0 and 0.0 < high * preprocessing.scale <= 1.0 and preprocessing.scale != 1.0:
            return cls(0.0, 1.0 / preprocessing.scale)
        return cls(low, high if high > low else low + 1.0)

    def to_unit(self, raw: np.ndarray) -> np.ndarray:
        """float32 from 0 to 1."""
        unit: np.ndarray = ((raw.astype(np.float32) - self.low) / (self.high - self.low)).astype(np.float32)
        return unit

    def to_raw(self, unit: np.ndarray) -> np.ndarray:
        """float32 in the data's own values, nothing outside them."""
        raw: np.ndarray = (np.clip(unit, 0.0, 1.0) * (self.high - self.low) + self.low).astype(np.float32)
        return raw


@dataclass(frozen=True)
class Attacker:
    """Changes samples so that a module errs, by no more than ε.

    Args:
        module: differentiable, in evaluation mode.
        scale: of the raw data.
        seed: of PGD's starting points.
        heads: classes of each of several tasks that the module answers.
    """

    module: nn.Module
    preprocessing: Preprocessing
    scale: Scale
    seed: int = 0
    heads: tuple[int, ...] = ()

    def fgsm(self, split: Split, epsilon: float) -> Split:
        """One step of ε."""
        return self._attacked(split, epsilon, steps=1, size=epsilon, starts_random=False)

    def pgd(self, split: Split, epsilon: float, steps: int = PGD_STEPS) -> Split:
        """Many steps from a random start within ε."""
        return self._attacked(split, epsilon, steps, 2.5 * epsilon / steps, starts_random=True)

    def _attacked(
        self, split: Split, epsilon: float, steps: int, size: float, *, starts_random: bool
    ) -> Split:
        generator = torch.Generator().manual_seed(self.seed)
        parts = []
        for start in range(0, len(split), BATCH):
            clean = torch.from_numpy(self.scale.to_unit(split.x[start : start + BATCH]))
            truth = torch.from_numpy(split.y[start : start + BATCH]).long()
            moved = clean
            if starts_random:
                noise = torch.rand(clean.shape, generator=generator) * 2 - 1
                moved = (clean + epsilon * noise).clamp(0.0, 1.0)
            for _ in range(steps):
                slope = self._slope(moved, truth)
                moved = torch.clamp(moved + size * slope.sign(), clean - epsilon, clean + epsilon).clamp(
                    0.0, 1.0
                )
            parts.append(self.scale.to_raw(moved.numpy()))
        return Split(np.concatenate(parts), split.y)

    def _slope(self, unit: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        x = unit.detach().requires_grad_(True)
        form = self.preprocessing
        shape = (1, -1, *([1] * (x.ndim - 2)))
        raw = x * (self.scale.high - self.scale.low) + self.scale.low
        inputs = (raw * form.scale - torch.tensor(form.mean).reshape(shape)) / torch.tensor(form.std).reshape(
            shape
        )
        loss = task_loss(self.module(inputs), truth, Metric.ACCURACY, self.heads)
        (slope,) = torch.autograd.grad(loss, x)
        return slope


def corruptions_for(raw: np.ndarray) -> Mapping[str, Corruption]:
    """The corruptions that make sense for such samples: pictures [n, c, h, w], or anything else."""
    pictures = raw.ndim == 4 and min(raw.shape[2:]) >= LEAST_SIDE
    return PICTURE_CORRUPTIONS if pictures else SIGNAL_CORRUPTIONS


def corrupted(split: Split, kind: str, severity: int, scale: Scale, seed: int = 0) -> Split:
    """The split under one corruption at a severity from 1 to 5."""
    change = corruptions_for(split.x)[kind]
    rng = np.random.default_rng((seed, severity))
    return Split(scale.to_raw(change(scale.to_unit(split.x), severity, rng)), split.y)


def _gaussian_noise(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return unit + rng.normal(scale=(0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1], size=unit.shape)


def _shot_noise(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return rng.poisson(unit * photons) / photons


def _impulse_noise(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    drawn = rng.random(unit.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn > 1 - share / 2, 1.0, unit))


def _blur(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    return np.asarray(gaussian_filter(unit, (0, 0, sigma, sigma)))


def _brightness(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return unit + (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]


def _contrast(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean = unit.mean(axis=(2, 3), keepdims=True)
    made: np.ndarray = (unit - mean) * factor + mean
    return made


def _pixelate(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    height, width = unit.shape[2:]
    rows, columns = (
        (np.floor(np.floor(np.arange(size) * share) / share)).astype(np.int64) for size in (height, width)
    )
    made: np.ndarray = unit[:, :, rows][:, :, :, columns]
    return made


def _shift(unit: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Rolled along the last axis by up to a fifth of it."""
    most = max(1, severity * unit.shape[-1] // 25)
    places = (np.arange(unit.shape[-1]) - rng.integers(1, most + 1, len(unit))[:, None]) % unit.shape[-1]
    found: np.ndarray = np.take_along_axis(
        unit, places.reshape(len(unit), *[1] * (unit.ndim - 2), -1), axis=-1
    )
    return found


PICTURE_CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
}
SIGNAL_CORRUPTIONS: Mapping[str, Corruption] = {"gaussian noise": _gaussian_noise, "shift": _shift}
