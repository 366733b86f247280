from __future__ import annotations

import numpy as np
import pytest
import torch
from core_nets import dataset_of

from pipeline.data.base import Augmentation, Metric, Preprocessing
from pipeline.methods.views import PAD, VIEWS, Views

FORM = Preprocessing(scale=1 / 255, mean=(0.4, 0.5), std=(0.2, 0.3))
SAMPLES = 40


def pictures(augmentation: Augmentation, seed: int = 0) -> Views:
    return Views(dataset_of(raw(), np.zeros(SAMPLES, np.int64), Metric.ACCURACY, augmentation, FORM), seed)


def raw() -> np.ndarray:
    return np.random.default_rng(5).integers(1, 256, (SAMPLES, 2, 6, 7)).astype(np.uint8)


def by_hand(index: int, down: int, right: int, flip: bool) -> np.ndarray:
    """Pad by noughts, crop, flip, normalise."""
    padded = np.zeros((2, 6 + 2 * PAD, 7 + 2 * PAD), np.uint8)
    padded[:, PAD : PAD + 6, PAD : PAD + 7] = raw()[index]
    crop = padded[:, down : down + 6, right : right + 7]
    return FORM.apply((crop[:, :, ::-1] if flip else crop)[None])[0]


def found_in(view: torch.Tensor, index: int) -> list[tuple[int, int, bool]]:
    """All crops and flips of the sample that give this very view."""
    return [
        (down, right, flip)
        for down in range(2 * PAD + 1)
        for right in range(2 * PAD + 1)
        for flip in (False, True)
        if np.allclose(view.numpy(), by_hand(index, down, right, flip), atol=1e-5)
    ]


@pytest.mark.parametrize(("augmentation", "flips"), [("crop-flip", {False, True}), ("shift", {False})])
def test_a_view_is_one_crop_and_flip_of_each_sample(augmentation: Augmentation, flips: set[bool]) -> None:
    views = pictures(augmentation)
    assert views.count == VIEWS
    everything = torch.arange(SAMPLES)
    batch = views.batch(3, everything)
    assert batch.shape == (SAMPLES, 2, 6, 7)
    assert batch.dtype == torch.float32
    places = [found_in(batch[index], index) for index in range(SAMPLES)]
    assert all(len(found) == 1 for found in places)
    assert {found[0][2] for found in places} == flips
    # Forty draws from nine places: a view that never moves, or moves one way, shows.
    assert {found[0][0] for found in places} >= {0, 2 * PAD}
    assert {found[0][1] for found in places} >= {0, 2 * PAD}


def test_a_view_is_the_same_for_the_same_seed_whatever_the_batch() -> None:
    first, second = pictures("crop-flip"), pictures("crop-flip")
    whole = first.batch(2, torch.arange(SAMPLES))
    some = torch.tensor([7, 3, 31])
    second.batch(5, some)
    assert torch.equal(second.batch(2, some), whole[some])


def test_views_and_seeds_differ() -> None:
    everything = torch.arange(SAMPLES)
    views = pictures("crop-flip")
    assert not torch.equal(views.batch(0, everything), views.batch(1, everything))
    assert not torch.equal(views.batch(0, everything), pictures("crop-flip", 1).batch(0, everything))


def test_without_augmentation_a_view_is_the_sample() -> None:
    views = pictures("none")
    assert (views.count, len(views)) == (1, SAMPLES)
    some = torch.tensor([5, 0])
    np.testing.assert_allclose(views.batch(0, some).numpy(), FORM.apply(raw()[[5, 0]]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(9,), (3, 8)])
def test_what_is_no_picture_is_not_cropped(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    form = Preprocessing(scale=2.0, layout="NCL" if len(shape) == 2 else "NC")
    views = Views(dataset_of(x, np.zeros(6, np.int64), Metric.ACCURACY, "shift", form), 0)
    assert views.count == 1
    assert torch.equal(views.batch(0, torch.tensor([4, 1])), torch.from_numpy(2 * x[[4, 1]]))


def test_pictures_come_channels_last_and_the_data_stays_as_it_is() -> None:
    x = raw()
    x.flags.writeable = False
    views = Views(dataset_of(x, np.zeros(SAMPLES, np.int64), Metric.ACCURACY, "none", FORM), 0)
    batch = views.batch(0, torch.arange(4))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(x, raw())


def test_data_that_may_not_be_written_is_copied() -> None:
    x = np.ones((4, 3), np.float32)
    x.flags.writeable = False
    views = Views(dataset_of(x, np.zeros(4, np.int64)), 0)
    assert torch.equal(views.batch(0, torch.arange(4)), torch.ones(4, 3))
