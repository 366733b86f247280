from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core_nets import Waves, dataset_of
from torch import nn

from pipeline.compressor import compress
from pipeline.data import load_dataset
from pipeline.data.base import Dataset, Metric, Preprocessing
from pipeline.evaluation import evaluate
from pipeline.methods import recovery
from pipeline.methods.folding import fold_batch_norms
from pipeline.methods.recovery import Lesson, recover_
from pipeline.methods.teacher import RememberingTeacher
from pipeline.methods.views import Views
from pipeline.plan import RecoveryChoice
from pipeline.space import PlanSpace
from pipeline.tracing import trace
from pipeline.zoo import build


class StoppingViews(Views):
    """Views that a Ctrl-C stops at the batch of that number."""

    def __init__(self, dataset: Dataset, seed: int, stop: int) -> None:
        super().__init__(dataset, seed)
        self.left = stop

    def batch(self, view: int, indices: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().batch(view, indices)


def silent(share: float, text: str) -> None:
    """Nobody watches."""


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    monkeypatch.setattr(recovery, "native_bf16", lambda: False)


@pytest.fixture
def pictures() -> Dataset:
    """Fifty pictures of two classes: 6 steps of 8 an epoch, and two samples left over."""
    rng = np.random.default_rng(0)
    y = np.arange(50) % 2
    x = (rng.normal(size=(50, 2, 6, 6)) + y[:, None, None, None]).astype(np.float32)
    return dataset_of(x, y.astype(np.int64), augmentation="crop-flip")


def small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    )


def lesson_of(dataset: Dataset, epochs: float, **more: object) -> Lesson:
    choice = RecoveryChoice(epochs=epochs, learning_rate=0.05)
    return Lesson(dataset, Views(dataset, 0), None, choice, **more)  # type: ignore[arg-type]


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize(("name", "epochs"), [("cnn", 4.0), ("mlp", 15.0)])
def test_a_network_learns_the_digits(name: str, epochs: float) -> None:
    dataset = load_dataset("digits")
    module = build(name, dataset.input_shape, 10)
    told: list[tuple[float, str]] = []
    before = evaluate(module, dataset.search, dataset.metric, dataset.preprocessing)
    report = recover_(module, lesson_of(dataset, epochs), lambda share, text: told.append((share, text)))
    after = evaluate(module, dataset.search, dataset.metric, dataset.preprocessing)
    assert before < 40
    assert after > 85
    # Ten classes at a guess have a loss of log(10).
    assert report.last_loss < 0.5 * math.log(10)
    assert (report.bf16, report.compiled) == (False, False)
    assert told[-1][0] == 1.0
    assert f"epoch {epochs}" in told[-1][1]
    assert not any(layer.training for layer in module.modules())


def test_distillation_brings_the_student_to_its_teacher(pictures: Dataset) -> None:
    teacher, student = small_net(), small_net()
    views = Views(pictures, 0)
    everything = torch.arange(50)
    remembering = RememberingTeacher(teacher, 50, None)
    choice = RecoveryChoice(epochs=24, alpha=0.0, learning_rate=0.05)

    def apart() -> float:
        inputs = views.batch(0, everything)
        with torch.no_grad():
            difference = student.eval()(inputs).softmax(1) - teacher.eval()(inputs).softmax(1)
        return float(difference.abs().mean())

    before = apart()
    recover_(student, Lesson(pictures, views, remembering, choice), silent)
    assert apart() < 0.5 * before


