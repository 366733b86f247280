from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.base import Preprocessing, Split
from pipeline.robustness import (
    PICTURE_CORRUPTIONS,
    SIGNAL_CORRUPTIONS,
    Attacker,
    Scale,
    corrupted,
    corruptions_for,
)

EPSILON = 8 / 255
FORM = Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@pytest.fixture
def bytes_split() -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (40, 3, 12, 12), dtype=np.uint8), rng.integers(0, 4, 40))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(600, 4)).eval()


def loss(net: nn.Module, split: Split) -> float:
    with torch.no_grad():
        outputs = net(torch.from_numpy(FORM.apply(split.x)))
    return float(nn.functional.cross_entropy(outputs, torch.from_numpy(split.y)))


def test_attacks_stay_within_epsilon_and_the_datas_values(net: nn.Module, bytes_split: Split) -> None:
    attacker = Attacker(net, FORM, Scale.of(bytes_split.x, FORM))
    for made in (attacker.fgsm(bytes_split, EPSILON), attacker.pgd(bytes_split, EPSILON)):
        assert np.abs(made.x - bytes_split.x.astype(np.float32)).max() <= EPSILON * 255 + 1e-3
        assert made.x.min() >= 0.0 and made.x.max() <= 255.0
        assert np.array_equal(made.y, bytes_split.y)


def test_pgd_is_worse_than_fgsm_and_that_than_noise(net: nn.Module, bytes_split: Split) -> None:
    attacker = Attacker(net, FORM, Scale.of(bytes_split.x, FORM))
    noise = np.random.default_rng(1).choice([-EPSILON * 255, EPSILON * 255], bytes_split.x.shape)
    noisy = Split(np.clip(bytes_split.x + noise, 0, 255).astype(np.float32), bytes_split.y)
    losses = [
        loss(net, each)
        for each in (
            bytes_split,
            noisy,
            attacker.fgsm(bytes_split, EPSILON),
            attacker.pgd(bytes_split, EPSILON),
        )
    ]
    assert losses[3] > losses[2] > losses[1] + 0.1
    assert losses[2] > losses[0] + 0.1


def test_fgsm_of_a_linear_model_by_hand() -> None:
    linear = nn.Linear(3, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 2.0, 0.0]])
    split = Split(np.array([[0.5, 0.5, 0.5]], np.float32), np.array([0]))
    # Class 0 loses by less of the first and more of the second; the third does not count.
    made = Attacker(linear, Preprocessing(layout="NC"), Scale(0.0, 1.0)).fgsm(split, 0.1)
    np.testing.assert_allclose(made.x, [[0.4, 0.6, 0.5]], atol=1e-6)


def test_fgsm_raises_the_mean_loss_of_several_heads() -> None:
    linear = nn.Linear(3, 4, bias=False)
    linear.weight.data = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 2.0, 0], [0, -2.0, 0]])
    split = Split(np.array([[0.5, 0.5, 0.5]], np.float32), np.array([[0, 1]]))
    # The first head loses by less of the first, the second by more of the second.
    made = Attacker(linear, Preprocessing(layout="NC"), Scale(0.0, 1.0), heads=(2, 2)).fgsm(split, 0.1)
    np.testing.assert_allclose(made.x, [[0.4, 0.6, 0.5]], atol=1e-6)


def test_the_scale_is_the_preprocessings_or_the_datas_own() -> None:
    assert Scale.of(np.array([0, 3, 16], np.uint8), Preprocessing(scale=1 / 16)) == Scale(0.0, 16.0)
    assert Scale.of(np.array([0, 3, 200], np.uint8), FORM) == Scale(0.0, 255.0)
    scale = Scale.of(np.array([-3.0, 5.0]), Preprocessing())
    np.testing.assert_allclose(scale.to_unit(np.array([-3.0, 1.0, 5.0])), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(scale.to_raw(np.array([-1.0, 0.5, 2.0])), [-3.0, 1.0, 5.0])


@pytest.mark.parametrize("kind", [name for name in PICTURE_CORRUPTIONS if name != "pixelate"])
def test_the_more_severe_the_farther_from_the_picture(kind: str, bytes_split: Split) -> None:
    scale = Scale.of(bytes_split.x, FORM)
    apart = [
        float(np.abs(corrupted(bytes_split, kind, severity, scale).x - bytes_split.x).mean())
        for severity in (1, 2, 3, 4, 5)
    ]
    assert apart == sorted(apart) and apart[0] > 0


def test_pixels_grow(bytes_split: Split) -> None:
    scale = Scale.of(bytes_split.x, FORM)
    kinds = [
        len(np.unique(corrupted(bytes_split, "pixelate", severity, scale).x[0, 0], axis=0))
        for severity in (1, 5)
    ]
    assert kinds[1] < kinds[0] <= 12


def test_a_corruption_is_the_same_each_time(bytes_split: Split) -> None:
    scale = Scale.of(bytes_split.x, FORM)
    one, two = (corrupted(bytes_split, "shot noise", 3, scale, seed=5) for _ in range(2))
    assert np.array_equal(one.x, two.x)
    assert not np.array_equal(one.x, corrupted(bytes_split, "shot noise", 3, scale, seed=6).x)


def test_what_is_no_picture_is_shifted_and_gets_noise() -> None:
    series = Split(np.tile(np.arange(50, dtype=np.float32), (4, 2, 1)), np.zeros(4, np.int64))
    assert corruptions_for(series.x) is SIGNAL_CORRUPTIONS
    made = corrupted(series, "shift", 5, Scale.of(series.x, Preprocessing()))
    for before, after in zip(series.x, made.x, strict=True):
        moves = [by for by in range(1, 11) if np.allclose(after, np.roll(before, by, axis=-1), atol=1e-3)]
        assert len(moves) == 1
