from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from device_bench.errors import RunError
from pipeline.methods.teacher import RememberingTeacher

SAMPLES = 10


class Counting(nn.Module):
    """A linear layer that notes how many samples it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)
        self.asked: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(x))
        result: torch.Tensor = self.layer(x)
        return result


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(1))


def epoch(teacher: RememberingTeacher, view: int, inputs: torch.Tensor, seed: int) -> torch.Tensor:
    """Batches of four in a random order; the last two samples are left over, as in training."""
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(seed))
    answers = torch.full((SAMPLES, 4), torch.nan)
    for start in (0, 4):
        rows = order[start : start + 4]
        answers[rows] = teacher.answers(view, rows, inputs[rows])
    return answers


def test_each_sample_of_a_view_is_asked_for_once(inputs: torch.Tensor) -> None:
    module = Counting()
    teacher = RememberingTeacher(module, SAMPLES, None)
    for seed in range(8):
        epoch(teacher, 0, inputs, seed)
    assert sum(module.asked) == SAMPLES
    epoch(teacher, 1, inputs, 0)
    assert sum(module.asked) == SAMPLES + 8
    assert not module.training


def test_answers_are_the_modules_own_first_and_later(inputs: torch.Tensor) -> None:
    module = Counting()
    teacher = RememberingTeacher(module, SAMPLES, None)
    expected = inputs.numpy() @ module.layer.weight.detach().numpy().T + module.layer.bias.detach().numpy()
    first = epoch(teacher, 0, inputs, 3)
    again = epoch(teacher, 0, inputs, 3)
    assert torch.equal(first.nan_to_num(), again.nan_to_num())
    asked = ~first[:, 0].isnan().numpy()
    assert asked.sum() == 8
    np.testing.assert_allclose(first.numpy()[asked], expected[asked], rtol=1e-5, atol=1e-6)
    assert not first.requires_grad


def test_what_was_kept_is_read_back_and_not_asked_again(inputs: torch.Tensor, tmp_path: Path) -> None:
    teacher = RememberingTeacher(Counting(), SAMPLES, tmp_path / "cache")
    first = epoch(teacher, 2, inputs, 0)
    teacher.keep(2)
    later = Counting()
    nn.init.zeros_(later.layer.weight)
    resumed = RememberingTeacher(later, SAMPLES, tmp_path / "cache")
    again = epoch(resumed, 2, inputs, 0)
    assert later.asked == []
    assert torch.equal(again.nan_to_num(), first.nan_to_num())
    # Another order reaches the two samples that were left over, and those alone are asked for.
    for seed in range(1, 8):
        epoch(resumed, 2, inputs, seed)
    assert sum(later.asked) == 2


def test_a_view_is_kept_again_when_it_has_grown(inputs: torch.Tensor, tmp_path: Path) -> None:
    teacher = RememberingTeacher(Counting(), SAMPLES, tmp_path)
    teacher.answers(0, torch.arange(4), inputs[:4])
    teacher.keep(0)
    teacher.answers(0, torch.arange(SAMPLES), inputs)
    teacher.keep(0)
    module = Counting()
    RememberingTeacher(module, SAMPLES, tmp_path).answers(0, torch.arange(SAMPLES), inputs)
    assert module.asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["teacher-view-00.npy"]


def test_without_a_folder_nothing_is_kept(
    inputs: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = RememberingTeacher(Counting(), SAMPLES, None)
    epoch(teacher, 0, inputs, 0)
    teacher.keep(0)
    teacher.keep(7)
    assert list(tmp_path.iterdir()) == []
    later = Counting()
    epoch(RememberingTeacher(later, SAMPLES, None), 0, inputs, 0)
    assert sum(later.asked) == 8


@pytest.mark.parametrize("damage", ["torn", "empty", "pickle", "other rows", "flat"])
def test_a_file_of_no_use_is_said_so_and_replaced(
    damage: str, inputs: torch.Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "teacher-view-00.npy"
    if damage == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        rows, columns = (SAMPLES + 1, (4,)) if damage == "other rows" else (SAMPLES, (4,))
        np.save(path, np.zeros((rows, *(() if damage == "flat" else columns)), np.float32))
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    if damage == "empty":
        path.write_bytes(b"")
    module = Counting()
    teacher = RememberingTeacher(module, SAMPLES, tmp_path)
    with caplog.at_level(logging.WARNING):
        answers = teacher.answers(0, torch.arange(SAMPLES), inputs)
    assert module.asked == [SAMPLES]
    assert answers.any()
    assert "asked again" in caplog.text
    teacher.keep(0)
    assert np.array_equal(np.load(path), answers.numpy())


def test_a_bfloat16_teacher_answers_in_float32(inputs: torch.Tensor) -> None:
    module = Counting()
    exact = RememberingTeacher(module, SAMPLES, None).answers(0, torch.arange(SAMPLES), inputs)
    rough = RememberingTeacher(module, SAMPLES, None, bf16=True).answers(0, torch.arange(SAMPLES), inputs)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert torch.allclose(rough, exact, atol=0.05)


def test_a_folder_that_cannot_be_made_is_a_failure_of_the_run(inputs: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    teacher = RememberingTeacher(Counting(), SAMPLES, tmp_path / "file")
    teacher.answers(0, torch.arange(SAMPLES), inputs)
    with pytest.raises(RunError, match="cannot write"):
        teacher.keep(0)
