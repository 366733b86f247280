"""`meta-train/nightly`: train a policy on the grown experience, judge it, promote it or keep it aside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from prefect import State, flow, get_run_logger

from flows.deployments.logbook import unattended

Learner = Literal["gp", "rl2", "recurrent", "maml", "fomaml", "reptile", "anil"]


@flow(name="meta-train")
def meta_train(
    tasks: Path = Path("policies/train.toml"),
    policy: Learner = "reptile",
    out: Path = Path("policies/nightly"),
    experience: bool = True,
    updates: int | None = None,
    data_root: Path | None = None,
) -> State[None]:
    """Train a policy over recorded tasks, and judge it on tasks it has never seen.

    Args:
        tasks: list of tasks to train on (.toml), below the folder that was deployed from.
        policy: what to train.
        out: folder of the policy file, its learning curve and its verdict.
        experience: train on the trials of all runs on this machine, too.
        updates: updates to train; the learner's own number where none is given.
        data_root: folder of the data sets, for tables that are not recorded yet; by default the worker's
            EDGELOOP_DATA.
    """
    # Deploying reads only what stands above; the learners need torch.
    from flows.training.meta_train import meta_train_flow
    from flows.training.meta_train_start import MetaTrainRequest, checked, order_of

    given = data_root or (Path(os.environ["EDGELOOP_DATA"]) if "EDGELOOP_DATA" in os.environ else None)
    request = MetaTrainRequest(
        tasks, policy, out, updates=updates, data_root=given, experience="" if experience else None
    )

    def trained() -> str:
        result = meta_train_flow.fn(order_of(request, checked(request)), policy)
        told = [
            f"{one.shipped} {'replaced' if one.promoted else 'kept'}: {one.reason}"
            for one in result.decisions
        ]
        return "; ".join([f"policy: {result.policy}", *told])

    return unattended(get_run_logger(), trained)
