"""What a user hands in, and what is said of what cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_bench.errors import BadInputError
from pipeline.data import load_dataset
from pipeline.data.base import Dataset, Split
from pipeline.user_samples import check_classes, parted, read_samples


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def saved(folder: Path, **arrays: object) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def good(n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((n, 1, 8, 8), np.uint8), np.arange(n) % 2


def test_reads_what_was_saved(tmp_path: Path, digits: Dataset) -> None:
    x, y = good()
    found = read_samples(saved(tmp_path, x=x, y=y.astype(np.uint8), more=np.zeros(3)), digits)
    assert np.array_equal(found.x, x) and found.x.dtype == np.uint8
    assert np.array_equal(found.y, y) and found.y.dtype == np.int64


X, Y = good()
HOLES = X.astype(np.float32)
HOLES[3, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "no array named y, only x"),
        ({"a": X}, "no array named x and y, only a"),
        ({"x": X[:, 0], "y": Y}, r"x in .* is \[6, 8, 8\]; a sample of digits is \[1, 8, 8\]"),
        ({"x": X, "y": Y[:4]}, r"y in .* is int64 \[4\]; it must be a class number for each of the 6"),
        ({"x": X, "y": Y.astype(float)}, r"y in .* is float64"),
        ({"x": X.astype(str), "y": Y}, "must hold numbers"),
        ({"x": X[:0], "y": Y[:0]}, "holds no samples"),
        ({"x": HOLES, "y": Y}, "1 of 6 samples in .* hold NaN or infinity, first sample 3"),
        ({"x": X, "y": Y + 9}, "has label 10 at sample 1; the run's classes are 0 to 9"),
        ({"x": X, "y": Y - 1}, "has label -1 at sample 0"),
        ({"x": X, "y": Y.astype(object)}, "cannot be read as .npz"),
    ],
)
def test_samples_that_cannot_be_used(
    tmp_path: Path, digits: Dataset, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        read_samples(saved(tmp_path, **arrays), digits)


def test_files_that_are_none(tmp_path: Path, digits: Dataset) -> None:
    with pytest.raises(BadInputError, match=r"mine.npz does not exist; give an .npz with x"):
        read_samples(tmp_path / "mine.npz", digits)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(BadInputError, match=r"cannot be read as \.npz"):
        read_samples(tmp_path / "text.npz", digits)
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(BadInputError, match="is a single array"):
        read_samples(tmp_path / "one.npy", digits)


def test_parts_share_nothing_and_every_class_has_its_shots(digits: Dataset) -> None:
    labels = np.array([0] * 5 + [3] * 9)
    samples = Split(np.arange(14)[:, None], labels)
    found = parted(samples, 2, 0, digits.labels)
    assert np.bincount(found.support.y, minlength=4).tolist() == [2, 0, 0, 2]
    both = np.concatenate([found.support.x, found.query.x]).ravel()
    assert sorted(both.tolist()) == list(range(14))
    again, other = parted(samples, 2, 0, digits.labels), parted(samples, 2, 1, digits.labels)
    assert np.array_equal(found.support.x, again.support.x)
    assert not np.array_equal(found.support.x, other.support.x)


@pytest.mark.parametrize(
    ("labels", "shots", "message"),
    [
        ([0, 0, 1, 1], 0, "shots must be at least 1; got 0"),
        ([0, 0, 0, 7], 2, r"class 7 \(7\) has 1 samples, fewer than 2 shots"),
        ([0, 0, 1, 1], 2, "all 4 samples are shots"),
    ],
)
def test_too_few(digits: Dataset, labels: list[int], shots: int, message: str) -> None:
    samples = Split(np.zeros((len(labels), 1)), np.array(labels))
    with pytest.raises(BadInputError, match=message):
        parted(samples, shots, 0, digits.labels)


def test_numbers_have_no_shots(digits: Dataset) -> None:
    from dataclasses import replace

    with pytest.raises(BadInputError, match="needs a run of a classifier"):
        check_classes(replace(digits, labels=()))


def test_several_heads_are_not_counted_by_class(digits: Dataset) -> None:
    split = Split(digits.train.x, np.stack([digits.train.y, digits.train.y % 2], 1))
    labels = (*digits.labels, "even", "odd")
    both = replace(digits, train=split, search=split, labels=labels, heads=(10, 2))
    with pytest.raises(BadInputError, match="has 2 heads; personalize needs a run of one classifier"):
        check_classes(both)
