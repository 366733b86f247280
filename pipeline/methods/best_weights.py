"""The best weights of a training so far, and when there is no more hope of better ones."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import nn

from device_bench.storage import write_whole

SCORE, WAITED = "score", "waited"
MODULE = "module."


class BestWeights:
    """Kept in a file beside the checkpoint, so that a killed training knows them when it goes on.

    Args:
        checkpoint: of the training; None keeps them in memory only.
        patience: epochs without a better score before it is over.
    """

    def __init__(self, checkpoint: Path | None, patience: int) -> None:
        self._path = (
            None if checkpoint is None or not patience else checkpoint.with_suffix(".best.safetensors")
        )
        self._patience = patience
        self._state: dict[str, torch.Tensor] = {}
        if self._path is not None and checkpoint is not None and checkpoint.exists() and self._path.exists():
            self._state = load(self._path.read_bytes())

    def after_epoch(self, module: nn.Module, score: float) -> bool:
        """Take note of a score, the higher the better; True once patience is at its end."""
        known = self._state.get(SCORE)
        if known is None or score > float(known):
            self._state = {
                f"{MODULE}{name}": t.clone().contiguous() for name, t in module.state_dict().items()
            }
            self._state |= {SCORE: torch.tensor(score, dtype=torch.float64), WAITED: torch.tensor(0)}
        else:
            self._state[WAITED] = self._state[WAITED] + 1
        if self._path is not None:
            write_whole(self._path, save(self._state))
        return int(self._state[WAITED]) >= self._patience

    def restore_(self, module: nn.Module) -> None:
        """Put them back; does nothing where no epoch was judged."""
        state = {n.removeprefix(MODULE): t for n, t in self._state.items() if n.startswith(MODULE)}
        if state:
            module.load_state_dict(state)

    def clear(self) -> None:
        """Remove the file: what it was for is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