@pytest.mark.parametrize("far", [1.0, 100.0])
def test_one_step_worked_out_by_hand(far: float) -> None:
    """Nesterov's first step from rest is (1 + momentum) * gradient; weights decay and biases do not.

    Without a norm in the network, the gradient is not longer than `LARGEST_GRADIENT`.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), far * rng.normal(size=5)
    dataset = dataset_of(x, y, Metric.MSE, preprocessing=Preprocessing(layout="NC"))
    module = nn.Linear(3, 1)
    weight, bias = (tensor.detach().double().numpy().copy() for tensor in module.parameters())
    report = recover_(module, lesson_of(dataset, 1.0), silent)
    residual = (x @ weight.T + bias)[:, 0] - y
    assert report.last_loss == pytest.approx(np.mean(residual**2), rel=1e-5)
    slopes = np.append(2 / 5 * residual @ x, 2 * residual.mean())
    length = float(np.linalg.norm(slopes))
    assert (length > recovery.LARGEST_GRADIENT) == (far > 1.0)
    slopes *= min(1.0, recovery.LARGEST_GRADIENT / length)
    slope = slopes[:3] + recovery.WEIGHT_DECAY * weight[0]
    np.testing.assert_allclose(
        module.weight.detach().numpy()[0], weight[0] - 0.05 * (1 + recovery.MOMENTUM) * slope, rtol=1e-5
    )
    expected = bias - 0.05 * (1 + recovery.MOMENTUM) * slopes[3]
    np.testing.assert_allclose(module.bias.detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_a_network_whose_norms_were_folded_recovers(keep: float) -> None:
    digits = load_dataset("digits")
    lesson = Lesson(digits, Views(digits, 0), None, RecoveryChoice(epochs=6))
    module = build("cnn", digits.input_shape, digits.outputs)
    recover_(module, lesson, silent)
    folded = fold_batch_norms(module, torch.zeros(2, *digits.input_shape)).eval()
    learned = evaluate(folded, digits.search, digits.metric, digits.preprocessing)
    assert learned > 95.0
    graph = trace(folded, digits.input_shape)
    cut = compress(folded, graph, PlanSpace.of(graph, 8).uniform(keep))
    remembering = RememberingTeacher(folded, len(lesson.views), None)
    recover_(cut, replace(lesson, teacher=remembering), silent)
    assert evaluate(cut, digits.search, digits.metric, digits.preprocessing) > learned - 3.0


def test_the_rate_rises_and_falls_by_a_cosine(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noting(optimizer: torch.optim.SGD, *arguments: object) -> object:
        assert len({group["lr"] for group in optimizer.param_groups}) == 1
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    recover_(small_net(), lesson_of(pictures, 10.0), silent)
    # Sixty steps, a twentieth of which warm up.
    assert len(rates) == 60
    falling = 0.05 * 0.5 * (1 + np.cos(np.pi * np.arange(57) / 57))
    np.testing.assert_allclose(rates, [0.05 / 3, 0.10 / 3, 0.05, *falling], rtol=1e-9)


@pytest.mark.parametrize("stop", [14, 18])
@pytest.mark.parametrize("taught", [False, True])
def test_a_stopped_recovery_goes_on_to_the_same_weights(
    stop: int, taught: bool, pictures: Dataset, tmp_path: Path
) -> None:
    """Stopped within the third epoch, or just before the fourth; resumed in what is a new process."""
    start, original = small_net(), small_net()

    def lesson(views: Views, folder: Path | None) -> Lesson:
        teacher = RememberingTeacher(original, 50, folder) if taught else None
        return replace(lesson_of(pictures, 15.0), views=views, teacher=teacher)

    whole = copy.deepcopy(start)
    recover_(whole, lesson(Views(pictures, 0), None), silent)

    checkpoint = tmp_path / "checkpoint.safetensors"
    stopped = copy.deepcopy(start)
    with pytest.raises(KeyboardInterrupt):
        views = StoppingViews(pictures, 0, stop)
        recover_(stopped, replace(lesson(views, tmp_path), checkpoint=checkpoint), silent)
    assert not stopped.training
    assert checkpoint.exists()

    resumed = copy.deepcopy(start)
    told: list[float] = []
    rest = replace(lesson(Views(pictures, 0), tmp_path), checkpoint=checkpoint)
    recover_(resumed, rest, lambda share, _: told.append(share))
    assert same(resumed, whole)
    assert min(told) > (stop // 6) / 15
    assert not checkpoint.exists()
    assert not list(tmp_path.glob("*.part"))


def test_without_a_stop_a_checkpoint_changes_nothing(pictures: Dataset, tmp_path: Path) -> None:
    first = small_net()
    second = copy.deepcopy(first)
    recover_(first, lesson_of(pictures, 2.0), silent)
    recover_(second, lesson_of(pictures, 2.0, checkpoint=tmp_path / "kept"), silent)
    assert same(first, second)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["torn", "another model"])
def test_a_checkpoint_of_no_use_is_said_so_and_passed_over(
    damage: str, pictures: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    other = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)) if damage == "another model" else small_net()
    with pytest.raises(KeyboardInterrupt):
        stopping = replace(lesson_of(pictures, 3.0, checkpoint=path), views=StoppingViews(pictures, 0, 8))
        recover_(other, stopping, silent)
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-50])
    first = small_net()
    second = copy.deepcopy(first)
    recover_(first, lesson_of(pictures, 1.0), silent)
    with caplog.at_level(logging.WARNING):
        recover_(second, lesson_of(pictures, 1.0, checkpoint=path), silent)
    assert "starts anew" in caplog.text
    assert same(first, second)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(pictures: Dataset) -> None:
    start = small_net()
    results = []
    for seed in (1, 1, 2):
        module = copy.deepcopy(start)
        recover_(module, lesson_of(pictures, 1.0, seed=seed), silent)
        results.append(module)
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_no_epochs_are_no_steps(pictures: Dataset) -> None:
    module = small_net()
    before = weights_of(module)
    report = recover_(module, lesson_of(pictures, 0.0), silent)
    assert math.isnan(report.last_loss)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module.training


def test_a_part_of_an_epoch_is_enough(pictures: Dataset) -> None:
    told: list[str] = []
    recover_(small_net(), lesson_of(pictures, 0.01), lambda _, text: told.append(text))
    assert len(told) == 1
    assert "epoch 0.2" in told[0]


@pytest.mark.parametrize("samples", [2, 5, 8, 9])
def test_sounds_and_few_samples(samples: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(samples, 2, 9)).astype(np.float32), rng.normal(size=samples)
    dataset = dataset_of(x, y, Metric.R2, preprocessing=Preprocessing(layout="NCL"))
    module = Waves()
    before = evaluate(module, dataset.train, Metric.MSE, dataset.preprocessing)
    recover_(module, lesson_of(dataset, 40.0), silent)
    assert evaluate(module, dataset.train, Metric.MSE, dataset.preprocessing) < before


def test_bfloat16_steps_leave_float32_weights(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "native_bf16", lambda: True)
    module = small_net()
    report = recover_(module, lesson_of(pictures, 1.0), silent)
    assert report.bf16
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    assert module(torch.zeros(2, 2, 6, 6)).dtype == torch.float32


class FakeTime:
    """A clock on which a step takes as long as `seconds_a_step` says for the threads it runs on."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._now = 0.0
        self._seconds = seconds

    def monotonic(self) -> float:
        self._now += self._seconds(torch.get_num_threads())
        return self._now


