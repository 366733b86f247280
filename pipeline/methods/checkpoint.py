"""The state of a recovery in a file, so that a killed one goes on where its last epoch ended."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from device_bench.storage import write_whole

LOG = logging.getLogger(__name__)

MODULE = "module."
MOMENTUM = "momentum."
DONE = "done"


class Checkpoint:
    """Weights, statistics and momenta after a number of steps. Without a path it keeps nothing.

    Args:
        path: a safetensors file, written anew by each `write`.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def write(self, module: nn.Module, optimizer: torch.optim.SGD, done: int) -> None:
        """Keep the state after `done` steps.

        Raises:
            RunError: the file cannot be written.
        """
        if self.path is None:
            return
        state = {f"{MODULE}{name}": tensor.contiguous() for name, tensor in module.state_dict().items()}
        for index, tensor in enumerate(_parameters(optimizer)):
            buffer = optimizer.state[tensor].get("momentum_buffer")
            if buffer is not None:
                state[f"{MOMENTUM}{index}"] = buffer.contiguous()
        state[DONE] = torch.tensor(done)
        write_whole(self.path, save(state))

    def restore_(self, module: nn.Module, optimizer: torch.optim.SGD) -> int:
        """Put the state back in place; returns the steps done, 0 if there is no state that fits."""
        state = self._read()
        own = {name.removeprefix(MODULE): value for name, value in state.items() if name.startswith(MODULE)}
        parameters = _parameters(optimizer)
        momenta = {f"{MOMENTUM}{index}": tensor for index, tensor in enumerate(parameters)}
        wanted = module.state_dict() | {name: momenta[name] for name in state.keys() & momenta.keys()}
        found = own | {name: state[name] for name in state if name.startswith(MOMENTUM)}
        if not state:
            return 0
        if DONE not in state or _shapes(found) != _shapes(wanted):
            LOG.warning("the checkpoint %s is of another model; this recovery starts anew", self.path)
            return 0
        module.load_state_dict(own)
        for name, tensor in momenta.items():
            if name in state:
                # In the memory layout of its weights, as an uninterrupted run has it.
                optimizer.state[tensor]["momentum_buffer"] = torch.empty_like(tensor).copy_(state[name])
        return int(state[DONE])

    def clear(self) -> None:
        """Remove the file: what it was for is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, torch.Tensor]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            state: dict[str, torch.Tensor] = load(self.path.read_bytes())
        except (SafetensorError, OSError) as error:
            LOG.warning("the checkpoint %s cannot be read (%s); this recovery starts anew", self.path, error)
            return {}
        return state


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _parameters(optimizer: torch.optim.SGD) -> list[torch.Tensor]:
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]
