"""The recurrent learner trained on records of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from device_bench.errors import BadInputError
from pipeline.environment.outcomes import Arena, OutcomeTask
from pipeline.learning.recurrent import (
    RecurrentSettings,
    RecurrentState,
    recurrent_start,
    train_recurrent,
)
from pipeline.learning.rl2 import input_size
from pipeline.policy.policy_file import PolicyFile
from pipeline.policy.recurrent_records import DemonstrationSource, records_of
from pipeline.policy.training import (
    Progress,
    Standing,
    TrainSettings,
    load_standing,
    one_thread,
    save_standing,
)

LEARNER = "recurrent"
# Few and small updates: longer training fits the tasks' own families better, and new ones worse.
UPDATES, RATE = 200, 7e-4
HIDDEN = 48
UPDATES_A_CHECKPOINT = 100


@one_thread()
def train(
    tasks: Sequence[OutcomeTask],
    settings: TrainSettings,
    seed: int,
    checkpoint: Path | None,
    progress: Progress,
) -> PolicyFile:
    """The policy that most likely does what did best on the tasks; equal arguments give equal bytes.

    Args:
        checkpoint: kept up to date there, and gone on from where there is one.

    Raises:
        BadInputError: no tasks, a task that cannot be played, or a checkpoint of another training.
    """
    if not tasks:
        raise BadInputError("training from records needs at least one task; got none")
    updates = settings.updates or UPDATES
    run = {"seed": seed, "updates": updates, "tasks": [task.name for task in tasks]}
    kept = load_standing(checkpoint, LEARNER, run)
    arenas = [Arena.of(task) for task in tasks]
    records = []
    for number, arena in enumerate(arenas):
        records.append(records_of(arena, seed))
        progress(0.0, f"records of {arena.task.name}: {len(records[-1].rows)} ({number + 1}/{len(arenas)})")
    source = DemonstrationSource(arenas, records)
    own = RecurrentSettings(updates=updates, hidden=HIDDEN, rate=RATE)
    spec = source.spec
    state = recurrent_start(input_size(spec), spec.option_features, own, seed)
    if kept is not None:
        state = RecurrentState(kept.done, kept.parameters, kept.optimiser, tuple(kept.figures["losses"]))

    def after_update(now: RecurrentState) -> None:
        if checkpoint is not None and now.done % UPDATES_A_CHECKPOINT == 0:
            figures = {"losses": list(now.losses)}
            save_standing(
                checkpoint, LEARNER, run, Standing(now.done, now.parameters, now.optimiser, figures)
            )
        progress(now.done / updates, f"update {now.done}: loss {now.losses[-1]:.3f} a decision")

    state = train_recurrent(source.batch, state, own, seed, after_update)
    summary = {
        "hidden": HIDDEN,
        "features": spec.features,
        "option_features": spec.option_features,
        "trials": 0,
        "training": {**run, "losses": [round(float(value), 6) for value in state.losses]},
    }
    tensors = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in state.parameters.items()}
    return PolicyFile(LEARNER, summary, tensors)
