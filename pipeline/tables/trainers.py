"""How each learner is trained, by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from device_bench.errors import unknown_name

if TYPE_CHECKING:
    from pipeline.policy.policy_file import PolicyFile
    from pipeline.policy.training import Progress, TrainSettings
    from pipeline.tables.table_task import TableTask

TRAINERS: dict[str, str] = {
    "gp": "pipeline.policy.gp_training:train",
    "rl2": "pipeline.policy.rl2_training:train",
    "recurrent": "pipeline.policy.recurrent_training:train",
    "maml": "pipeline.policy.planner_training:train_maml",
    "fomaml": "pipeline.policy.planner_training:train_fomaml",
    "reptile": "pipeline.policy.planner_training:train_reptile",
    "anil": "pipeline.policy.planner_training:train_anil",
}


class Trainer(Protocol):
    """Trains a policy; equal tasks, settings and seeds give equal bytes."""

    def __call__(
        self,
        tasks: Sequence[TableTask],
        settings: TrainSettings,
        seed: int,
        checkpoint: Path | None,
        progress: Progress,
    ) -> PolicyFile:
        """The trained policy; goes on from the checkpoint where there is one."""
        ...


def trainer_of(name: str) -> Trainer:
    """The training of the learner of that name.

    Raises:
        BadInputError: no learner of that name is trained over tasks.
    """
    if name not in TRAINERS:
        raise unknown_name("learner", name, TRAINERS)
    module, _, function = TRAINERS[name].partition(":")
    return cast("Trainer", getattr(import_module(module), function))
