"""A user's few labelled samples: read from an .npz, checked, and parted into support and query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_bench.errors import BadInputError
from pipeline.data.arrays import read_arrays
from pipeline.data.base import Dataset, Split
from pipeline.errors import DataError

FORM = "give an .npz with x [n, ...] (raw samples, as the run's data has them) and y [n] (class numbers)"


@dataclass(frozen=True)
class UserSamples:
    """What the model may adapt to, and what it is then judged on; no sample is in both."""

    support: Split
    query: Split


def check_classes(dataset: Dataset) -> None:
    """Refuse data that is not classified: shots are counted by class.

    Raises:
        BadInputError: it has no classes, or those of several tasks.
    """
    if dataset.heads:
        raise BadInputError(
            f"data set {dataset.name} has {len(dataset.heads)} heads; personalize needs a run of one "
            "classifier, for shots are counted by class"
        )
    if not dataset.labels:
        raise BadInputError(
            f"data set {dataset.name} predicts numbers ({dataset.metric}); personalize needs a run of a "
            "classifier, for shots are counted by class"
        )


def read_samples(path: Path, dataset: Dataset) -> Split:
    """The samples of the file, if the run's model can learn from them.

    Raises:
        DataError: no such file, another format, arrays missing or of the wrong shape, labels outside the
            classes, or values that are not finite; names the first.
    """
    arrays = _read(path)
    x, y = arrays["x"], arrays["y"]
    shape = dataset.input_shape
    if x.dtype.kind not in "fiub":
        raise DataError(f"x in {path} holds {x.dtype}; it must hold numbers: {FORM}")
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape:
        raise DataError(
            f"x in {path} is {list(x.shape)}; a sample of {dataset.name} is {list(shape)}, so x must be "
            f"[n, {', '.join(map(str, shape))}]"
        )
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise DataError(
            f"y in {path} is {y.dtype} {list(y.shape)}; it must be a class number for each of the {len(x)} "
            "samples in x"
        )
    if len(x) == 0:
        raise DataError(f"{path} holds no samples; {FORM}")
    bad = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(x)} samples in {path} hold NaN or infinity, first sample "
            f"{int(bad.argmax())}; remove or repair them"
        )
    classes = len(dataset.labels)
    outside = (y < 0) | (y >= classes)
    if outside.any():
        raise DataError(
            f"y in {path} has label {y[outside.argmax()]} at sample {int(outside.argmax())}; the run's "
            f"classes are 0 to {classes - 1}"
        )
    return Split(x, y.astype(np.int64))


def parted(samples: Split, shots: int, seed: int, labels: tuple[str, ...]) -> UserSamples:
    """`shots` samples of each class that is there as support, the rest as query; `seed` says which.

    Raises:
        BadInputError: fewer than one shot, a class with fewer samples than that, or nothing left to query.
    """
    if shots < 1:
        raise BadInputError(f"shots must be at least 1; got {shots}")
    order = np.random.default_rng(seed).permutation(len(samples))
    chosen = []
    for label in np.unique(samples.y):
        members = order[samples.y[order] == label]
        if len(members) < shots:
            raise BadInputError(
                f"class {label} ({labels[label]}) has {len(members)} samples, fewer than {shots} shots; "
                f"give more of them, or --shots {len(members)}"
            )
        chosen.append(members[:shots])
    support = np.sort(np.concatenate(chosen))
    query = np.setdiff1d(np.arange(len(samples)), support)
    if len(query) == 0:
        raise BadInputError(
            f"all {len(samples)} samples are shots and none is left to judge by; give more than {shots} of a "
            "class, or fewer --shots"
        )
    return UserSamples(samples.take(support), samples.take(query))


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, "samples file", FORM)
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise DataError(
            f"{path} has no array named {' and '.join(missing)}, only "
            f"{', '.join(arrays) or 'nothing'}; {FORM}"
        )
    return arrays
