"""Data sets by name. Each gives train, search and test splits, a metric, and preprocessing that travels."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

from device_bench.errors import unknown_name
from pipeline.callables import load_callable
from pipeline.data.base import Dataset
from pipeline.errors import DataError


@dataclass(frozen=True)
class DatasetEntry:
    """Where a data set's loader is. With `needs_root` it is called (root, seed), without it (seed)."""

    module: str
    function: str
    description: str
    needs_root: bool = True


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(
        "pipeline.data.digits", "load", "handwritten digits 8×8, bundled with scikit-learn", False
    ),
    "fashion-mnist": DatasetEntry(
        "pipeline.data.fashion_mnist", "load", "clothes 28×28 grey, IDX files in fashion_mnist/"
    ),
    "cifar10-jpeg": DatasetEntry(
        "pipeline.data.cifar10", "load_jpeg", "CIFAR-10 as JPEG, cifar10_jpeg_{train,test}.npz"
    ),
    "cifar10-lossless": DatasetEntry(
        "pipeline.data.cifar10", "load_lossless", "5,000 pictures of CIFAR-10, cifar10_lossless_subset.npz"
    ),
    "cifar10": DatasetEntry(
        "pipeline.data.cifar10", "load_binary", "CIFAR-10's official binary version, data_batch_*.bin"
    ),
    "spoken-digits": DatasetEntry(
        "pipeline.data.spoken_digits", "load", "spoken digits as log-mel features, spoken_digits.npz"
    ),
}

NPZ = ".npz"
OWN_FILE = "a file ending in .npz"


def load_dataset(name: str, root: Path | None = None, seed: int = 0) -> Dataset:
    """A data set with its splits.

    Args:
        name: a key of `DATASETS`, the path of an .npz file (see `pipeline.data.npz`), or "module:callable"
            whose callable takes nothing and gives a `Dataset`.
        root: the folder of the data files; without it the environment's EDGELOOP_DATA.
        seed: which training samples become the search split. The test split is the same for every seed.

    Raises:
        BadInputError: no data set of that name; names the nearest.
        DataError: its files are missing or damaged, or the callable gives no `Dataset`.
    """
    if name.endswith(NPZ):
        from pipeline.data.npz import load_npz

        return load_npz(Path(name), seed)
    if ":" in name:
        return _load_own(name)
    if name not in DATASETS:
        raise unknown_name("data set", name, [*DATASETS, OWN_FILE, "module:callable"])
    entry = DATASETS[name]
    load = getattr(importlib.import_module(entry.module), entry.function)
    dataset: Dataset = load(_root(name, root), seed) if entry.needs_root else load(seed)
    return dataset


def _root(name: str, root: Path | None) -> Path:
    given = os.environ.get("EDGELOOP_DATA")
    folder = root if root is not None else Path(given) if given else None
    if folder is None:
        raise DataError(f"data set {name!r} needs a folder of files; give --data-root or set EDGELOOP_DATA")
    if not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist; give another by --data-root or EDGELOOP_DATA")
    return folder


def _load_own(name: str) -> Dataset:
    load = load_callable(name, DataError)
    try:
        dataset = load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"data callable {name!r} failed: {type(error).__name__}: {error}; it must take no arguments "
            "and return a pipeline.data.base.Dataset"
        ) from error
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"data callable {name!r} returned {type(dataset).__name__}; it must return a "
            "pipeline.data.base.Dataset"
        )
    return dataset
