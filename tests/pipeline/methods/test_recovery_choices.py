"""What a recovery may choose: which layers are trained when, what is matched, and when to stop."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from core_nets import dataset_of
from torch import nn
from torch.nn import functional

from pipeline.data.base import Dataset
from pipeline.layer_choice import LayerChoice, Schedule
from pipeline.methods import recovery
from pipeline.methods.best_weights import BestWeights
from pipeline.methods.layer_methods import hold_, release_, thin_
from pipeline.methods.matching import Matcher
from pipeline.methods.phases import trained_at
from pipeline.methods.recovery import Lesson, recover_
from pipeline.methods.schedules import ratio_at
from pipeline.methods.views import Views
from pipeline.plan import RecoveryChoice

NAMES = [f"{layer}.{part}" for layer in "abcdefgh" for part in ("weight", "bias")]


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    monkeypatch.setattr(recovery, "native_bf16", lambda: False)


@pytest.fixture
def pictures() -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(50) % 2
    x = (rng.normal(size=(50, 2, 6, 6)) + y[:, None, None, None]).astype(np.float32)
    return dataset_of(x, y.astype(np.int64))


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)]
    return nn.Sequential(*layers).eval()


def silent(share: float, text: str) -> None:
    """Nobody watches."""


def layers_of(names: frozenset[str]) -> str:
    return "".join(sorted({name[0] for name in names}))


def test_which_layers_are_trained_when() -> None:
    assert layers_of(trained_at("full", NAMES, 0, 8)) == "abcdefgh"
    assert layers_of(trained_at("last_layers", NAMES, 5, 8)) == "gh"
    phases = [layers_of(trained_at("layer_wise", NAMES, step, 8)) for step in range(8)]
    assert phases == ["ab", "cd", "ef", "gh", *["abcdefgh"] * 4]
    assert layers_of(trained_at("layer_wise", NAMES[:2], 0, 8)) == "a"


def test_last_layers_leave_the_others_as_they_were(pictures: Dataset) -> None:
    module = net()
    before = copy.deepcopy(module)
    recover_(
        module,
        Lesson(pictures, Views(pictures, 0), None, RecoveryChoice(epochs=2, method="last_layers")),
        silent,
    )
    assert torch.equal(module[0].weight, before[0].weight)
    assert not torch.equal(module[5].weight, before[5].weight)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_layer_wise_trains_all_in_the_end(pictures: Dataset) -> None:
    module = net()
    before = copy.deepcopy(module)
    recover_(
        module,
        Lesson(pictures, Views(pictures, 0), None, RecoveryChoice(epochs=2, method="layer_wise")),
        silent,
    )
    for layer in (0, 2, 5):
        assert not torch.equal(module[layer].weight, before[layer].weight)


def sparse(steps: list[float], module: nn.Module) -> None:
    steps.append(float((module[2].weight == 0).float().mean()))


@pytest.mark.parametrize("schedule", ["linear", "cubic", "one_cycle"])
def test_zeros_come_by_the_schedule_and_have_all_come_before_the_end(
    pictures: Dataset, schedule: Schedule
) -> None:
    module, shares = net(), []
    hold_(module, {"2": LayerChoice(sparsity=0.75)})
    choice = RecoveryChoice(epochs=8, sparsity_schedule=schedule)
    with torch.no_grad():
        thin_(module, schedule, 0, 36)
    module.register_forward_pre_hook(lambda layer, _: sparse(shares, layer))
    recover_(module, Lesson(pictures, Views(pictures, 0), None, choice), silent)
    # 48 steps, of which 36 are the ramp; zeros are chosen anew every sixteenth.
    assert len(shares) == 48
    wanted = [round(144 * ratio_at(schedule, step, 36, 0.75)) / 144 for step in (0, 16, 32, 36)]
    assert [shares[0], shares[16], shares[32], shares[36]] == pytest.approx(wanted)
    assert shares[15] == shares[0] and shares[-1] == pytest.approx(0.75)
    release_(module)
    assert float((module[2].weight == 0).float().mean()) == pytest.approx(0.75)


class Cut(Views):
    """Stops training where it is asked for its so-and-so-many-th batch."""

    def __init__(self, dataset: Dataset, at: int) -> None:
        super().__init__(dataset, 0)
        self._left = at

    def batch(self, view: int, indices: torch.Tensor) -> torch.Tensor:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return super().batch(view, indices)


def test_a_killed_recovery_goes_on_with_the_zeros_it_had(pictures: Dataset, tmp_path: Path) -> None:
    choice = RecoveryChoice(epochs=8, sparsity_schedule="cubic")
    whole, stopped, resumed = (net() for _ in range(3))
    for module in (whole, stopped, resumed):
        hold_(module, {"2": LayerChoice(sparsity=0.75, soft=True)})
    recover_(whole, Lesson(pictures, Views(pictures, 0), None, choice), silent)
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        recover_(stopped, Lesson(pictures, Cut(pictures, 26), None, choice, checkpoint=file), silent)
    recover_(resumed, Lesson(pictures, Views(pictures, 0), None, choice, checkpoint=file), silent)
    assert torch.equal(resumed[2].weight, whole[2].weight)


def test_patience_keeps_the_best_weights(pictures: Dataset) -> None:
    module, scores, seen = net(), iter([50.0, 70.0, 60.0, 65.0, 90.0]), []

    def judge(judged: nn.Module) -> float:
        seen.append(judged[0].weight.detach().clone())
        return next(scores)

    choice = RecoveryChoice(epochs=5, patience=2)
    recover_(module, Lesson(pictures, Views(pictures, 0), None, choice, judge=judge), silent)
    assert len(seen) == 4
    assert torch.equal(module[0].weight, seen[1])
    assert not module.training


def test_the_best_weights_outlive_their_process(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    module = net()
    first = BestWeights(checkpoint, 2)
    assert not first.after_epoch(module, 80.0)
    best = module[0].weight.detach().clone()
    checkpoint.touch()
    with torch.no_grad():
        module[0].weight.add_(1.0)
    again = BestWeights(checkpoint, 2)
    assert not again.after_epoch(module, 70.0)
    assert again.after_epoch(module, 75.0)
    again.restore_(module)
    assert torch.equal(module[0].weight, best)
    again.clear()
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_features_help_a_student_whose_labels_say_nothing(pictures: Dataset) -> None:
    teacher, x = net(), torch.from_numpy(pictures.train.x)
    apart = {}
    for weight in (0.0, 1.0):
        student = net()
        with torch.no_grad():
            student[0].weight.add_(
                0.3 * torch.randn(student[0].weight.shape, generator=torch.Generator().manual_seed(1))
            )
        matcher = Matcher(
            student, teacher, "features", ["0", "2"], x[:2], lambda o, y: functional.cross_entropy(o, y)
        )
        choice = RecoveryChoice(
            epochs=6, alpha=1.0, matching="features", matching_weight=weight, learning_rate=0.02
        )
        recover_(student, Lesson(pictures, Views(pictures, 0), None, choice, matcher=matcher), silent)
        matcher.close()
        with torch.no_grad():
            apart[weight] = float(
                (student[2](student[0](x).relu()) - teacher[2](teacher[0](x).relu())).square().mean()
            )
    assert apart[1.0] < 0.7 * apart[0.0]
