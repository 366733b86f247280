"""Augmented views of training samples, from a small fixed set so that a teacher's answers can be kept.

View v gives every sample one crop and flip, fixed by (seed, v). Epoch e trains on view e mod VIEWS: the
student sees VIEWS versions of each sample, and the teacher, asked for the very same crop, answers each only
once whatever the number of epochs and plans. (That teacher and student must see the same crop: Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent", CVPR 2022.)
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.data.base import Dataset

VIEWS = 12
PAD = 4


class Views:
    """The training samples of a data set, ready to be cut into batches of one view.

    Args:
        dataset: its `augmentation` says what a view may do.
        seed: fixes all views.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        raw = dataset.train.x
        self._image = raw.ndim == 4
        # Only pictures can be cropped and flipped.
        self._augmentation = dataset.augmentation if self._image else "none"
        self.count = VIEWS if self._augmentation != "none" else 1
        self._seed = seed
        self._preprocessing = dataset.preprocessing
        self._shape = raw.shape[1:]
        if self._image:
            # Channels last, padded once: a crop is then a plain gather, in the layout that convolutions want.
            pad = PAD if self._augmentation != "none" else 0
            raw = np.pad(raw.transpose(0, 2, 3, 1), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        # Writeable, which torch asks of what it shares; data that is already so is not copied.
        self._raw = torch.from_numpy(np.require(raw, requirements=["C", "W"]))
        self._offsets: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self._raw)

    def batch(self, view: int, indices: torch.Tensor) -> torch.Tensor:
        """Preprocessed inputs of the samples at `indices` [n] in that view, float32 [n, ...]."""
        if self._augmentation == "none":
            inputs = self._raw[indices]
        else:
            height, width = self._shape[1:]
            down, right, flip = (values[indices] for values in self._view(view))
            rows = down[:, None] + torch.arange(height)
            steps = torch.arange(width).expand(len(indices), width)
            columns = right[:, None] + torch.where(flip[:, None], width - 1 - steps, steps)
            inputs = self._raw[indices[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self._normalised(inputs)

    def _view(self, view: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if view not in self._offsets:
            rng = np.random.default_rng((self._seed, view))
            size = len(self._raw)
            down, right = rng.integers(0, 2 * PAD + 1, (2, size))
            flip = rng.random(size) < 0.5 if self._augmentation == "crop-flip" else np.zeros(size, bool)
            self._offsets[view] = (torch.from_numpy(down), torch.from_numpy(right), torch.from_numpy(flip))
        return self._offsets[view]

    def _normalised(self, inputs: torch.Tensor) -> torch.Tensor:
        form = self._preprocessing
        mean, std = torch.tensor(form.mean), torch.tensor(form.std)
        if self._image:
            scaled = (inputs.float() * form.scale - mean) / std
            return scaled.permute(0, 3, 1, 2)
        return torch.from_numpy(form.apply(inputs.numpy()))
