"""Made-up users: tasks for meta-learning from the run's own training data.

Each user sees the training samples in a way of their own, the same for all of that user's samples: pictures
are turned, scaled and moved, features of sound are moved, and everything has its gain and offset, pictures
now and then inverted. To adapt to one is what a real user's few samples will ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pipeline.data.base import Dataset
from pipeline.learning.inner import TaskBatch

TURN = pi / 4
ZOOM = (0.8, 1.25)
MOVE = 0.2  # of half the picture
GAIN = (0.5, 1.5)
OFFSET = 0.2  # of the range of values
INVERTED = 0.25  # share of the users
QUERIES_PER_CLASS = 5


@dataclass(frozen=True)
class MadeUpUsers:
    """Draws users with `shots` support samples of every class; user n of one seed is always the same."""

    dataset: Dataset
    shots: int
    seed: int

    def draw(self, number: int) -> TaskBatch:
        """User `number`: support and query as (inputs float32 [n, ...], classes int64 [n])."""
        rng = np.random.default_rng((self.seed, number))
        train = self.dataset.train
        wanted = self.shots + QUERIES_PER_CLASS
        picked = []
        for label in np.unique(train.y):
            members = np.flatnonzero(train.y == label)
            picked.append(rng.choice(members, wanted, replace=len(members) < wanted))
        indices = np.stack(picked)
        seen = self._through_their_eyes(train.x[indices.reshape(-1)].astype(np.float32), rng)
        inputs = torch.from_numpy(self.dataset.preprocessing.apply(seen))
        inputs = inputs.reshape(*indices.shape, *self.dataset.input_shape)
        truth = torch.from_numpy(train.y[indices].astype(np.int64))
        return TaskBatch(
            (inputs[:, : self.shots].flatten(0, 1), truth[:, : self.shots].flatten()),
            (inputs[:, self.shots :].flatten(0, 1), truth[:, self.shots :].flatten()),
        )

    def _through_their_eyes(self, raw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pictures = raw.ndim == 4 and self.dataset.augmentation != "shift"
        if raw.ndim == 4:
            raw = _placed(torch.from_numpy(raw), rng, turned=pictures).numpy()
        low, high = float(self.dataset.train.x.min()), float(self.dataset.train.x.max())
        middle = 0.5 * (low + high)
        gain = rng.uniform(*GAIN) * (-1.0 if pictures and rng.random() < INVERTED else 1.0)
        offset = rng.uniform(-OFFSET, OFFSET) * (high - low)
        changed: np.ndarray = np.clip(middle + gain * (raw - middle) + offset, low, high)
        return changed.astype(np.float32)


def _placed(raw: Tensor, rng: np.random.Generator, *, turned: bool) -> Tensor:
    """All samples [n, c, h, w] by one affine map; what comes in from outside is 0."""
    angle, zoom = (rng.uniform(-TURN, TURN), rng.uniform(*ZOOM)) if turned else (0.0, 1.0)
    right, down = rng.uniform(-MOVE, MOVE, 2)
    matrix = torch.tensor(
        [[cos(angle) / zoom, -sin(angle) / zoom, right], [sin(angle) / zoom, cos(angle) / zoom, down]],
        dtype=torch.float32,
    )
    grid = affine_grid(matrix.expand(len(raw), 2, 3), list(raw.shape), align_corners=False)
    return grid_sample(raw, grid, align_corners=False)
