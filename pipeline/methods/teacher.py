"""A teacher that answers each view of a sample once and remembers the answer."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import nn

from device_bench.storage import write_whole

LOG = logging.getLogger(__name__)


class RememberingTeacher:
    """The original model's outputs for augmented views, kept in memory and, view by view, on disk.

    Answers are kept as they were given, in float32: a resumed recovery must learn from the very same ones.

    Args:
        module: the original; never changed.
        samples: how many training samples there are.
        folder: where views are kept as .npy, so that a resumed run need not ask again; of this module,
            these samples and these views alone.
        bf16: run the teacher in bfloat16.
    """

    def __init__(self, module: nn.Module, samples: int, folder: Path | None, *, bf16: bool = False) -> None:
        self._module = module.eval()
        self._samples = samples
        self._folder = folder
        self._bf16 = bf16
        # By view, [samples, k]; NaN where a sample was not asked for yet.
        self._answers: dict[int, np.ndarray] = {}
        self._grown: set[int] = set()

    def answers(self, view: int, indices: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs for the samples at `indices` [n], whose view is `inputs` [n, ...]; float32 [n, k]."""
        known = self._known(view)
        rows = indices.numpy()
        new = np.ones(len(rows), bool) if known is None else np.isnan(known[rows, 0])
        if new.any():
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                outputs = self._module(inputs if new.all() else inputs[torch.from_numpy(new)]).float()
            if known is None:
                known = np.full((self._samples, outputs.shape[1]), np.nan, np.float32)
                self._answers[view] = known
            known[rows[new]] = outputs.numpy()
            self._grown.add(view)
        assert known is not None
        return torch.from_numpy(known[rows])

    def keep(self, view: int) -> None:
        """Write the view to disk if it has new answers; does nothing without a folder.

        Raises:
            RunError: the file cannot be written.
        """
        if self._folder is None or view not in self._grown:
            return
        content = BytesIO()
        np.save(content, self._answers[view], allow_pickle=False)
        write_whole(self._path(self._folder, view), content.getvalue())
        self._grown.discard(view)

    def _known(self, view: int) -> np.ndarray | None:
        if view not in self._answers and self._folder is not None:
            stored = self._read(self._path(self._folder, view))
            if stored is not None:
                self._answers[view] = stored
        return self._answers.get(view)

    def _read(self, path: Path) -> np.ndarray | None:
        """What an earlier process kept; None if it kept nothing, or what it left is of no use."""
        try:
            stored: np.ndarray = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            LOG.warning("the teacher's answers in %s cannot be read (%s); it is asked again", path, error)
            return None
        if stored.ndim != 2 or len(stored) != self._samples:
            LOG.warning("the teacher's answers in %s are of other data; it is asked again", path)
            return None
        return stored.astype(np.float32)

    @staticmethod
    def _path(folder: Path, view: int) -> Path:
        return folder / f"teacher-view-{view:02d}.npy"
