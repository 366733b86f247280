from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import load_dataset
from pipeline.errors import DataError


def _write(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, samples in (("train", 100), ("t10k", 20)):
        pictures = rng.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
        _write(folder / f"{split}-images-idx3-ubyte.gz", pictures)
        _write(folder / f"{split}-labels-idx1-ubyte.gz", (np.arange(samples) % 10).astype(np.uint8))
    return tmp_path


def test_idx_files_become_three_splits(root: Path) -> None:
    dataset = load_dataset("fashion-mnist", root)
    assert dataset.input_shape == (1, 28, 28)
    assert (len(dataset.train), len(dataset.search), len(dataset.test.open())) == (90, 10, 20)
    assert dataset.outputs == 10


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("train-images-idx3-ubyte.gz", slice(0, 500), "damaged"),
        ("train-labels-idx1-ubyte.gz", slice(10, None), "damaged"),
    ],
)
def test_damaged_gzip_is_named(root: Path, name: str, cut: slice, message: str) -> None:
    path = root / "fashion_mnist" / name
    path.write_bytes(path.read_bytes()[cut])
    with pytest.raises(DataError, match=f"{name} is {message}"):
        load_dataset("fashion-mnist", root)


def test_content_that_contradicts_its_header(root: Path) -> None:
    path = root / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:-1]))
    with pytest.raises(DataError, match=r"78399 bytes where its header promises \[100, 28, 28\]"):
        load_dataset("fashion-mnist", root)
    path.write_bytes(gzip.compress(b"no IDX file at all, whatever its length"))
    with pytest.raises(DataError, match="no IDX file"):
        load_dataset("fashion-mnist", root)
    _write(path, np.zeros((100, 27, 28), np.uint8))
    with pytest.raises(DataError, match=r"must be \[28, 28\]"):
        load_dataset("fashion-mnist", root)


def test_a_missing_test_file_is_told_at_once(root: Path) -> None:
    (root / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz does not exist"):
        load_dataset("fashion-mnist", root)


@pytest.mark.data
def test_the_real_set(data_root: Path) -> None:
    dataset = load_dataset("fashion-mnist", data_root)
    assert (len(dataset.train), len(dataset.search)) == (55000, 5000)
    assert np.array_equal(np.bincount(dataset.search.y), np.full(10, 500))
    inputs = dataset.preprocessing.apply(dataset.train.x[:5000])
    assert abs(inputs.mean()) < 0.05
    assert abs(inputs.std() - 1) < 0.05
