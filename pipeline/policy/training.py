"""What the training of every sequential policy is given, and what it leaves behind on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from device_bench.errors import BadInputError
from pipeline.learning.adam import AdamState
from pipeline.policy.policy_file import PolicyFile, load_policy_file, save_policy

# Told with the share that is done, from 0 to 1, and a line of words.
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class TrainSettings:
    """How long to train. `updates`: of the parameters' outer loop; None for the learner's own number."""

    updates: int | None = None

    def __post_init__(self) -> None:
        if self.updates is not None and self.updates < 1:
            raise BadInputError(f"updates must be at least 1; got {self.updates}")


@dataclass(frozen=True)
class Standing:
    """Where a training stands: updates done, parameters and optimiser, and figures to tell of it.

    Args:
        figures: JSON values.
    """

    done: int
    parameters: dict[str, Tensor]
    optimiser: AdamState
    figures: Mapping[str, Any]


def save_standing(path: Path, learner: str, run: Mapping[str, Any], standing: Standing) -> None:
    """Keep a training, so that it can go on from here.

    Args:
        run: what must be equal for a training to go on: seed, settings, tasks.

    Raises:
        RunError: the file cannot be written.
    """
    groups = {"now": standing.parameters, "m1": standing.optimiser.first, "m2": standing.optimiser.second}
    tensors = {f"{group}/{n}": t.detach().numpy() for group, own in groups.items() for n, t in own.items()}
    settings = {
        "run": dict(run),
        "done": standing.done,
        "steps": standing.optimiser.steps,
        "figures": dict(standing.figures),
    }
    save_policy(path, PolicyFile(_unfinished(learner), settings, tensors))


def load_standing(path: Path | None, learner: str, run: Mapping[str, Any]) -> Standing | None:
    """A training to go on with; None where nothing was kept.

    Raises:
        BadInputError: the file is damaged, or of a training on other tasks or with other settings.
    """
    if path is None or not path.exists():
        return None
    found = load_policy_file(path, _unfinished(learner))
    if found.setting("run") != dict(run):
        raise BadInputError(
            f"{path} was left by a training with another seed, other settings or other tasks; delete it, or "
            "give another folder"
        )
    groups: dict[str, dict[str, Tensor]] = {"now": {}, "m1": {}, "m2": {}}
    for key, array in found.tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = torch.from_numpy(np.array(array))
    optimiser = AdamState(int(found.setting("steps")), groups["m1"], groups["m2"])
    return Standing(int(found.setting("done")), groups["now"], optimiser, found.setting("figures"))


def _unfinished(learner: str) -> str:
    return f"{learner} (unfinished)"


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread, which small networks like best and which repeats to the bit; then as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
