from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import load_dataset
from pipeline.data.cifar10 import BINARY_RECORD
from pipeline.errors import DataError

RNG = np.random.default_rng(0)


def _jpeg(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def _write_jpeg(path: Path, samples: int) -> None:
    files = [_jpeg(20 * (number % 10)) for number in range(samples)]
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=(np.arange(samples) % 10).astype(np.uint8),
    )


def _write_binary(path: Path, samples: int) -> None:
    records = RNG.integers(0, 256, (samples, BINARY_RECORD), dtype=np.uint8)
    records[:, 0] = np.arange(samples) % 10
    path.write_bytes(records.tobytes())


@pytest.fixture
def jpeg_root(tmp_path: Path, own_cache: Path) -> Path:
    _write_jpeg(tmp_path / "cifar10_jpeg_train.npz", 100)
    _write_jpeg(tmp_path / "cifar10_jpeg_test.npz", 20)
    return tmp_path


def test_jpeg_pictures_and_labels_stay_together(jpeg_root: Path, own_cache: Path) -> None:
    for _ in range(2):  # decoded, then from the cache
        dataset = load_dataset("cifar10-jpeg", jpeg_root)
        assert (len(dataset.train), len(dataset.search)) == (90, 10)
        assert dataset.train.x.dtype == np.uint8
        assert dataset.input_shape == (3, 32, 32)
        means = dataset.train.x.reshape(90, -1).mean(axis=1)
        assert np.abs(means - 20.0 * dataset.train.y).max() < 2
        assert sorted(dataset.search.y) == list(range(10))
        assert dataset.search_is_public
    assert len(list(own_cache.iterdir())) == 1


def test_the_test_file_is_not_read_before_it_is_opened(jpeg_root: Path) -> None:
    test = jpeg_root / "cifar10_jpeg_test.npz"
    content = test.read_bytes()
    test.write_bytes(b"nothing")
    dataset = load_dataset("cifar10-jpeg", jpeg_root)
    test.write_bytes(content)
    assert len(dataset.test.open()) == 20
    with pytest.raises(DataError, match="opens once"):
        dataset.test.open()


def test_a_damaged_picture_is_named(jpeg_root: Path) -> None:
    path = jpeg_root / "cifar10_jpeg_train.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    stream = arrays["jpeg"].copy()
    stream[arrays["offsets"][7] : arrays["offsets"][7] + 40] = 0
    np.savez(path, **{**arrays, "jpeg": stream})
    with pytest.raises(DataError, match=r"cifar10_jpeg_train.npz.*picture 7 cannot be decoded"):
        load_dataset("cifar10-jpeg", jpeg_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.array([0, 5, 3])}, "offsets"),
        ({"labels": np.full(100, 10, np.uint8)}, "labels go from 10 to 10"),
        ({"labels": np.zeros(99, np.uint8)}, "100 samples with labels"),
    ],
)
def test_arrays_that_contradict_each_other(
    jpeg_root: Path, change: dict[str, np.ndarray], message: str
) -> None:
    path = jpeg_root / "cifar10_jpeg_train.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, **change})
    with pytest.raises(DataError, match=message):
        load_dataset("cifar10-jpeg", jpeg_root)


def test_missing_truncated_and_pickled_files(jpeg_root: Path) -> None:
    path = jpeg_root / "cifar10_jpeg_train.npz"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cifar10_jpeg_train.npz is damaged.*fetch it again"):
        load_dataset("cifar10-jpeg", jpeg_root)
    np.savez(path, labels=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="damaged"):
        load_dataset("cifar10-jpeg", jpeg_root)
    path.unlink()
    with pytest.raises(DataError, match=r"cifar10_jpeg_train.npz does not exist.*--data-root"):
        load_dataset("cifar10-jpeg", jpeg_root)


def test_lossless_pictures_go_channels_first(tmp_path: Path) -> None:
    pictures = RNG.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(50, dtype=np.uint8) % 10
    path = tmp_path / "cifar10_lossless_subset.npz"
    np.savez(path, x_train=pictures, y_train=labels, x_test=pictures[:20], y_test=labels[:20])
    dataset = load_dataset("cifar10-lossless", tmp_path)
    assert np.array_equal(dataset.test.open().x, pictures[:20].transpose(0, 3, 1, 2))
    assert (len(dataset.train), len(dataset.search)) == (45, 5)
    np.savez(path, x_train=pictures[:, :31], y_train=labels)
    with pytest.raises(DataError, match=r"x_train is uint8 \[50, 31, 32, 3\]"):
        load_dataset("cifar10-lossless", tmp_path)


def test_the_official_binary_version(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        _write_binary(folder / f"data_batch_{number}.bin", 20)
    _write_binary(folder / "test_batch.bin", 10)
    dataset = load_dataset("cifar10", tmp_path)
    assert (len(dataset.train), len(dataset.search)) == (90, 10)
    record = np.frombuffer((folder / "test_batch.bin").read_bytes(), np.uint8, BINARY_RECORD)
    assert np.array_equal(dataset.test.open().x[0].reshape(-1), record[1:])
    assert load_dataset("cifar10", folder).fingerprint == dataset.fingerprint
    short = folder / "data_batch_3.bin"
    short.write_bytes(short.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin.*whole records of 3073 bytes"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.data
def test_the_real_sets_have_their_official_sizes(data_root: Path) -> None:
    dataset = load_dataset("cifar10-jpeg", data_root)
    assert (len(dataset.train), len(dataset.search)) == (45000, 5000)
    assert np.array_equal(np.bincount(dataset.search.y), np.full(10, 500))
    lossless = load_dataset("cifar10-lossless", data_root)
    assert (len(lossless.train), len(lossless.search), len(lossless.test.open())) == (3600, 400, 1000)


@pytest.mark.data
def test_the_real_weights_reach_their_known_accuracy(data_root: Path) -> None:
    """86.40 % of the first 2,000 JPEG test pictures are right (87.48 % of all 10,000)."""
    import torch

    from pipeline.model import load_model
    from pipeline.task import ModelSpec

    weights = data_root / "weights" / "resnet20_cifar10_jpeg.safetensors"
    model = load_model(
        ModelSpec(source="resnet20", weights=os.fspath(weights), input_shape=(3, 32, 32), outputs=10)
    )
    dataset = load_dataset("cifar10-jpeg", data_root)
    test = dataset.test.open()
    right = 0
    with torch.inference_mode():
        for start in range(0, 2000, 500):
            part = test.take(np.arange(start, start + 500))
            outputs = model(torch.from_numpy(dataset.preprocessing.apply(part.x)))
            right += int((outputs.argmax(1).numpy() == part.y).sum())
    assert right / 20 == pytest.approx(86.40, abs=0.15)
