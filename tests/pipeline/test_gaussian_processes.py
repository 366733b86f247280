"""The two processes of the gp policy, against textbook formulas and in worlds whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_tasks import residual_task
from small_graphs import context_of, residual_graph
from test_layer_work import TARGET, read

from pipeline.policy import damage_process, latency_process
from pipeline.policy.change_damage import STATIC, ChangeDamage, Guess
from pipeline.policy.damage_process import DamageBelief
from pipeline.policy.latency_process import LatencyBelief, Measured
from pipeline.policy.layer_work import LayerWork
from pipeline.policy.plan_features import PlanFeatures
from pipeline.policy.process import Posterior, surprise
from pipeline.tables.codec import Options, PlanCodec


def test_the_posterior_is_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 3))
    kernel = points @ points.T + np.exp(-((points[:, None] - points[None]) ** 2).sum(-1))
    noise, seen, asked = rng.uniform(0.1, 0.2, 5), slice(0, 5), slice(5, 7)
    residual = rng.normal(size=5)
    inverse = np.linalg.inv(kernel[seen, seen] + np.diag(noise))
    tensors = (torch.from_numpy(one) for one in (kernel[seen, seen], noise, residual))
    posterior = Posterior.of(*tensors)
    across = torch.from_numpy(kernel[asked, seen])
    np.testing.assert_allclose(posterior.shift(across), kernel[asked, seen] @ inverse @ residual, rtol=1e-6)
    explained = np.diag(kernel[asked, seen] @ inverse @ kernel[seen, asked])
    np.testing.assert_allclose(posterior.explained(across), explained, rtol=1e-6)


def _line(outlier: float, groups: list[int]) -> np.ndarray:
    """What a line through y = x is believed to be at 0 to 3, where 1 was measured wrong, twice in a row."""
    points = np.array([0.0, 0.5, 1.0, 1.0, 1.5, 2.0, 2.5, 3.0])
    values = points.copy()
    values[2:4] += outlier
    kernel = 4.0 * np.outer(points, points) + 0.1 * np.exp(-np.abs(points[:, None] - points))
    asked = np.arange(4.0)
    across = 4.0 * np.outer(asked, points) + 0.1 * np.exp(-np.abs(asked[:, None] - points))
    tensors = [torch.from_numpy(one) for one in (kernel, np.full(8, 1e-4), values)]
    return Posterior.wary(*tensors, torch.tensor(groups)).shift(torch.from_numpy(across)).numpy()


TOGETHER = [0, 1, 2, 2, 3, 4, 5, 6]


def test_outcomes_that_all_others_speak_against_count_less() -> None:
    assert abs(_line(2.0, TOGETHER)[1] - 1.0) < 0.4 * abs(_line(2.0, list(range(8)))[1] - 1.0)
    assert abs(_line(2.0, TOGETHER)[1] - 1.0) < 0.8


def test_outcomes_that_agree_are_believed_as_they_are() -> None:
    np.testing.assert_allclose(_line(0.0, TOGETHER), np.arange(4.0), atol=0.02)


def test_surprise_is_the_negative_log_likelihood() -> None:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(4, 4))
    kernel, noise, residual = root @ root.T, np.full(4, 0.3), rng.normal(size=4)
    covariance = kernel + 0.3 * np.eye(4)
    expected = 0.5 * residual @ np.linalg.solve(covariance, residual) + 0.5 * np.linalg.slogdet(covariance)[1]
    found = surprise(*(torch.from_numpy(one) for one in (kernel, noise, residual)))
    assert float(found) == pytest.approx(expected / 4, rel=1e-6)


CHAIN = {f"layer{s}.{b}.conv2": f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1, 2)}


def work_on_resnet() -> LayerWork:
    context = context_of(read(residual_graph(), **CHAIN))
    return LayerWork.of(context, TARGET, PlanCodec(context.space))


def by_macs(work: LayerWork, rows: Options) -> np.ndarray:
    """A world in which time goes by the MACs that are left."""
    return np.einsum("nl,l->n", work.left(rows)[:, :, 3], work.sizes[:, 0])


def halves(codec: PlanCodec) -> Options:
    """Each unit at half its width, one after another."""
    units = [position.name for position in codec.positions if not position.is_block]
    return np.stack([codec.encode(codec.space.plan({name: 0.5})) for name in units])


def nothing(codec: PlanCodec) -> Measured:
    return Measured(np.zeros((0, len(codec.positions)), np.int16), [], [])


def measured(rows: Options, ratios: list[float]) -> Measured:
    return Measured(rows, ratios, list(range(len(rows))))


def test_latency_before_and_after_single_changes() -> None:
    work = work_on_resnet()
    codec = work.codec
    original = np.zeros((1, len(codec.positions)), np.int16)
    rows = halves(codec)
    all_half = codec.encode(codec.space.uniform(0.5))[None]
    true = by_macs(work, all_half)[0]
    numbers = latency_process.first_numbers()
    none = nothing(codec)
    before = LatencyBelief.of(work, numbers, none, none)
    after = LatencyBelief.of(work, numbers, measured(rows, by_macs(work, rows).tolist()), none)
    assert before.ratio(original)[0] == pytest.approx([1.0], abs=1e-6)
    np.testing.assert_allclose(after.ratio(rows)[0], by_macs(work, rows), atol=0.03)
    summed = 1.0 - (1.0 - by_macs(work, rows)).sum()
    wrong = [abs(one.ratio(all_half)[0][0] - true) for one in (before, after)]
    assert wrong[1] < min(wrong[0], abs(summed - true))
    assert after.ratio(all_half)[1][0] < before.ratio(all_half)[1][0]


def test_a_measured_plan_is_believed_and_its_neighbour_moves_along() -> None:
    work = work_on_resnet()
    codec = work.codec
    row = codec.encode(codec.space.plan({}, ["layer1.0"]))[None]
    near = codec.encode(codec.space.plan({"layer3.1.conv1": 0.5}, ["layer1.0"]))[None]
    numbers = latency_process.first_numbers()
    slow, fast = (
        LatencyBelief.of(work, numbers, nothing(codec), measured(row, [ratio])) for ratio in (0.95, 0.6)
    )
    assert slow.ratio(row)[0][0] == pytest.approx(0.95, abs=0.03)
    assert fast.ratio(row)[0][0] == pytest.approx(0.6, abs=0.03)
    assert slow.ratio(near)[0][0] - fast.ratio(near)[0][0] > 0.2


def test_a_machine_that_slowed_down_after_the_probes_slows_all_trials() -> None:
    work = work_on_resnet()
    codec = work.codec
    probes = halves(codec)
    trials = np.stack([codec.encode(codec.space.uniform(keep)) for keep in (0.75, 0.5, 0.25)])
    before = measured(probes, by_macs(work, probes).tolist())
    numbers = latency_process.first_numbers()
    asked = codec.encode(codec.space.uniform(0.375))[None]
    slower = 1.1 * by_macs(work, trials)
    calm, slow = (
        LatencyBelief.of(work, numbers, before, measured(trials, ratios.tolist())).ratio(asked)[0][0]
        for ratios in (by_macs(work, trials), slower)
    )
    assert slow > calm + 0.01


def changes(*, probed: bool) -> ChangeDamage:
    context = residual_task(probed=probed).context
    codec = PlanCodec(context.space)
    features = PlanFeatures.of(context, context.targets[0].name, 10.0, codec)
    return ChangeDamage.of(features, Guess(np.zeros(len(STATIC) + 3), 1.0))


def belief(told: ChangeDamage, plans: list[Options], gains: list[float]) -> DamageBelief:
    width = len(told.features.codec.positions)
    rows = np.stack(plans) if plans else np.zeros((0, width), np.int16)
    return DamageBelief.of(told, damage_process.first_numbers(), rows, np.array(gains))


def test_a_single_change_does_what_was_measured() -> None:
    told = changes(probed=True)
    codec = told.features.codec
    row = codec.encode(codec.space.plan({}, ["layer1.1"]))[None]
    alone, _ = told.alone(row)
    assert belief(told, [], []).total(row)[0][0] == pytest.approx(alone.sum(), rel=1e-3)
    assert told.doubt.tolist() == [0.0] * len(codec.positions)


def test_a_trial_teaches_about_plans_like_it_and_ends_doubt() -> None:
    told = changes(probed=True)
    codec = told.features.codec
    one = codec.encode(codec.space.plan({"layer2.1.conv1": 0.5}, ["layer1.0", "layer1.1"]))
    like = codec.encode(codec.space.plan({"layer2.1.conv1": 0.75}, ["layer1.0", "layer1.1"]))[None]
    before = belief(told, [], []).total(like)
    worse = belief(told, [one], [0.5]).total(like)
    better = belief(told, [one], [0.95]).total(like)
    assert worse[0][0] > better[0][0]
    assert worse[1][0] < 0.5 * before[1][0]


def test_the_original_loses_nothing_and_guesses_are_in_doubt() -> None:
    told = changes(probed=False)
    codec = told.features.codec
    rows = np.stack([np.zeros(len(codec.positions), np.int16), codec.encode(codec.space.uniform(0.5))])
    total, spread = belief(told, [], []).total(rows)
    assert total[0] < 1e-5 < 0.05 < total[1]
    assert spread[1] > belief(changes(probed=True), [], []).total(rows)[1][1]


def test_the_guess_learns_what_sizes_do_not_tell() -> None:
    context = residual_task(probed=True).context
    codec = PlanCodec(context.space)
    features = PlanFeatures.of(context, context.targets[0].name, 10.0, codec)
    measured = np.isfinite(features.damage)
    measured[:, 0] = False
    true = np.log(np.maximum(features.damage[measured], 0) + 0.002)
    plain, learned = (
        np.log(guess.damage(features)[measured])
        for guess in (Guess(np.zeros(len(STATIC) + 3), 1.0), Guess.fit([features]))
    )
    assert np.abs(learned - true).mean() < 0.6 * np.abs(plain - true).mean()
