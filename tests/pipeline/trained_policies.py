"""Policies trained for a moment in the make-believe world."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from known_outcomes import chain_outcomes, one_unit_outcomes

from pipeline.policy import recurrent_training, rl2_training
from pipeline.policy.policy_file import PolicyFile, save_policy
from pipeline.policy.training import TrainSettings

TRAININGS = {"rl2": rl2_training.train, "recurrent": recurrent_training.train}
UPDATES = {"rl2": 3, "recurrent": 10}


@cache
def trained(learner: str, seed: int = 0) -> PolicyFile:
    """A policy after a few updates on small tasks."""
    tasks = [one_unit_outcomes(), chain_outcomes()]
    settings = TrainSettings(updates=UPDATES[learner])
    return TRAININGS[learner](tasks, settings, seed, None, lambda share, words: None)


def ship(learner: str, folder: Path) -> None:
    """Put the policy where shipped ones lie."""
    save_policy(folder / f"{learner}.safetensors", trained(learner))
