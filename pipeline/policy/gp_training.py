"""Learns the priors of the Gaussian processes over recorded tasks, all together, by marginal likelihood.

What is maximised is the mean over tasks of the logarithm of the likelihood for each outcome; a weak pull
holds every number near where it started. Lessons are the plans that were recorded, those that the knapsack
believes in and those that are really good, answered by the task's surrogates: a policy must know plans like
its own proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from device_bench.errors import BadInputError
from pipeline.learning.adam import AdamState, adam_start, adam_step
from pipeline.policy import damage_process, latency_process
from pipeline.policy.answers import answers
from pipeline.policy.base import PolicyContext
from pipeline.policy.change_damage import ChangeDamage, Guess
from pipeline.policy.damage_process import DamageInputs, damage_surprise
from pipeline.policy.effect_table import distinct
from pipeline.policy.gp import ANY_RUNTIME, FEATURES, LEARNER
from pipeline.policy.knapsack_solver import good_rows
from pipeline.policy.latency_process import latency_surprise
from pipeline.policy.layer_work import LayerWork
from pipeline.policy.plan_features import PlanFeatures
from pipeline.policy.plan_search import PlanSearch
from pipeline.policy.policy_file import PolicyFile
from pipeline.policy.process import Numbers
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

UPDATES = 150
RATE = 0.1
# How strongly numbers are held near where they start. Chosen on families of training tasks left out in turn
# (share of the best hypervolume after 5 and 10 trials): 0.79 and 0.85 with 1e-4 for both, 0.83 and 0.88 so.
LATENCY_PULL, DAMAGE_PULL = 1e-3, 1e-2
UPDATES_A_CHECKPOINT = 25
FEWEST_PLANS = 20
# Of the plans that the knapsack believes in, of those that are good, and of those by which damage is learned.
MOST_NEAR, MOST_GOOD, MOST_DAMAGED = 80, 40, 300
# What is left of plans below is more luck than rule.
LEAST_GAIN = 0.15


@dataclass(frozen=True)
class _LatencyLesson:
    """Sizes [layers, measures], work [n, layers, forms] and ratios [n] of one task."""

    sizes: Tensor
    work: Tensor
    ratio: Tensor

    def surprise(self, numbers: Numbers) -> Tensor:
        return latency_surprise(numbers, self.sizes, self.work, self.ratio)


@dataclass(frozen=True)
class _DamageLesson:
    """Plans of one model and its data, and their gains [n]."""

    inputs: DamageInputs
    gain: Tensor

    def surprise(self, numbers: Numbers) -> Tensor:
        return damage_surprise(numbers, self.inputs, self.gain)


Lessons = dict[str, list[_LatencyLesson | _DamageLesson]]


@one_thread()
def train(
    tasks: Sequence[TableTask],
    settings: TrainSettings,
    seed: int,
    checkpoint: Path | None,
    progress: Progress,
) -> PolicyFile:
    """Priors that serve any task; equal arguments give equal bytes.

    Args:
        checkpoint: kept up to date there, and gone on from where there is one.

    Raises:
        BadInputError: no tasks, tasks with too few plans, or another training's checkpoint.
    """
    if not tasks:
        raise BadInputError("meta-training needs at least one recorded task; got none")
    updates = settings.updates or UPDATES
    run = {"seed": seed, "updates": updates, "tasks": [task.name for task in tasks]}
    lessons, guess = _lessons(tasks, seed)
    first = {key: tensor for prior in lessons for key, tensor in _first(prior).items()}
    parameters, adam, done, losses = dict(first), adam_start(first), 0, []
    kept = load_standing(checkpoint, LEARNER, run)
    if kept is not None:
        parameters, adam, done = kept.parameters, kept.optimiser, kept.done
        losses = list(kept.figures["losses"])
    while done < updates:
        parameters, adam, loss = _updated(parameters, adam, lessons, first)
        done, losses = done + 1, [*losses, loss]
        if checkpoint is not None and done % UPDATES_A_CHECKPOINT == 0:
            save_standing(checkpoint, LEARNER, run, Standing(done, parameters, adam, {"losses": losses}))
        progress(done / updates, f"update {done}: surprise {loss:.3f} an outcome")
    tensors = {key: tensor.numpy() for key, tensor in parameters.items()}
    tensors |= {"guess/slopes": guess.slopes, "guess/spread": np.array(guess.spread)}
    told = {**run, "losses": [round(value, 4) for value in losses[::UPDATES_A_CHECKPOINT]]}
    return PolicyFile(LEARNER, {"features": list(FEATURES), "training": told}, tensors)


def _updated(
    parameters: Numbers, adam: AdamState, lessons: Lessons, first: Numbers
) -> tuple[Numbers, AdamState, float]:
    """One step of all priors; each has numbers of its own, so each learns from its own lessons."""
    leaves = {key: tensor.clone().requires_grad_() for key, tensor in parameters.items()}
    losses = []
    for prior, own in lessons.items():
        numbers = {key.removeprefix(f"{prior}/"): leaf for key, leaf in leaves.items() if _of(prior, key)}
        losses.append(torch.stack([lesson.surprise(numbers) for lesson in own]).mean())
    pull = torch.stack([_pull(key) * ((leaf - first[key]) ** 2).sum() for key, leaf in leaves.items()])
    total = torch.stack(losses)
    gradients = torch.autograd.grad(total.sum() + pull.sum(), list(leaves.values()))
    moved, adam = adam_step(parameters, dict(zip(leaves, gradients, strict=True)), adam, RATE)
    return moved, adam, float(total.detach().mean())


def _of(prior: str, key: str) -> bool:
    return key.startswith(f"{prior}/")


def _pull(key: str) -> float:
    return DAMAGE_PULL if _of("damage", key) else LATENCY_PULL


def _first(prior: str) -> Numbers:
    module = damage_process if prior == "damage" else latency_process
    return {f"{prior}/{name}": tensor for name, tensor in module.first_numbers().items()}


def _lessons(tasks: Sequence[TableTask], seed: int) -> tuple[Lessons, Guess]:
    """What each prior learns from, and the guess of damages that were not measured."""
    latency: Lessons = {f"latency of {ANY_RUNTIME}": []}
    seen: dict[str, list[tuple[TableTask, Options]]] = {}
    done = set()
    for task in tasks:
        # Budgets change neither what plans cost nor what they destroy.
        if task.name in done:
            continue
        done.add(task.name)
        whole = int(((task.table.options != 0).sum(1) > 1).sum())
        if whole < FEWEST_PLANS:
            raise BadInputError(
                f"{task.name} has {whole} whole plans; meta-training needs {FEWEST_PLANS}: record more"
            )
        near = _near(task, seed)
        seen.setdefault(task.table.header.name, []).append((task, near))
        lesson = _latency_lesson(task, near)
        runtime = task.context.targets[0].runtime.value
        latency[f"latency of {ANY_RUNTIME}"].append(lesson)
        latency.setdefault(f"latency of {runtime}", []).append(lesson)
    views = {name: _features(found[0][0]) for name, found in seen.items()}
    guess = Guess.fit(list(views.values()))
    damage = partial(_damage_lesson, guess=guess, seed=seed)
    return latency | {"damage": [damage(views[name], found) for name, found in seen.items()]}, guess


def _near(task: TableTask, seed: int) -> Options:
    """Plans near the front, as the knapsack sees it and as it is by the task's own surrogates."""
    context = task.context
    rng = np.random.default_rng(seed)
    good = good_rows(context, task.setting)
    really = PlanSearch(task.codec, partial(answers, task, LEAST_GAIN), seed).candidates(good)[0]
    few = [some[rng.permutation(len(some))[:most]] for some, most in ((good, MOST_NEAR), (really, MOST_GOOD))]
    rows = task.codec.normal(distinct(np.concatenate(few)))
    return np.asarray(rows[(rows != 0).any(axis=1)])


