"""What every data set gives: splits, a metric with its direction, and preprocessing that travels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np

from device_bench.protocol import Record
from pipeline.data.heads import check_heads
from pipeline.errors import DataError


class Metric(StrEnum):
    """What a task is judged by. Accuracy and AUC are in percent; MSE and R² in their own units."""

    ACCURACY = "accuracy"
    MSE = "mse"
    R2 = "r2"
    AUC = "auc"

    @property
    def higher_is_better(self) -> bool:
        """True for all but MSE."""
        return self is not Metric.MSE

    def drop(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`: positive is worse, whatever the direction."""
        return before - after if self.higher_is_better else after - before


class Preprocessing(Record):
    """raw → model input: (raw * scale - mean) / std, per channel. It travels with every artifact."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NC", "NCL"] = "NCHW"

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """float32 model input of the same shape as `raw` (batch first, channels second)."""
        shape = (1, -1, *([1] * (raw.ndim - 2)))
        mean = np.asarray(self.mean, np.float32).reshape(shape)
        std = np.asarray(self.std, np.float32).reshape(shape)
        scaled: np.ndarray = (raw.astype(np.float32) * np.float32(self.scale) - mean) / std
        return scaled


@dataclass(frozen=True)
class Split:
    """Samples `x` [n, ...] as stored (before preprocessing) and what is to be predicted, `y` [n].

    `y` is [n, heads] where one model answers several tasks.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def spread(self, samples: int) -> Split:
        """At most `samples` of them, evenly spaced: fair also where the split is sorted by class."""
        return self.take(np.linspace(0, len(self) - 1, min(samples, len(self))).astype(np.int64))

    def take(self, indices: np.ndarray) -> Split:
        """The samples at `indices`."""
        return Split(self.x[indices], self.y[indices])


class SealedSplit:
    """The test split: it opens once, for the report, and a second reading is an error."""

    def __init__(self, load: Callable[[], Split]) -> None:
        self._load = load
        self.opened = False

    def open(self) -> Split:
        """The split itself.

        Raises:
            DataError: it was opened before.
        """
        if self.opened:
            raise DataError("the test split was read before in this run; it opens once, for the report")
        self.opened = True
        return self._load()


Augmentation = Literal["none", "crop-flip", "shift"]


@dataclass(frozen=True)
class Dataset:
    """Train, search and test splits of one task.

    Args:
        name: how the user asks for it.
        metric: what the task is judged by.
        train: what recovery may fit.
        search: held out from `train`; ranks candidates.
        test: sealed; touched once, for the report.
        preprocessing: raw → model input.
        labels: class names, empty for regression; one head's after the other's where there are several.
        heads: how many classes each of several tasks has that one model answers side by side; the truth is
            then [n, heads]. Empty for one task.
        augmentation: what recovery may do to a training sample ("crop-flip" for natural pictures).
        search_is_public: True where weights made by others may have been trained on the search split
            (it is carved from a public training set), which makes their score on it optimistic.
    """

    name: str
    metric: Metric
    train: Split
    search: Split
    test: SealedSplit
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    heads: tuple[int, ...] = ()
    augmentation: Augmentation = "none"
    search_is_public: bool = False
    fingerprint: str = field(default="")

    def __post_init__(self) -> None:
        check_heads(self)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the model sees it, without the batch dimension."""
        return tuple(self.train.x.shape[1:])

    @property
    def outputs(self) -> int:
        """How many outputs a model for this data has: classes, or 1 for regression."""
        return len(self.labels) if self.labels else 1

    def calibration(self, samples: int = 256, seed: int = 0) -> np.ndarray:
        """Preprocessed training samples, float32 [samples, ...], to set quantization ranges by.

        Raises:
            DataError: a value is not finite; says of which sample.
        """
        rng = np.random.default_rng(seed)
        indices = np.sort(rng.permutation(len(self.train))[:samples])
        found = self.preprocessing.apply(self.train.x[indices])
        bad = ~np.isfinite(found.reshape(len(found), -1)).all(axis=1)
        if bad.any():
            raise DataError(
                f"training sample {int(indices[bad][0])} of {self.name} has values that are not finite "
                f"({int(bad.sum())} of {len(found)} looked at); no range can be set by them: clean the data"
            )
        return found
