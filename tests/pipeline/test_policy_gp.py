from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from known_tables import SETTINGS, known_table
from known_tasks import chain_task, residual_task

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.policy import gp_training
from pipeline.policy.base import PolicyContext
from pipeline.policy.gp import ANY_RUNTIME, FEATURES, GpPolicy, measured_changes
from pipeline.policy.gp_training import train
from pipeline.policy.policy_file import PolicyFile, save_policy, shipped_policy
from pipeline.policy.training import TrainSettings
from pipeline.search import changes_to_probe
from pipeline.tables.codec import PlanCodec
from pipeline.tables.table_task import TableTask
from pipeline.tables.trial_task import area, point

UPDATES = 6


def told_nothing(share: float, words: str) -> None:
    assert 0.0 < share <= 1.0
    assert words


def tasks() -> list[TableTask]:
    return [TableTask.of(known_table(), setting) for setting in SETTINGS]


@cache
def trained(seed: int = 0) -> PolicyFile:
    return train(tasks(), TrainSettings(updates=UPDATES), seed, None, told_nothing)


def content(policy: PolicyFile, folder: Path) -> bytes:
    save_policy(folder / "gp.safetensors", policy)
    return (folder / "gp.safetensors").read_bytes()


def areas(policy: GpPolicy, trials: int) -> list[float]:
    task = residual_task()
    context = replace(task.context, chance=task.chance)
    history: list[Trial] = []
    points, found = [], []
    while len(history) < trials:
        (plan,) = policy.propose(context, history, 1)
        history.append(task.run(plan, len(history), "gp"))
        points.append(point(task, history[-1]))
        found.append(area(points))
    return found


def test_the_shipped_file_is_of_these_features() -> None:
    assert tuple(shipped_policy("gp").setting("features")) == FEATURES


def test_training_makes_outcomes_more_likely_and_repeats_to_the_byte(tmp_path: Path) -> None:
    policy = trained()
    assert content(policy, tmp_path) == content(
        train(tasks(), TrainSettings(updates=UPDATES), 0, None, told_nothing), tmp_path
    )
    longer = train(tasks(), TrainSettings(updates=26), 0, None, told_nothing)
    losses = longer.setting("training")["losses"]
    assert losses[-1] < losses[0] - 0.3


def test_each_runtime_has_a_prior_and_others_share_one() -> None:
    priors = {key.rpartition("/")[0] for key in trained().tensors}
    assert priors == {
        "damage",
        "guess",
        "latency of onnxruntime",
        "latency of litert",
        f"latency of {ANY_RUNTIME}",
    }


def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp_training, "UPDATES_A_CHECKPOINT", 2)
    checkpoint = tmp_path / "standing.safetensors"

    def killed(share: float, words: str) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tasks(), TrainSettings(updates=UPDATES), 0, checkpoint, killed)
    assert checkpoint.exists()
    seen: list[float] = []
    on = train(
        tasks(), TrainSettings(updates=UPDATES), 0, checkpoint, lambda share, words: seen.append(share)
    )
    assert len(seen) < UPDATES
    whole = train(tasks(), TrainSettings(updates=UPDATES), 0, None, told_nothing)
    assert content(on, tmp_path) == content(whole, tmp_path)


def test_too_few_plans_and_no_tasks_are_refused() -> None:
    with pytest.raises(BadInputError, match="at least one recorded task"):
        train([], TrainSettings(), 0, None, told_nothing)
    few = TableTask.of(known_table(plans=5), next(iter(SETTINGS)))
    with pytest.raises(BadInputError, match="whole plans; meta-training needs 20: record more"):
        train([few], TrainSettings(), 0, None, told_nothing)


def test_priors_of_other_features_are_refused_with_what_to_do() -> None:
    other = PolicyFile("gp", {**trained().settings, "features": ["width"]}, trained().tensors)
    with pytest.raises(BadInputError, match="train it anew with `edgeloop meta-train"):
        GpPolicy(other)


def test_it_gets_far_in_few_trials() -> None:
    found = areas(GpPolicy(), 8)
    assert found[-1] > 1.5 * found[0] > 0.0


def test_several_targets_are_served_in_turn_and_no_plan_comes_twice(
    context: PolicyContext, try_plan: Callable[..., Trial]
) -> None:
    plans = GpPolicy(trained()).propose(context, [], 6)
    assert len({plan.plan_id for plan in plans}) == 6


def test_a_space_is_planned_to_its_end() -> None:
    task = chain_task()
    small = replace(task.context.space, widths={"first": task.context.space.widths["first"]})
    context = replace(task.context, space=small)
    assert 1 <= len(GpPolicy(trained()).propose(context, [], 10)) == small.size() - 1


def test_trials_that_failed_or_were_worthless_do_no_harm() -> None:
    task = residual_task()
    plan = task.context.space.uniform(0.25)
    broken = [
        Trial(number=1, plan=plan, origin="gp", accuracy=float("nan"), latency_ms={"local-onnxruntime": 0.1}),
        Trial(number=2, plan=task.context.space.uniform(0.5), origin="gp", accuracy=10.0, latency_ms={}),
        task.run(task.context.space.uniform(0.375), 3, "gp").model_copy(update={"accuracy": 0.0}),
    ]
    (new,) = GpPolicy(trained()).propose(task.context, broken, 1)
    assert new.plan_id not in {trial.plan.plan_id for trial in broken}


def test_only_what_was_measured_counts_as_measured() -> None:
    context = residual_task().context
    codec = PlanCodec(context.space)
    known = measured_changes(context, "local-onnxruntime", codec)
    # The context knows every width; of each unit two are probed, and every block.
    assert len(known.rows) == len(known.ratios) == len(changes_to_probe(context.graph, context.space))
    assert len(known.ratios) < len(context.effects)
    blocks = {place for place, position in enumerate(codec.positions) if position.is_block}
    outside = [place for place, home in enumerate(codec.inside) if home < 0 and place not in blocks]
    assert set(known.groups) == blocks | set(outside)
    assert not len(measured_changes(replace(context, effects={}), "local-onnxruntime", codec).rows)


def test_attributions_tell_what_each_change_gives_and_takes() -> None:
    task = residual_task()
    plan = task.context.space.plan({"layer3.1.conv1": 0.5}, ["layer1.0"])
    told = GpPolicy().attribute(task.context, [], plan)
    assert told.keys() == {"layer3.1.conv1", "layer1.0"}
    for parts in told.values():
        assert parts.keys() == {"time saved", "knowledge lost"}
        assert np.isfinite(list(parts.values())).all()
    assert told["layer1.0"]["time saved"] > 0.01
    assert told["layer1.0"]["knowledge lost"] < 0.0