def _latency_lesson(task: TableTask, near: Options) -> _LatencyLesson:
    work = LayerWork.of(task.context, task.setting, task.codec)
    base = task.context.base_latency_ms[task.setting]
    recorded = task.table.latency_ms[task.setting].astype(np.float64)
    known = np.isfinite(recorded)
    ratio = np.concatenate([recorded[known], task.latency_ms(near)]) / base
    left = work.left(np.concatenate([task.table.options[known], near]))
    return _LatencyLesson(*(torch.from_numpy(np.ascontiguousarray(one)) for one in (work.sizes, left, ratio)))


def _damage_lesson(
    features: PlanFeatures, found: Sequence[tuple[TableTask, Options]], guess: Guess, seed: int
) -> _DamageLesson:
    """Plans of several changes: what single ones do is given."""
    task = found[0][0]
    known = np.isfinite(task.table.accuracy)
    near = distinct(np.concatenate([rows for _, rows in found]))
    rows = np.concatenate([task.table.options[known], near])
    accuracy = np.concatenate([task.table.accuracy[known].astype(np.float64), task.accuracy(near)])
    gains = np.array([task.context.gain(float(one)) for one in accuracy])
    telling = np.flatnonzero((features.active(rows).sum(axis=1) > 1) & (gains > LEAST_GAIN))
    taken = telling[np.random.default_rng(seed).permutation(len(telling))[:MOST_DAMAGED]]
    inputs = DamageInputs.of(ChangeDamage.of(features, guess), rows[taken])
    return _DamageLesson(inputs, torch.from_numpy(gains[taken]))


def _features(task: TableTask) -> PlanFeatures:
    context: PolicyContext = task.context
    return PlanFeatures.of(context, task.setting, task.chance, task.codec)