@pytest.mark.parametrize(("faster", "expected"), [(1, 1), (2, 2)])
def test_the_faster_number_of_threads_is_used_and_the_old_one_restored(
    faster: int, expected: int, pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setattr(recovery, "time", FakeTime(lambda threads: 0.001 if threads == faster else 0.002))
    module = small_net()
    module.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    recover_(module, lesson_of(pictures, 4.0), silent)
    assert set(used[: recovery.PROBE_STEPS]) == {1, 2}
    assert set(used[recovery.PROBE_STEPS :]) == {expected}
    assert torch.get_num_threads() == 2


def test_threads_are_restored_after_a_stop(pictures: Dataset) -> None:
    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        # Stopped in a step of the probe that runs on one thread.
        recover_(small_net(), replace(lesson_of(pictures, 2.0), views=StoppingViews(pictures, 0, 3)), silent)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("seconds", "compiled"), [(0.001, False), (10.0, True)])
def test_a_step_is_compiled_where_the_time_left_pays_for_it(
    seconds: float, compiled: bool, pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "time", FakeTime(lambda _: seconds))
    monkeypatch.setattr(recovery.shutil, "which", lambda _: "/usr/bin/g++")
    asked: list[nn.Module] = []

    def compiling(module: nn.Module) -> nn.Module:
        asked.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compiling)
    module = small_net()
    assert recover_(module, lesson_of(pictures, 4.0), silent).compiled is compiled
    assert asked == ([module] if compiled else [])


def test_without_a_compiler_nothing_is_compiled(pictures: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "time", FakeTime(lambda _: 10.0))
    monkeypatch.setattr(recovery.shutil, "which", lambda _: None)
    assert not recover_(small_net(), lesson_of(pictures, 4.0), silent).compiled
