"""Trains the plan-value network over recorded tasks, by a learner of the MAML family.

Each outer step takes some tasks. A few of a task's plans are its support set, others its query set;
often the effects of single changes are hidden, so that the network also learns to do without them. After the
learner's own step comes a plain one on the query sets: a network must be good before its first trial, too.
At the end the residual kernels are fitted to what the network still gets wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad_and_value

from device_bench.errors import BadInputError, unknown_name
from pipeline.experience import Trial
from pipeline.learning.adam import AdamState, adam_start, adam_step
from pipeline.learning.anil import ANIL
from pipeline.learning.fomaml import FOMAML
from pipeline.learning.inner import InnerLoop, MetaLearner, TaskBatch
from pipeline.learning.maml import MAML
from pipeline.learning.reptile import Reptile
from pipeline.policy.answers import answers
from pipeline.policy.effect_table import distinct
from pipeline.policy.forecast import errors_of
from pipeline.policy.knapsack_solver import best_rows, good_rows
from pipeline.policy.plan_features import NAMES, PlanFeatures
from pipeline.policy.plan_search import PlanSearch
from pipeline.policy.plan_value import (
    HEAD_NAMES,
    Parameters,
    PlanBatch,
    fresh_parameters,
    value_loss,
)
from pipeline.policy.policy_file import PolicyFile
from pipeline.policy.residual_kernel import ResidualKernel
from pipeline.policy.training import (
    Progress,
    Standing,
    TrainSettings,
    load_standing,
    one_thread,
    save_standing,
)
from pipeline.tables.codec import Options
from pipeline.tables.table_task import TableTask

UPDATES = 800
TASKS_A_STEP = 4
SUPPORTS = (1, 2, 3, 5, 8, 12)
QUERY = 48
HIDDEN_SHARE = 0.4
OUTER_RATE, PLAIN_RATE = 2e-3, 2e-3
LEAST_GAIN = 0.02
# Trained on three families and asked about a fourth, networks made sums of measured effects worse: the share
# of the best hypervolume after 5 trials was 0.81 with all of their corrections, 0.83 with half and 0.85 with
# none. They wait for more families; where nothing was probed, the network answers.
NETWORK_TRUST = 0.0
PLANS_BEFORE, PLANS_A_KERNEL = 6, 60
# Of the plans that the knapsack believes in.
MOST_NEAR = 150
UPDATES_A_CHECKPOINT = 100
UPDATES_A_FIGURE = 25

LEARNERS: dict[str, MetaLearner] = {
    "maml": MAML(InnerLoop(0.02, 3), OUTER_RATE),
    "fomaml": FOMAML(InnerLoop(0.02, 3), OUTER_RATE),
    "reptile": Reptile(InnerLoop(0.02, 5), 0.2),
    "anil": ANIL(InnerLoop(0.05, 3), HEAD_NAMES, OUTER_RATE),
}


def learner_named(name: str) -> MetaLearner:
    """The learner of that name, as it is trained and as it adapts.

    Raises:
        BadInputError: no such learner.
    """
    if name not in LEARNERS:
        raise unknown_name("learner", name, LEARNERS)
    return LEARNERS[name]


def loss(parameters: Parameters, batch: tuple[Tensor, ...]) -> Tensor:
    """`value_loss` as learners call it."""
    return value_loss(parameters, PlanBatch(*batch))


@one_thread()
def train(
    learner_name: str,
    tasks: Sequence[TableTask],
    settings: TrainSettings,
    seed: int,
    checkpoint: Path | None,
    progress: Progress,
) -> PolicyFile:
    """A plan-value network that a few trials adapt to a task; equal arguments give equal bytes.

    Args:
        checkpoint: kept up to date there, and gone on from where there is one.

    Raises:
        BadInputError: no such learner, no tasks, tasks with too few plans, or another training's checkpoint.
    """
    learner = learner_named(learner_name)
    lessons = [_Lesson.of(task, seed) for task in tasks]
    if not lessons:
        raise BadInputError("meta-training needs at least one recorded task; got none")
    updates = settings.updates or UPDATES
    run = {"seed": seed, "updates": updates, "tasks": [task.name for task in tasks]}
    state = _State.begun(learner, seed)
    kept = load_standing(checkpoint, learner_name, run)
    if kept is not None:
        state = _State.resumed(kept)
    while state.done < updates:
        state = _updated(state, learner, lessons, updates, seed)
        if checkpoint is not None and state.done % UPDATES_A_CHECKPOINT == 0:
            save_standing(checkpoint, learner_name, run, state.standing())
        progress(state.done / updates, f"update {state.done}: query loss {state.losses[-1]:.3f}")
    kernels = _kernels(state.parameters, lessons, seed)
    inner = getattr(learner, "inner")  # noqa: B009 (every learner of the family has one)
    summary = {
        "features": list(NAMES),
        "inner": {"rate": inner.rate, "steps": inner.steps},
        "trust": NETWORK_TRUST,
        "kernels": [list(kernel.logs) for kernel in kernels],
        "training": {**run, "losses": [round(value, 4) for value in state.losses[::UPDATES_A_FIGURE]]},
    }
    tensors = {name: tensor.numpy().astype(np.float32) for name, tensor in state.parameters.items()}
    return PolicyFile(learner_name, summary, tensors)


train_maml, train_fomaml, train_reptile, train_anil = (partial(train, name) for name in LEARNERS)


@dataclass(frozen=True)
class _Lesson:
    """Plans of a task with their outcomes, by its surrogates.

    Those that were recorded, those that the knapsack believes in, and those that are really good: a network
    that proposes must know plans like its own proposals, which are better believed than random ones.
    """

    seen: _Side
    hidden: _Side

    @classmethod
    def of(cls, task: TableTask, seed: int) -> _Lesson:
        context, target = task.context, task.setting
        whole = task.table.options[(task.table.options != 0).sum(1) > 1]
        if len(whole) < max(SUPPORTS) + 8:
            raise BadInputError(
                f"{task.name} has {len(whole)} whole plans; meta-training needs {max(SUPPORTS) + 8}: "
                "record more"
            )
        blind = replace(context, effects={})
        rng = np.random.default_rng(seed)
        near = np.concatenate([good_rows(context, target), best_rows(blind, target)])
        near = near[rng.permutation(len(near))[:MOST_NEAR]]
        rows = task.codec.normal(distinct(np.concatenate([whole, near, _front(task, seed)])))
        gains = np.array([context.gain(float(accuracy)) for accuracy in task.accuracy(rows)])
        gains = np.clip(gains, LEAST_GAIN, 1.0)
        ratios = np.log(task.latency_ms(rows) / context.base_latency_ms[target])
        trials = tuple(
            task.run(task.codec.decode(row), number, "training") for number, row in enumerate(rows)
        )
        seen, hidden = (
            _Side(one, PlanBatch.of(one, rows).with_outcomes(gains, ratios), rows, trials)
            for one in (PlanFeatures.of(c, target, task.chance, task.codec) for c in (context, blind))
        )
        return cls(seen, hidden)

    def drawn(self, rng: np.random.Generator) -> TaskBatch:
        side = self.hidden if rng.random() < HIDDEN_SHARE else self.seen
        index = rng.permutation(side.batch.plans)
        support = int(rng.choice(SUPPORTS))
        return side.lesson(index[:support], index[support : support + QUERY])


@dataclass(frozen=True)
class _Side:
    """The plans as they look with, or without, the effects of single changes."""

    features: PlanFeatures
    batch: PlanBatch
    rows: Options
    trials: tuple[Trial, ...]

    def lesson(self, support: NDArray[np.int64], query: NDArray[np.int64]) -> TaskBatch:
        """Plans to adapt to, each seen after the others, and plans to judge by, seen after all of those."""
        history = [self.trials[place] for place in support]
        mine, asked = (self.batch.take(torch.from_numpy(some)) for some in (support, query))
        return TaskBatch(
            mine.after_each_other(self.features, self.rows[support], history),
            asked.after(self.features, self.rows[query], history),
        )


def _front(task: TableTask, seed: int) -> Options:
    """Plans near the front by the task's own surrogates, [n, positions]."""
    known = best_rows(task.context, task.setting)
    return PlanSearch(task.codec, partial(answers, task, LEAST_GAIN), seed).candidates(known)[0]


