from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_nets import TwoConv, dataset_of, liven_
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score, roc_auc_score

from pipeline.data.base import Metric, Preprocessing, Split
from pipeline.evaluation import chance_of, evaluate, predict, score


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_accuracy_is_sklearns_in_percent(rng: np.random.Generator) -> None:
    outputs, truth = rng.normal(size=(200, 4)).astype(np.float32), rng.integers(0, 4, 200)
    expected = 100 * accuracy_score(truth, outputs.argmax(axis=1))
    assert score(Metric.ACCURACY, outputs, truth) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(200, 1), (200,)])
def test_errors_of_values_are_sklearns(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    truth = (10 * rng.normal(size=200)).astype(np.float32)
    outputs = (truth + rng.normal(size=200)).astype(np.float32).reshape(shape)
    flat = outputs.reshape(-1)
    assert score(Metric.MSE, outputs, truth) == pytest.approx(mean_squared_error(truth, flat), rel=1e-5)
    assert score(Metric.R2, outputs, truth) == pytest.approx(r2_score(truth, flat), rel=1e-5)


def test_auc_is_sklearns_for_one_output_and_for_two(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, 200)
    outputs = (rng.normal(size=(200, 2)) + truth[:, None]).astype(np.float32)
    one = 100 * roc_auc_score(truth, outputs[:, 0])
    assert score(Metric.AUC, outputs[:, :1], truth) == pytest.approx(one)
    # What softmax gives class 1 ranks as the margin does.
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert score(Metric.AUC, outputs, truth) == pytest.approx(100 * roc_auc_score(truth, shares[:, 1]))


@pytest.mark.parametrize("metric", [Metric.AUC, Metric.MSE, Metric.R2])
def test_outputs_that_are_no_numbers_have_no_score(metric: Metric) -> None:
    outputs = np.array([[0.1], [np.nan], [0.3]], np.float32)
    assert math.isnan(score(metric, outputs, np.array([0, 1, 1])))


@pytest.mark.parametrize("batch", [1, 7, 20, 500])
def test_predictions_do_not_depend_on_the_batch(batch: int, rng: np.random.Generator) -> None:
    module = liven_(TwoConv())
    raw = rng.integers(0, 256, (20, 2, 5, 6)).astype(np.uint8)
    form = Preprocessing(scale=1 / 255, mean=(0.5, 0.4), std=(0.2, 0.3))
    found = predict(module, raw, form, batch)
    with torch.no_grad():
        expected = module(torch.from_numpy(form.apply(raw))).numpy()
    assert found.shape == (20, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_judged_in_evaluation_mode_and_left_in_its_own(
    training: bool, rng: np.random.Generator
) -> None:
    module = liven_(TwoConv())
    x, y = rng.normal(size=(30, 2, 5, 6)), rng.integers(0, 2, 30)
    dataset = dataset_of(x, y)
    expected = 100 * np.mean(predict(module, x, Preprocessing()).argmax(axis=1) == y)
    before = module.bn.running_mean.clone()
    module.train(training)
    assert evaluate(module, dataset.search, Metric.ACCURACY, Preprocessing()) == pytest.approx(expected)
    assert module.training is training
    assert torch.equal(module.bn.running_mean, before)


def test_several_heads_are_worth_the_mean_of_their_accuracies() -> None:
    outputs = np.array([[0.1, 0.9, 2.0, 0.0, 1.0], [0.8, 0.2, 0.0, 1.0, 3.0], [0.3, 0.7, 5.0, 0.0, 0.0]])
    truth = np.array([[1, 0], [0, 1], [0, 0]])
    # Of the first head, whose classes are columns 0 and 1, two of three are right; of the second two as well.
    assert score(Metric.ACCURACY, outputs, truth, (2, 3)) == pytest.approx(100 * (2 / 3 + 2 / 3) / 2)
    truth[2, 0] = 1
    assert score(Metric.ACCURACY, outputs, truth, (2, 3)) == pytest.approx(100 * (3 / 3 + 2 / 3) / 2)


def test_chance_of_several_heads_is_the_mean_of_their_commonest_classes() -> None:
    truth = np.array([[0, 2], [0, 1], [0, 2], [1, 0]])
    data = replace(dataset_of(np.zeros((4, 1)), truth[:, 0]), labels=tuple("abcde"))
    split = Split(data.train.x, truth)
    data = replace(data, train=split, search=split, heads=(2, 3))
    assert chance_of(data) == pytest.approx(100 * (3 / 4 + 2 / 4) / 2)
