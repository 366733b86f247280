"""Someone's own data as one .npz: samples, what is to be predicted, and splits where they have them.

Arrays:
    x [n, ...]        samples, channels first; as the model takes them unless scale, mean or std are given
    y [n]             class numbers from 0 (whole numbers), or values to predict (floats)
                      y [n, heads]: a class number for each of several tasks that one model answers
    x_test, y_test    the test split; without them a fifth of x, the same for every seed
    x_search, y_search  the search split; without them a fifth of what is left, drawn by the seed
    scale, mean, std  preprocessing: (raw * scale − mean) / std, a value for all channels or one for each
    labels [classes]  names of the classes; of several tasks, one's after the other's
    heads [heads]     how many classes each of several tasks has; the model's outputs are all their logits
                      side by side, and the metric is the mean of their accuracies
    metric            "accuracy", "auc", "mse" or "r2"; accuracy for classes and mse for values without it.
                      "auc" is for anomalies (y is 1): the model has one output, a score that is higher the
                      odder a sample is, or with labels of two classes an output for each
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.data.arrays import read_arrays
from pipeline.data.base import Dataset, Metric, Preprocessing, SealedSplit, Split
from pipeline.data.heads import check_truth
from pipeline.data.splits import carve, fingerprint, stratified_indices
from pipeline.errors import DataError

NAMES = (
    "x", "y", "x_test", "y_test", "x_search", "y_search", "scale", "mean", "std", "labels", "heads", "metric",
)  # fmt: skip
HELD_OUT = 0.2
FORM = "give an .npz with x [n, ...] and y [n]"
LAYOUTS: dict[int, Literal["NC", "NCL", "NCHW"]] = {1: "NC", 2: "NCL", 3: "NCHW"}


def load_npz(path: Path, seed: int) -> Dataset:
    """The data set in the file.

    Raises:
        DataError: no such file, another format, arrays that are missing, unknown or do not fit; says which.
    """
    arrays = _read(path)
    whole = _split(path, arrays, "")
    classes = whole.y.dtype.kind in "iu"
    heads = _heads(path, arrays)
    if "x_test" in arrays:
        rest, test = whole, _split(path, arrays, "_test", whole)
    else:
        rest, test = _carved(path, whole, 0)
    if "x_search" in arrays:
        train, search = rest, _split(path, arrays, "_search", whole)
    else:
        train, search = _carved(path, rest, seed)
    metric = _metric(path, arrays, classes)
    # Anomalies without names for the classes are told by one score.
    named = classes and (metric is Metric.ACCURACY or "labels" in arrays)
    digest = hashlib.sha256(np.ascontiguousarray(whole.x).tobytes()).hexdigest()
    dataset = Dataset(
        name=path.name,
        metric=metric,
        train=train,
        search=search,
        test=SealedSplit(lambda: test),
        preprocessing=_preprocessing(path, arrays, whole),
        labels=_labels(path, arrays, [train, search, test], heads) if named else (),
        heads=heads,
        fingerprint=fingerprint(f"{path.name}|{digest}", train, search),
    )
    # The others were checked as the data set was made; it keeps this one sealed.
    check_truth(path.name, test, heads)
    return dataset


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, "data file", FORM)
    missing = [name for name in ("x", "y") if name not in arrays]
    unknown = sorted(set(arrays) - set(NAMES))
    halves = [n for n in ("_test", "_search") if (f"x{n}" in arrays) != (f"y{n}" in arrays)]
    if missing or unknown or halves:
        wrong = [
            *(f"no array named {name}" for name in missing),
            *(f"an unknown array {name}" for name in unknown),
            *(f"x{name} or y{name} without the other" for name in halves),
        ]
        raise DataError(f"{path} has {'; '.join(wrong)}; allowed: {', '.join(NAMES)}")
    return arrays


def _split(path: Path, arrays: Mapping[str, np.ndarray], which: str, like: Split | None = None) -> Split:
    """One pair of arrays, checked; `like` is the split whose samples they must look like."""
    x, y = arrays[f"x{which}"], arrays[f"y{which}"]
    if x.dtype.kind not in "fiub" or x.ndim - 1 not in LAYOUTS or len(x) == 0:
        raise DataError(
            f"x{which} in {path} is {x.dtype} {list(x.shape)}; it must hold numbers [n, features], "
            "[n, channels, length] or [n, channels, height, width]"
        )
    if like is not None and x.shape[1:] != like.x.shape[1:]:
        raise DataError(
            f"a sample of x{which} in {path} is {list(x.shape[1:])}, of x {list(like.x.shape[1:])}; they "
            "must have one shape"
        )
    fits = y.shape == (len(x),) or ("heads" in arrays and y.ndim == 2 and len(y) == len(x))
    if not fits or y.dtype.kind not in "iuf" or (like is not None and _kind(y) != _kind(like.y)):
        raise DataError(
            f"y{which} in {path} is {y.dtype} {list(y.shape)}; it must hold a class number (or everywhere a "
            f"value to predict) for each of the {len(x)} samples; with an array heads, a class number for "
            "each of several tasks"
        )
    for name, array in (("x", x), ("y", y)):
        if not np.isfinite(array).all():
            raise DataError(f"{name}{which} in {path} holds NaN or infinity; remove or repair those samples")
    if _kind(y) == "class":
        if y.min() < 0:
            raise DataError(f"y{which} in {path} has class {y.min()}; classes are numbered from 0")
        return Split(x, y.astype(np.int64))
    return Split(x, y.astype(np.float32))


def _kind(y: np.ndarray) -> str:
    return "value" if y.dtype.kind == "f" else "class"


def _carved(path: Path, full: Split, seed: int) -> tuple[Split, Split]:
    """(rest, held out): a fifth is held out; classes in their shares."""
    held_out = round(HELD_OUT * len(full))
    if held_out < 1 or held_out >= len(full):
        raise DataError(f"{path} has {len(full)} samples to split, too few; give at least 5")
    if _kind(full.y) == "class":
        return carve(full, held_out, seed)
    kept, held = stratified_indices(np.zeros(len(full), np.int64), held_out, seed)
    return full.take(kept), full.take(held)


def _heads(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """How many classes each of several tasks has; nothing for one task."""
    if "heads" not in arrays:
        return ()
    given = arrays["heads"]
    if given.ndim != 1 or given.dtype.kind not in "iu" or len(given) == 0:
        raise DataError(
            f"heads in {path} are {given.dtype} {list(given.shape)}; give the number of classes of each task"
        )
    return tuple(map(int, given))


def _labels(
    path: Path, arrays: Mapping[str, np.ndarray], splits: list[Split], heads: tuple[int, ...]
) -> tuple[str, ...]:
    classes = sum(heads) if heads else 1 + max(int(split.y.max()) for split in splits)
    if "labels" not in arrays:
        if heads:
            return tuple(f"{head}:{label}" for head, width in enumerate(heads) for label in range(width))
        return tuple(map(str, range(classes)))
    given = arrays["labels"]
    if given.ndim != 1 or given.dtype.kind != "U" or len(given) < classes:
        raise DataError(
            f"labels in {path} are {given.dtype} {list(given.shape)}; give a name for each of "
            f"{classes} classes"
        )
    return tuple(map(str, given))


def _metric(path: Path, arrays: Mapping[str, np.ndarray], classes: bool) -> Metric:
    allowed = (Metric.ACCURACY, Metric.AUC) if classes else (Metric.MSE, Metric.R2)
    given = str(arrays["metric"]) if "metric" in arrays else str(allowed[0])
    if given not in allowed:
        raise DataError(
            f"metric in {path} is {given!r}; for {'class numbers' if classes else 'values'} in y it is "
            f"{' or '.join(allowed)}"
        )
    return Metric(given)


def _preprocessing(path: Path, arrays: Mapping[str, np.ndarray], whole: Split) -> Preprocessing:
    channels = whole.x.shape[1]
    given = {name: np.atleast_1d(arrays[name]) for name in ("mean", "std", "scale") if name in arrays}
    for name, values in given.items():
        allowed = (1,) if name == "scale" else (1, channels)
        if values.ndim != 1 or len(values) not in allowed or values.dtype.kind not in "fiu":
            raise DataError(
                f"{name} in {path} is {values.dtype} {list(values.shape)}; it must hold "
                f"{' or '.join(map(str, allowed))} numbers"
            )
        if not np.isfinite(values).all() or (name == "std" and (values <= 0).any()):
            raise DataError(f"{name} in {path} must be finite{', and above 0' if name == 'std' else ''}")
    return Preprocessing(
        scale=float(given["scale"][0]) if "scale" in given else 1.0,
        mean=tuple(map(float, given.get("mean", np.zeros(1)))),
        std=tuple(map(float, given.get("std", np.ones(1)))),
        layout=LAYOUTS[whole.x.ndim - 1],
    )