@dataclass(frozen=True)
class _State:
    """Where training stands. `plain`: the optimizer of the steps without adaptation."""

    done: int
    parameters: Parameters
    outer: AdamState
    plain: AdamState
    losses: tuple[float, ...]

    @classmethod
    def begun(cls, learner: MetaLearner, seed: int) -> _State:
        parameters = fresh_parameters(seed)
        return cls(0, parameters, learner.start(parameters), adam_start(parameters), ())

    def standing(self) -> Standing:
        """As it is kept: the second optimizer's means stand beside the parameters."""
        extra = {f"plain1/{name}": tensor for name, tensor in self.plain.first.items()}
        extra |= {f"plain2/{name}": tensor for name, tensor in self.plain.second.items()}
        return Standing(self.done, self.parameters | extra, self.outer, {"losses": list(self.losses)})

    @classmethod
    def resumed(cls, kept: Standing) -> _State:
        groups: dict[str, Parameters] = {"": {}, "plain1": {}, "plain2": {}}
        for key, tensor in kept.parameters.items():
            group, _, name = key.rpartition("/")
            groups[group][name] = tensor
        plain = AdamState(kept.done, groups["plain1"], groups["plain2"])
        return cls(kept.done, groups[""], kept.optimiser, plain, tuple(kept.figures["losses"]))


def _updated(
    state: _State, learner: MetaLearner, lessons: Sequence[_Lesson], updates: int, seed: int
) -> _State:
    """One outer step of the learner and one plain step, on the same tasks."""
    # Drawn from the step's own number: a training that goes on draws what it would have drawn.
    rng = np.random.default_rng((seed, state.done))
    tasks = [lessons[place].drawn(rng) for place in rng.integers(0, len(lessons), TASKS_A_STEP)]
    parameters, outer, query_loss = learner.meta_step(state.parameters, state.outer, tasks, loss)

    def unadapted(current: Parameters) -> Tensor:
        return torch.stack([loss(current, task.query) for task in tasks]).mean()

    gradients, _ = grad_and_value(unadapted)(parameters)
    rate = PLAIN_RATE * (1.0 - state.done / updates) + 1e-5
    parameters, plain = adam_step(parameters, gradients, state.plain, rate)
    parameters = {name: tensor.detach() for name, tensor in parameters.items()}
    return _State(state.done + 1, parameters, outer, plain, (*state.losses, float(query_loss)))


def _kernels(
    parameters: Parameters, lessons: Sequence[_Lesson], seed: int
) -> tuple[ResidualKernel, ResidualKernel]:
    """Kernels of the errors of ln T and ln r, over some plans of every task."""
    rng = np.random.default_rng(seed)
    found = []
    for side in (lesson.seen for lesson in lessons):
        index = rng.permutation(side.batch.plans)
        support, query = index[:PLANS_BEFORE], index[PLANS_BEFORE : PLANS_BEFORE + PLANS_A_KERNEL]
        batch = PlanBatch(*side.lesson(support, query).query)
        found.append(errors_of(parameters, NETWORK_TRUST, side.features, (side.rows[query], batch)))
    return ResidualKernel.fit([one for one, _ in found]), ResidualKernel.fit([two for _, two in found])
