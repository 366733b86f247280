"""CIFAR-10 (Krizhevsky, 2009) in three forms: JPEG, a lossless subset, and the official binary files.

All give uint8 [n, 3, 32, 32]. Mean and std are ImageNet's: the weights given for these sets expect them.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.data.base import Dataset, Metric, Preprocessing, SealedSplit, Split
from pipeline.data.cache import cached_array
from pipeline.data.files import check_labels, damaged, existing, read_npz
from pipeline.data.splits import carve, fingerprint

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PREPROCESSING = Preprocessing(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PICTURE = (3, 32, 32)
SEARCH_SAMPLES = 5000
# One label byte, then 1,024 bytes each of red, green and blue.
BINARY_RECORD = 1 + 3 * 32 * 32


def load_jpeg(root: Path, seed: int) -> Dataset:
    """50,000 + 10,000 pictures as JPEG; decoded once and cached."""
    train = _read_jpeg(root / "cifar10_jpeg_train.npz")
    test = existing(root / "cifar10_jpeg_test.npz")
    return _dataset("cifar10-jpeg", train, SealedSplit(lambda: _read_jpeg(test)), seed)


def load_lossless(root: Path, seed: int) -> Dataset:
    """The first 4,000 training and 1,000 test pictures, lossless."""
    path = root / "cifar10_lossless_subset.npz"
    train = _read_lossless(path, "train")
    return _dataset("cifar10-lossless", train, SealedSplit(lambda: _read_lossless(path, "test")), seed)


def load_binary(root: Path, seed: int) -> Dataset:
    """The official binary version; its files lie in `root` or in `root/cifar-10-batches-bin`."""
    folder = root / "cifar-10-batches-bin"
    folder = folder if folder.is_dir() else root
    batches = [_read_binary(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    train = Split(np.concatenate([b.x for b in batches]), np.concatenate([b.y for b in batches]))
    test = existing(folder / "test_batch.bin")
    return _dataset("cifar10", train, SealedSplit(lambda: _read_binary(test)), seed)


def _dataset(name: str, full: Split, test: SealedSplit, seed: int) -> Dataset:
    # A set smaller than the official one gives a tenth of it, as the official one does.
    train, search = carve(full, min(SEARCH_SAMPLES, max(1, len(full) // 10)), seed)
    return Dataset(
        name=name,
        metric=Metric.ACCURACY,
        train=train,
        search=search,
        test=test,
        preprocessing=PREPROCESSING,
        labels=LABELS,
        augmentation="crop-flip",
        search_is_public=True,
        fingerprint=fingerprint(name, train, search),
    )


def _read_jpeg(path: Path) -> Split:
    labels = read_npz(path, ("labels",))["labels"]
    pictures = cached_array(path, "decoded", lambda: _decode_jpeg(path))
    if pictures.shape[1:] != PICTURE:
        raise damaged(path, f"decoded pictures are {list(pictures.shape[1:])}, must be {list(PICTURE)}")
    return Split(pictures, check_labels(path, labels, len(pictures), len(LABELS)))


def _decode_jpeg(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    arrays = read_npz(path, ("jpeg", "offsets"))
    offsets = arrays["offsets"]
    stream = arrays["jpeg"].tobytes()
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(stream):
        raise damaged(path, f"its offsets do not span its {len(stream)} bytes of pictures")
    if (np.diff(offsets) <= 0).any():
        raise damaged(path, "its offsets do not rise")
    pictures = np.empty((len(offsets) - 1, *PICTURE), np.uint8)

    def decode(number: int) -> None:
        try:
            with Image.open(io.BytesIO(stream[offsets[number] : offsets[number + 1]])) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise damaged(path, f"picture {number} cannot be decoded ({error})") from error
        if pixels.shape != (32, 32, 3):
            raise damaged(path, f"picture {number} is {pixels.shape[1]}×{pixels.shape[0]}, must be 32×32")
        pictures[number] = pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=2) as pool:
        for _ in pool.map(decode, range(len(pictures))):
            pass
    return pictures


def _read_lossless(path: Path, split: str) -> Split:
    arrays = read_npz(path, (f"x_{split}", f"y_{split}"))
    pictures = arrays[f"x_{split}"]
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (32, 32, 3):
        form = f"{pictures.dtype} {list(pictures.shape)}"
        raise damaged(path, f"x_{split} is {form}, must be uint8 [n, 32, 32, 3]")
    labels = check_labels(path, arrays[f"y_{split}"], len(pictures), len(LABELS))
    return Split(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)), labels)


def _read_binary(path: Path) -> Split:
    raw = np.fromfile(existing(path), np.uint8)
    if raw.size == 0 or raw.size % BINARY_RECORD:
        raise damaged(path, f"{raw.size} bytes are not whole records of {BINARY_RECORD} bytes")
    records = raw.reshape(-1, BINARY_RECORD)
    labels = check_labels(path, records[:, 0], len(records), len(LABELS))
    return Split(np.ascontiguousarray(records[:, 1:].reshape(-1, *PICTURE)), labels)
