"""RL² trained over tasks whose outcomes are known at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.environment.environment import PlanEnvironment
from pipeline.environment.outcomes import OutcomeTask
from pipeline.learning.ppo import PpoSettings
from pipeline.learning.rl2 import Rl2Settings, Rl2State, rl2_start, train_rl2
from pipeline.policy.policy_file import PolicyFile
from pipeline.policy.training import (
    Progress,
    Standing,
    TrainSettings,
    load_standing,
    one_thread,
    save_standing,
)

LEARNER = "rl2"
UPDATES = 150
LANES = 64
# Episodes on a task; so many of the last trials a policy sees again when it proposes.
TRIALS = 10
STEPS = 160
HIDDEN = 48
# The last of about twenty decisions comes with the reward: it must reach the first.
PPO = PpoSettings(rate=1.5e-3, discount=0.995, trace=0.97, entropy_weight=0.003, epochs=3, minibatches=2)
UPDATES_A_CHECKPOINT = 20


@one_thread()
def train(
    tasks: Sequence[OutcomeTask],
    settings: TrainSettings,
    seed: int,
    checkpoint: Path | None,
    progress: Progress,
) -> PolicyFile:
    """The policy that earns most over `TRIALS` episodes on the tasks; equal arguments give equal bytes.

    Args:
        checkpoint: kept up to date there, and gone on from where there is one.

    Raises:
        BadInputError: no tasks, a task that cannot be played, or a checkpoint of another training.
    """
    updates = settings.updates or UPDATES
    run = {"seed": seed, "updates": updates, "tasks": [task.name for task in tasks]}
    own = Rl2Settings(updates=updates, steps=STEPS, hidden=HIDDEN, ppo=PPO)
    environment = PlanEnvironment(tasks, LANES, TRIALS)
    kept = load_standing(checkpoint, LEARNER, run)
    state = rl2_start(environment.spec, own, seed)
    if kept is not None:
        state = Rl2State(kept.done, kept.parameters, kept.optimiser, tuple(kept.figures["rewards"]))

    def after_update(now: Rl2State) -> None:
        if checkpoint is not None and now.done % UPDATES_A_CHECKPOINT == 0:
            figures = {"rewards": list(now.rewards)}
            save_standing(
                checkpoint, LEARNER, run, Standing(now.done, now.parameters, now.optimiser, figures)
            )
        progress(
            now.done / updates, f"update {now.done}: {TRIALS * now.rewards[-1]:.3f} of the ladder's area"
        )

    state = train_rl2(environment.seeded, state, own, seed, after_update)
    summary = {
        "hidden": HIDDEN,
        "features": environment.spec.features,
        "option_features": environment.spec.option_features,
        "trials": TRIALS,
        "training": {**run, "rewards": [round(float(r), 6) for r in state.rewards]},
    }
    tensors = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in state.parameters.items()}
    return PolicyFile(LEARNER, summary, tensors)
