from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from device_bench.errors import BadInputError
from pipeline.methods.matching import Matcher, attention_map, blended, spread_places


class Small(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3)
        self.second = nn.Conv2d(width, 4, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x).relu()).relu().flatten(1))


def task_loss(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, truth)


def pair(width: int = 3) -> tuple[Small, Small, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Small(width), Small(6), torch.randn(5, 2, 6, 6), torch.randint(0, 3, (5,))


def test_features_are_compared_through_a_projection_where_widths_differ() -> None:
    student, teacher, x, y = pair()
    matcher = Matcher(student, teacher, "features", ["first", "second"], x, task_loss)
    assert set(matcher.projections) == {"first"}
    student(x)
    found = matcher.loss(x, y)
    with torch.no_grad():
        a, b = teacher.first(x), teacher.second(teacher.first(x).relu())
        weight = matcher.projections["first"].weight[:, :, None, None]
        first = functional.conv2d(student.first(x), weight)
        second = student.second(student.first(x).relu())
        wanted = (
            (first - a).square().mean() / a.square().mean() + (second - b).square().mean() / b.square().mean()
        ) / 2
    assert float(found.detach()) == pytest.approx(float(wanted), rel=1e-5)
    found.backward()
    assert student.first.weight.grad is not None
    assert matcher.projections["first"].weight.grad is not None
    assert teacher.first.weight.grad is None


def test_attention_by_hand() -> None:
    activation = torch.tensor([[[[1.0, 0.0]], [[2.0, 0.0]]]])
    assert attention_map(activation).tolist() == [[1.0, 0.0]]
    tokens = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
    torch.testing.assert_close(attention_map(tokens), functional.normalize(torch.tensor([[9.0, 4.0]])))


def test_attention_is_nothing_for_equals_and_something_for_others() -> None:
    student, teacher, x, y = pair(6)
    student.load_state_dict(teacher.state_dict())
    matcher = Matcher(student, teacher, "attention", ["first", "second"], x, task_loss)
    student(x)
    assert float(matcher.loss(x, y).detach()) == pytest.approx(0.0, abs=1e-10)
    with torch.no_grad():
        student.first.weight.add_(torch.randn_like(student.first.weight))
    student(x)
    assert float(matcher.loss(x, y).detach()) > 1e-3


def test_gradients_are_those_of_the_inputs() -> None:
    student, teacher, x, y = pair()
    matcher = Matcher(student, teacher, "gradients", [], x, task_loss)
    found = matcher.loss(x, y)
    slopes = []
    for module in (student, teacher):
        probe = x.clone().requires_grad_()
        task_loss(module(probe), y).backward()
        slopes.append(functional.normalize(probe.grad.flatten(1)))  # type: ignore[union-attr]
    wanted = (slopes[0] - slopes[1]).square().sum(1).mean()
    assert float(found.detach()) == pytest.approx(float(wanted), rel=1e-4)
    student.zero_grad()
    found.backward()
    assert float(student.first.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["features", "attention"])
def test_a_student_comes_nearer(kind: str) -> None:
    student, teacher, x, y = pair()
    matcher = Matcher(student, teacher, kind, ["first", "second"], x, task_loss)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam([*student.parameters(), *matcher.parameters()], 0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        student(x)
        loss = matcher.loss(x, y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_nothing_in_common_is_an_error() -> None:
    student, teacher, x, _ = pair()
    with pytest.raises(BadInputError, match="no module in common"):
        Matcher(student, teacher, "features", [], x, task_loss)


def test_places_are_spread_and_the_last_is_among_them() -> None:
    assert spread_places([str(i) for i in range(9)]) == ["1", "3", "5", "8"]
    assert spread_places(["a", "b"]) == ["a", "b"]


def test_teachers_are_blended_by_their_distributions() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    found = functional.softmax(blended([first, second], [3.0, 1.0], 2.0) / 2.0, dim=1)
    wanted = 0.75 * functional.softmax(first / 2.0, dim=1) + 0.25 * functional.softmax(second / 2.0, dim=1)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        functional.softmax(blended([first], [1.0], 4.0) / 4.0, 1), functional.softmax(first / 4.0, 1)
    )


def test_a_teacher_of_other_classes_is_an_error() -> None:
    with pytest.raises(BadInputError, match=r"same classes and have a weight each; got \[4, 3\], \[4, 5\]"):
        blended([torch.zeros(4, 3), torch.zeros(4, 5)], [1.0, 1.0], 2.0)
    with pytest.raises(BadInputError, match="weights must not be below zero"):
        blended([torch.zeros(4, 3)], [0.0], 2.0)
