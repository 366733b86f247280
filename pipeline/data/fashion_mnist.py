"""Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 grey pictures of 28×28, in gzipped IDX files."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from pipeline.data.base import Dataset, Metric, Preprocessing, SealedSplit, Split
from pipeline.data.files import check_labels, damaged, existing
from pipeline.data.splits import carve, fingerprint

LABELS = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# Mean and standard deviation of the training pictures.
PREPROCESSING = Preprocessing(scale=1 / 255, mean=(0.2860,), std=(0.3530,))
SEARCH_SAMPLES = 5000
# IDX: two zero bytes, the type (8 is unsigned byte), the number of dimensions, then each as big-endian int32.
IDX_UNSIGNED_BYTE = 8


def load(root: Path, seed: int) -> Dataset:
    """The four IDX files in `root/fashion_mnist`."""
    folder = root / "fashion_mnist"
    full = _read(folder, "train")
    # A set smaller than the official one gives a tenth of it.
    train, search = carve(full, min(SEARCH_SAMPLES, max(1, len(full) // 10)), seed)
    for kind in ("images-idx3", "labels-idx1"):
        existing(_path(folder, "t10k", kind))
    return Dataset(
        name="fashion-mnist",
        metric=Metric.ACCURACY,
        train=train,
        search=search,
        test=SealedSplit(lambda: _read(folder, "t10k")),
        preprocessing=PREPROCESSING,
        labels=LABELS,
        augmentation="crop-flip",
        search_is_public=True,
        fingerprint=fingerprint("fashion-mnist", train, search),
    )


def _path(folder: Path, split: str, kind: str) -> Path:
    return folder / f"{split}-{kind}-ubyte.gz"


def _read(folder: Path, split: str) -> Split:
    pictures_path = _path(folder, split, "images-idx3")
    labels_path = _path(folder, split, "labels-idx1")
    pictures = read_idx(pictures_path, 3)
    if pictures.shape[1:] != (28, 28):
        raise damaged(pictures_path, f"its pictures are {list(pictures.shape[1:])}, must be [28, 28]")
    labels = check_labels(labels_path, read_idx(labels_path, 1), len(pictures), len(LABELS))
    return Split(pictures[:, None], labels)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The unsigned bytes of a gzipped IDX file, in the shape its header gives.

    Args:
        path: the file.
        dimensions: how many dimensions it must have.

    Raises:
        DataError: the file is missing, truncated, or of another form.
    """
    existing(path)
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, IDX_UNSIGNED_BYTE, dimensions)) or len(content) < start:
        raise damaged(path, f"it is no IDX file of unsigned bytes in {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", dimensions, 4))
    if prod(shape) != len(content) - start:
        raise damaged(path, f"{len(content) - start} bytes where its header promises {list(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
