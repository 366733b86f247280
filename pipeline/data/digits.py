"""The 1,797 handwritten digits of 8×8 that scikit-learn bundles (Alpaydin and Kaynak, UCI, 1998)."""

from __future__ import annotations

import numpy as np

from device_bench.errors import MissingExtraError
from pipeline.data.base import Dataset, Metric, Preprocessing, SealedSplit, Split
from pipeline.data.splits import carve, fingerprint, stratified_indices

LABELS = tuple(str(digit) for digit in range(10))
TEST_SHARE = 0.20
SEARCH_SHARE = 0.15
# The set has no split of its own. The test split is the same for every seed, so that runs compare.
TEST_SEED = 0


def load(seed: int) -> Dataset:
    """20 % test, 15 % search, the rest train; grey values are 0 to 16 as uint8 [n, 1, 8, 8]."""
    full = _read()
    kept, held_out = stratified_indices(full.y, round(TEST_SHARE * len(full)), TEST_SEED)
    train, search = carve(full.take(kept), round(SEARCH_SHARE * len(full)), seed)
    return Dataset(
        name="digits",
        metric=Metric.ACCURACY,
        train=train,
        search=search,
        test=SealedSplit(lambda: _read().take(held_out)),
        preprocessing=Preprocessing(scale=1 / 16),
        labels=LABELS,
        augmentation="none",
        fingerprint=fingerprint("digits", train, search),
    )


def _read() -> Split:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "pipeline") from error
    bunch = load_digits()
    return Split(bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64))
