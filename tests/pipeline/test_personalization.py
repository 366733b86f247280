"""Personalisation of small networks on digits that are seen in another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from device_bench.errors import BadInputError
from pipeline.data import load_dataset
from pipeline.data.base import Dataset, Split
from pipeline.evaluation import predict
from pipeline.made_up_users import QUERIES_PER_CLASS, MadeUpUsers
from pipeline.personalization import LEARNERS, Method, head_names, paired_change, personalise
from pipeline.user_samples import UserSamples, parted
from pipeline.zoo import build


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Module:
    """A convolution with batch norm that knows upright digits."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 64, 10)
    )
    inputs = torch.from_numpy(digits.preprocessing.apply(digits.train.x))
    truth = torch.from_numpy(digits.train.y)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), truth).backward()
        optimizer.step()
    return module.eval()


@pytest.fixture(scope="module")
def mine(digits: Dataset) -> UserSamples:
    """Digits that lie on their side, five of each to adapt to."""
    turned = np.rot90(digits.search.x, 1, (2, 3)).copy()
    return parted(Split(turned, digits.search.y), 5, 0, digits.labels)


def silent(share: float, text: str) -> None:
    assert 0.0 <= share <= 1.0 and text


def adapted(module: nn.Module, mine: UserSamples, digits: Dataset, method: Method) -> nn.Module:
    users = MadeUpUsers(digits, 5, 0)
    return personalise(module, mine.support, digits.preprocessing, users, method, silent).module


@pytest.mark.parametrize("learner", LEARNERS)
def test_adapts_to_digits_on_their_side(
    learner: str, trained: nn.Module, mine: UserSamples, digits: Dataset
) -> None:
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    module = adapted(trained, mine, digits, Method(learner, episodes=12, steps=40))
    change = paired_change(
        predict(trained, mine.query.x, digits.preprocessing),
        predict(module, mine.query.x, digits.preprocessing),
        mine.query.y,
        0,
    )
    assert change.after > change.before + 10.0
    assert change.low > 0.0
    after = module.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())
    assert torch.equal(before["1.running_mean"], after["1.running_mean"])
    assert not torch.equal(before["4.weight"], after["4.weight"])


def test_equal_seeds_give_equal_weights(trained: nn.Module, mine: UserSamples, digits: Dataset) -> None:
    method = Method("fomaml", episodes=4, steps=3)
    first, second = (adapted(trained, mine, digits, method).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_made_up_users_anil_moves_the_head_only(
    trained: nn.Module, mine: UserSamples, digits: Dataset
) -> None:
    after = adapted(trained, mine, digits, Method("anil", episodes=0, steps=3)).state_dict()
    moved = {name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, after[name])}
    assert moved == {"4.weight", "4.bias"}


def test_second_order_through_attention(digits: Dataset) -> None:
    """Fused attention has no second derivative on a CPU."""
    torch.manual_seed(0)
    vit = build("vit", digits.input_shape, 10).eval()
    mine = parted(digits.search, 1, 0, digits.labels)
    module = adapted(vit, mine, digits, Method("maml", episodes=1, steps=1))
    assert all(torch.isfinite(tensor).all() for tensor in module.state_dict().values())


def test_head_is_what_runs_last() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.last(self.first(x)))

    assert head_names(Backwards(), (3,)) == ("last.weight", "last.bias")
    assert head_names(nn.Linear(3, 2), (3,)) == ("weight", "bias")
    with pytest.raises(BadInputError, match="nothing to personalise"):
        head_names(nn.Flatten(), (3,))


def test_made_up_users(digits: Dataset) -> None:
    users = MadeUpUsers(digits, 3, seed=1)
    task, again, other = users.draw(4), users.draw(4), users.draw(5)
    assert task.support[0].shape == (30, 1, 8, 8) and task.query[0].shape == (10 * QUERIES_PER_CLASS, 1, 8, 8)
    assert torch.bincount(task.support[1]).tolist() == [3] * 10
    assert torch.equal(task.support[0], again.support[0])
    assert not torch.equal(task.support[0], other.support[0])
    assert float(task.query[0].min()) >= 0.0 and float(task.query[0].max()) <= 1.0  # of the raw 0 … 16


def test_made_up_users_of_flat_samples(digits: Dataset) -> None:
    flat = Split(digits.train.x.reshape(len(digits.train), -1), digits.train.y)
    task = MadeUpUsers(replace(digits, train=flat), 2, seed=0).draw(0)
    assert task.support[0].shape == (20, 64)


def test_change_by_hand() -> None:
    truth = np.array([0, 1, 1, 0])
    right, wrong = np.eye(2)[truth], np.eye(2)[1 - truth]
    mixed = np.where([[True], [False], [True], [False]], right, wrong)
    assert paired_change(wrong, right, truth, 0).low == 100.0
    change = paired_change(mixed, right, truth, 0)
    assert (change.before, change.after) == (50.0, 100.0)
    assert change.low == 0.0 and change.high == 100.0  # four samples say little


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mamel", 1, 1), "unknown learner 'mamel'; did you mean maml"),
        (("maml", -1, 1), "episodes must be at least 0; got -1"),
        (("maml", 1, 0), "steps must be at least 1; got 0"),
    ],
)
def test_methods_that_cannot_be(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Method(*arguments)
